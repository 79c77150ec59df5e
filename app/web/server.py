"""The web process: puts the receiver's parts together, serves them, ends in order.

What aiohttp 3.14 offers against sockets that never finish is used: a connection without a complete request
head is closed after `keepalive_timeout`, a refused body is discarded for `lingering_time` at most, heads are
bounded in size. Bodies have our own time and size limits, connections our own bound. What is left for a front
proxy: TLS, limits per client address, cutting slow heads sooner than KEEPALIVE_TIMEOUT_S, and bodies in
chunks of a few bytes, which aiohttp parses one by one, 0.4 µs a byte, before any handler runs. A proxy
that buffers requests, as nginx does, sends them on with a length.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from app.background_tasks import WorkFailed
from app.config import DEFAULT_ACCOUNT, ConfigError
from app.descriptors import allowed_descriptors
from app.limits import Limits
from app.ports import Clock
from app.signals.process import ProcessSignals
from app.signals.scrape import Rendered
from app.stop_signals import ending_signals
from app.web.health import Probes
from app.web.metrics import Metrics
from app.web.receiver.body import answer_expect
from app.web.receiver.clock_offset import ClockOffset
from app.web.receiver.connections import BoundedSite, Connections
from app.web.receiver.direct import Takers
from app.web.receiver.inbox import Inbox
from app.web.receiver.waker import SettleWake
from app.web.receiver.webhook import ACCOUNT_PATH, LINGERING_TIME_S, PATH, Receiver

if TYPE_CHECKING:
    from app.store import Store

log = structlog.get_logger(__name__)
T = TypeVar("T")

KEEPALIVE_TIMEOUT_S = 75.0
"""Longer than the 60 s of common proxies, so that a proxy never reuses a connection we are closing."""
CONNECTIONS_MAX = 2_000
DESCRIPTORS_RESERVED = 100
"""For the database, Redis, files."""
CANCEL_TIMEOUT_S = 1.0
"""For what was not finished within SHUTDOWN_TIMEOUT_S."""
SHUTDOWN_TIMEOUT_S = 8.0
"""For requests in flight; with twice flush_timeout_s below the 30 s that orchestrators grant."""


INBOX = web.AppKey("inbox", Inbox)
METRICS = web.AppKey("metrics", Metrics)
PROBES = web.AppKey("probes", Probes)
RECEIVER = web.AppKey("receiver", Receiver)
TAKERS = web.AppKey("takers", Takers)
"""What connections have whole POSTs taken by."""


def create_app(
    store: "Store",
    wake: SettleWake,
    *,
    secrets: Sequence[str],
    extra_accounts: Mapping[str, Sequence[str]] | None = None,
    limits: Limits,
    clock: Clock,
    allow_unsigned: bool = False,
    signals: ProcessSignals | None = None,
    public_metrics: bool = False,
) -> web.Application:
    """The receiver and its probes; more routes may be added before it is served. `signals`: of the process,
    whose registry the receiver counts on. `public_metrics`: they are shown in this port too.

    `secrets` are the default account's, `extra_accounts` those of the others by name; each account has an
    address of its own. Raises ConfigError for an account without a secret, unless `allow_unsigned`. aiohttp
    decodes request bodies for no route: that would cost as much as a stranger likes.
    """
    secrets_by_account = {DEFAULT_ACCOUNT: secrets, **(extra_accounts or {})}
    for account, known in secrets_by_account.items():
        if any(not secret for secret in known) or not (known or allow_unsigned):
            raise ConfigError(_no_secret(account))
    if allow_unsigned:
        log.warning("unsigned_deliveries_accepted", risk="anybody who knows the URL can send some")
    signals = signals or ProcessSignals("web")
    metrics, offset = Metrics(signals.registry), ClockOffset()
    inbox = Inbox(store, wake, limits=limits, clock=clock, metrics=metrics)
    receiver = Receiver(
        inbox, secrets_by_account, offset, metrics, limits=limits, clock=clock, allow_unsigned=allow_unsigned
    )
    probes = Probes(store, inbox, offset, metrics, window_s=limits.signature_window_s, clock=clock)
    app = web.Application(client_max_size=limits.body_bytes_max + 1, handler_args=handler_args())
    app[INBOX], app[METRICS], app[PROBES], app[RECEIVER] = inbox, metrics, probes, receiver
    app[TAKERS] = Takers(receiver)
    metrics.add_gauge(
        "tallyhook_unverified_bytes",
        "Bytes of large bodies being read or checked",
        lambda: receiver.unverified_bytes,
    )
    app.add_routes(
        [
            web.post(PATH, receiver.handle_delivery, expect_handler=receiver.handle_expect),
            web.get(PATH, receiver.handle_challenge, allow_head=False, expect_handler=answer_expect),
            web.post(ACCOUNT_PATH, receiver.handle_delivery, expect_handler=receiver.handle_expect),
            web.get(ACCOUNT_PATH, receiver.handle_challenge, allow_head=False, expect_handler=answer_expect),
            web.get("/healthz", probes.health, expect_handler=answer_expect),
            web.get("/readyz", probes.ready, expect_handler=answer_expect),
        ]
    )
    if public_metrics:
        app.router.add_get("/metrics", Rendered(signals.registry).answer, expect_handler=answer_expect)
    app.cleanup_ctx.append(_run_inbox)
    app.on_shutdown.append(_drain)
    return app


def _no_secret(account: str) -> str:
    name = "CLORO_WEBHOOK_SECRET"
    if account != DEFAULT_ACCOUNT:
        name = f"TALLYHOOK_ACCOUNTS: webhook_secret of {account}"
    return (
        f"{name} is not set, so no delivery could be verified: copy the signing secret (whsec_...) from the "
        "provider's dashboard, or, for an account without signing, set TALLYHOOK_ALLOW_UNSIGNED=true and "
        "keep the URL unknown to others"
    )


async def serve(
    app: web.Application,
    *,
    host: str,
    port: int,
    share_port: bool = False,
    connections_max: int = CONNECTIONS_MAX,
    drain_delay_s: float = 0.0,
    shutdown_timeout_s: float = SHUTDOWN_TIMEOUT_S,
    stop: asyncio.Event | None = None,
    on_listening: Callable[[int], None] | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT, SIGHUP or `stop`, then end in order: unready, `drain_delay_s` for a load
    balancer to notice, no new connections, requests in flight, flush of the inbox. Raises WorkFailed when it
    had to end because a task of it could not be kept running.

    Port 0 takes a free one; the bound port is logged as `listening`, and passed to `on_listening`. With
    `share_port` several processes may listen on one port, and the kernel spreads connections over them.
    """
    stop = stop or asyncio.Event()
    connections = Connections(min(connections_max, connections_allowed()), app[TAKERS], connection_options())
    app.on_response_prepare.append(connections.note_answer)
    app[METRICS].connections_cut.set_function(lambda: connections.cut)
    runner = web.AppRunner(app, shutdown_timeout=CANCEL_TIMEOUT_S)
    with stop_signals(stop):
        try:
            await runner.setup()
            site = BoundedSite(runner, host, port, connections, share_port=share_port)
            await site.start()
            log.info("listening", host=host, port=site.port)
            if on_listening is not None:
                on_listening(site.port)
            failed = await _stop_or_failure(stop, app[INBOX].tasks)
            app[PROBES].draining = True
            log.info("web_stopping")
            await asyncio.sleep(0.0 if failed else drain_delay_s)
            await site.stop()
            app[INBOX].drain()
            # Before aiohttp ends: from then on it throws away what arrives, and with it the rest of a body.
            await app[RECEIVER].wait_until_idle(shutdown_timeout_s)
        finally:
            await runner.cleanup()
    log.info("web_stopped")
    if failed is not None:
        raise failed


