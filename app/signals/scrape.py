"""The scrape port: metrics, health and readiness of one process, off every port that strangers reach.

Several processes of one machine share one setting: each takes the port, or the next free one, and says which.
"""

import asyncio
import contextlib
import errno
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Protocol

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from app.address.listening import both_stacks, host_in_url
from app.errors import UserError
from app.logger import get_logger
from app.signals.process import ProcessSignals
from app.tracing import TracingUnavailable, tracing

log = get_logger(__name__)

METRICS_TYPE = "text/plain; version=1.0.0; charset=utf-8"
RENDERED_FOR_S = 0.25
"""How long a rendered page is served again: nobody scrapes more often than once a second."""
PORTS_TRIED = 64
BACKLOG = 16
SHUTDOWN_TIMEOUT_S = 1.0
CANNOT_LISTEN = (
    "set TALLYHOOK_METRICS_HOST to an address of this machine, and TALLYHOOK_METRICS_PORT to a free port "
    "above 1023, or unset it"
)


class Probed(Protocol):
    """What a process answers an orchestrator."""

    async def health(self, request: web.Request, /) -> web.Response: ...

    async def ready(self, request: web.Request, /) -> web.Response: ...


class Rendered:
    """A registry as text, written anew RENDERED_FOR_S after the last time."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._text, self._at_s = b"", float("-inf")

    def text(self) -> bytes:
        """The text format of Prometheus."""
        now_s = time.monotonic()
        if now_s - self._at_s >= RENDERED_FOR_S:
            self._text, self._at_s = generate_latest(self._registry), now_s
        return self._text

    async def answer(self, _request: web.Request) -> web.Response:
        """A handler."""
        return web.Response(body=self.text(), headers={"Content-Type": METRICS_TYPE})


def readiness(reasons: Sequence[str]) -> web.Response:
    """200, or 503 with every reason why work should go elsewhere."""
    return web.Response(
        status=503 if reasons else 200,
        body=msgspec.json.encode({"ready": not reasons, "reasons": reasons}),
        content_type="application/json",
    )


@contextlib.contextmanager
def traced(process: str, *, is_wanted: bool) -> Iterator[None]:
    """Meanwhile the process makes spans. Raises UserError where the packages for it are missing."""
    try:
        with tracing(process, is_wanted=is_wanted):
            yield
    except TracingUnavailable as error:
        raise UserError(
            "extra_missing", str(error), "pip install 'tallyhook[otel]', or unset TALLYHOOK_TRACES"
        ) from None


@contextlib.asynccontextmanager
async def scraped(
    signals: ProcessSignals, probes: Probed, *, host: str, port: int | None
) -> AsyncIterator[str | None]:
    """Meanwhile the process is scraped at the URL that this gives; None: no port was asked for, and nothing
    is measured that only a scrape would show. Raises UserError where nobody can listen."""
    if port is None:
        yield None
        return
    app = web.Application()
    app.add_routes(
        [
            web.get("/metrics", Rendered(signals.registry).answer),
            web.get("/healthz", probes.health),
            web.get("/readyz", probes.ready),
        ]
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    await runner.setup()
    watching = asyncio.create_task(signals.watch_loop(), name="loop lag")
    try:
        try:
            bound = await _listen(runner, host, port)
        except OSError as error:
            where = f"{host_in_url(host)}:{port}"
            raise UserError(
                "cannot_listen", f"cannot show metrics on {where}: {error.strerror}", CANNOT_LISTEN
            ) from error
        url = f"http://{host_in_url(host)}:{bound}"
        log.info("metrics_listening", process=signals.process, url=f"{url}/metrics", port=bound)
        yield url
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int) -> int:
    """Listen on the port or the next free one; which. 0: any."""
    last = min(port + PORTS_TRIED, 65_536) if port else 1
    for tried in range(port, last):
        try:
            return await _listen_on(runner, host, tried)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or tried == last - 1:
                raise
    raise AssertionError("unreachable")


async def _listen_on(runner: web.AppRunner, host: str, port: int) -> int:
    dual_stack = both_stacks(host, port, backlog=BACKLOG, share_port=False)
    if dual_stack is not None:
        site: web.BaseSite = web.SockSite(runner, dual_stack, backlog=BACKLOG)
    else:
        site = web.TCPSite(runner, host, port, backlog=BACKLOG)
    try:
        await site.start()
    except OSError:
        await site.stop()
        raise
    return int(runner.addresses[0][1])