async def _stop_or_failure(stop: asyncio.Event, work: set[asyncio.Task[None]]) -> BaseException | None:
    """Wait for `stop`; the error of the first task that ended before it."""
    stopped = asyncio.create_task(stop.wait(), name="stop")
    try:
        ended, _ = await asyncio.wait({stopped, *work}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
    for task in ended - {stopped}:
        return WorkFailed(f"{task.get_name()} was cancelled") if task.cancelled() else task.exception()
    return None


def run(main: Coroutine[Any, Any, T]) -> T:
    """asyncio.run on uvloop where there is one."""
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        from uvloop import new_event_loop as loop_factory
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main)


async def _run_inbox(app: web.Application) -> AsyncIterator[None]:
    app[INBOX].start()
    yield
    await app[INBOX].close()


async def _drain(app: web.Application) -> None:
    app[PROBES].draining = True
    app[INBOX].drain()


def handler_args() -> dict[str, Any]:
    """Of aiohttp's server and of each connection."""
    # A client that goes away does not end a handler in mid-commit.
    return connection_options() | {"handler_cancellation": False}


def connection_options() -> dict[str, Any]:
    """Of each connection alone."""
    http_log = logging.getLogger("aiohttp.server")
    if _is_noteworthy not in http_log.filters:
        http_log.addFilter(_is_noteworthy)
    return {
        "access_log": None,  # the receiver logs what matters, without a line per request
        "auto_decompress": False,
        "keepalive_timeout": KEEPALIVE_TIMEOUT_S,
        "lingering_time": LINGERING_TIME_S,
        "logger": http_log,
    }


def _is_noteworthy(record: logging.LogRecord) -> bool:
    """aiohttp logs a traceback for every malformed request, which is a stranger's to send at any rate."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


@contextlib.contextmanager
def stop_signals(stop: asyncio.Event) -> Any:
    """SIGTERM, SIGINT and SIGHUP set `stop`; a second one ends the process at once."""
    loop = asyncio.get_running_loop()
    numbers = ending_signals()

    def request_stop() -> None:
        stop.set()
        for number in numbers:
            loop.remove_signal_handler(number)

    try:
        for number in numbers:
            loop.add_signal_handler(number, request_stop)
    except (NotImplementedError, RuntimeError, ValueError):
        # Windows, or not the main thread: whoever runs us there uses `stop`.
        pass
    try:
        yield
    finally:
        for number in numbers:
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.remove_signal_handler(number)


def connections_allowed() -> int:
    """What the limit on file descriptors leaves for connections."""
    descriptors = allowed_descriptors()
    return max(descriptors - DESCRIPTORS_RESERVED, descriptors // 2)
