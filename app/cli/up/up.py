"""Puts together what one machine needs: Valkey, web, api, a worker, and without a key the emulator.

Each is a process of its own below a supervisor, as in production: whatever ends us, ends them.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path

from app.bootstrap import now_ms
from app.cli.store_access import opened_store
from app.cli.up.lines import Lines
from app.cli.up.part import POLL_S, Part, Parts
from app.cli.up.ports import port_for
from app.config import EMULATOR_URL, WEBHOOK_PATH, Settings
from app.domain.access import Scope
from app.errors import INTERRUPTED, USAGE, UserError
from app.local.embedded import embedded_valkey
from app.local.processes import Processes, own_command, plain_environment
from app.local.running import AlreadyRunning, Running, record, sole_runner
from app.log_sink import drain_all
from app.services.access import create_token, revoke_token
from app.stop_signals import ending_signals
from app.store import Store
from app.views.runs import Document

EMULATOR_OPTIONS = ("--plan", "enterprise-5k", "--time-scale", "20")
"""30 to 60 s of an engine become 1.5 to 3 s, with slots for 255: some 100 prompts a second."""
EMULATOR_PORT = int(EMULATOR_URL.rpartition(":")[2]) + 1
"""Never the one that is assumed where nothing runs: commands of another directory would reach this emulator,
and be told of balances and answers that their books do not know."""
TOKEN_NAME = "up"  # noqa: S105 - its name
FORGETS = "it has forgotten its tasks: what was open there expires"


class _Stopped(Exception):  # noqa: N818 - no error
    """A signal came while something was waited for."""


@dataclass(frozen=True, slots=True)
class Up:
    """What to run."""

    settings: Settings
    emulator_options: Sequence[str]
    """Behind our own, so that they count."""
    lines: Lines
    announce: Callable[[Document], None]
    """Told once, when everything is ready."""


async def run_up(up: Up) -> None:
    """Run everything until a signal. Raises UserError when it cannot be, or cannot go on."""
    try:
        with sole_runner(up.settings.data_dir) as folder:
            await _run(up, folder)
    except AlreadyRunning as other:
        raise already_running(other.running) from None


def already_running(running: Running | None) -> UserError:
    """Who runs here, and what one can do with that."""
    if running is None:
        return UserError("already_running", "tallyhook up is just being started here", "use that one")
    places = [f"web at {running.web}"] if running.web else []
    places += [f"the emulator at {running.emulator}"] if running.emulator else []
    who = f"tallyhook up already runs here, as process {running.pid} since {running.since}"
    remedy = f"every command here finds it; to end it: Ctrl-C in its terminal, or kill {running.pid}"
    return UserError("already_running", f"{who}: {', '.join(places) or 'not ready yet'}", remedy)


async def _run(up: Up, folder: Path) -> None:
    parts: list[Parts] = []
    # In this order, so that at the end Valkey outlives the processes that use it.
    async with _valkey(up.settings), _signals(lambda: _end_at_once(parts)) as stop:
        with Processes(folder) as processes:
            parts.append(Parts(processes, up.lines, Path.cwd(), asyncio.get_running_loop().time))
            try:
                await _until_stopped(stop, _serve(up, folder, parts[0]))
            except _Stopped:
                up.lines.say("ending; Ctrl-C once more ends all at once")
            finally:
                await _end_in_order(parts[0], up.lines)


async def _serve(up: Up, folder: Path, parts: Parts) -> None:
    """Start everything, say where it is, and keep it running."""
    settings = up.settings
    running = Running(os.getpid(), datetime.now(UTC).isoformat(timespec="seconds"), "", "")
    record(folder, running)
    up.lines.say(f"starting web, api, a worker{', the emulator' if needs_emulator(settings) else ''} …")
    if settings.database_url:
        from app.cli.migrate import bring_to_schema

        await bring_to_schema(settings)
    async with opened_store(settings) as store:  # here, so that it is made by one and not by all at once
        token = await new_token(store, settings)
    web, emulator = web_part(settings), None
    api = api_part(settings, beside=web)
    await parts.start(web)
    await parts.start(api)
    if needs_emulator(settings):
        emulator = emulator_part(up.emulator_options)
        await parts.start(emulator)
        emulator = await parts.on_its_port(emulator, lambda: emulator_part(up.emulator_options))
    web = await parts.on_its_port(web, lambda: web_part(settings))
    api = await parts.on_its_port(api, lambda: api_part(settings, beside=web))
    worker = worker_part(settings, emulator.url if emulator else "")
    await parts.start(worker)
    await parts.until_ready(worker)
    urls = (web.url, emulator.url if emulator else "")
    record(folder, Running(running.pid, running.since, *urls))
    tokens = {"api_token": token, "control_token": (emulator.control_token if emulator else "") or None}
    up.announce(ready_document(settings, *urls) | {"api": api.url} | tokens)
    while True:
        await parts.look()
        await asyncio.sleep(POLL_S)


async def new_token(store: Store, settings: Settings) -> str | None:
    """A token for whoever sits at this machine, in place of the one of the last start, since nobody kept
    that. None where others reach the API or the database: there a person says who may what."""
    if settings.database_url or not _is_loopback(settings.api_host):
        return None
    await revoke_token(store, TOKEN_NAME, now_ms=now_ms())
    made = await create_token(store, TOKEN_NAME, Scope.OPERATE, None, now_ms=now_ms())
    return None if made is None else made[1]


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def needs_emulator(settings: Settings) -> bool:
    """No key, and no other emulator was named."""
    return settings.embedded_provider and not settings.cloro_base_url


def ready_document(settings: Settings, web: str, emulator: str) -> Document:
    """Where everything is, as --json prints it."""
    address = settings.public_url or web
    return {
        "event": "ready",
        "web": web,
        "webhook_url": f"{address.rstrip('/')}{WEBHOOK_PATH}",
        "provider": emulator or settings.base_url,
        "emulator": emulator or None,
        "data_dir": str(settings.data_dir.absolute()),
    }


def web_part(settings: Settings) -> Part:
    """On PORT, or on the next free one where nobody set it. Raises UserError."""
    asked_by = "PORT" if "port" in settings.model_fields_set else ""
    port = (
        settings.port
        if settings.share_port
        else port_for("web", settings.host, settings.port, asked_by=asked_by)
    )
    listens = None if settings.share_port else (settings.host, port)
    command = own_command("app.cli.main", "web", "--json")
    return Part("web", command, _environment(PORT=str(port)), listens=listens)


def api_part(settings: Settings, *, beside: Part) -> Part:
    """On TALLYHOOK_API_PORT, or where nobody set it on the next one that is free, and not that of `beside`,
    which may not listen yet. Raises UserError."""
    asked_by = "TALLYHOOK_API_PORT" if "api_port" in settings.model_fields_set else ""
    promised = beside.listens[1] if beside.listens else 0
    port = port_for("api", settings.api_host, settings.api_port, asked_by=asked_by, promised=promised)
    command = own_command("app.cli.main", "api", "--json", "--port", str(port))
    return Part("api", command, _environment(), listens=(settings.api_host, port))


def worker_part(settings: Settings, emulator_url: str) -> Part:
    """It sends to the emulator that runs here, if one does."""
    provider = {"CLORO_BASE_URL": emulator_url} if emulator_url else {}
    return Part("worker", own_command("workers"), _environment(**provider))


def emulator_part(options: Sequence[str]) -> Part:
    """On its usual port or the next free one, unless the options say which."""
    words = " ".join(options).replace("--port=", "--port ").split()
    values = [value for name, value in pairwise(words) if name == "--port"]
    if not all(value.isascii() and value.isdecimal() for value in values):
        raise UserError(
            "bad_option", "--port in --emulator is no number", "write digits only", exit_code=USAGE
        )
    asked = [int(value) for value in values]
    port = port_for(
        "emulator",
        "127.0.0.1",
        asked[-1] if asked else EMULATOR_PORT,
        asked_by="--port in --emulator" if asked else "",
    )
    own = ("emulator", "--json", *EMULATOR_OPTIONS, *options, "--port", str(port))
    command = own_command("app.cli.main", *own)
    # No key and no password of ours is its business.
    return Part("emulator", command, plain_environment(), FORGETS, ("127.0.0.1", port))


def _environment(**more: str) -> dict[str, str]:
    """Ours: the same settings as every other command's here. Their logs are for us to draw."""
    return os.environ | {"TALLYHOOK_LOG_FORMAT": "json"} | more


@contextlib.asynccontextmanager
async def _valkey(settings: Settings) -> AsyncIterator[None]:
    """In a thread: its end takes some seconds, in which a signal must be heard."""
    server = embedded_valkey(settings)
    await asyncio.to_thread(server.__enter__)
    try:
        yield
    finally:
        await asyncio.to_thread(server.__exit__, None, None, None)


@contextlib.asynccontextmanager
async def _signals(at_once: Callable[[], None]) -> AsyncIterator[asyncio.Event]:
    """Set by the first signal; the second one calls `at_once`."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def hear() -> None:
        if stop.is_set():
            at_once()
        stop.set()

    numbers: tuple[signal.Signals, ...] = ending_signals()
    for number in numbers:
        loop.add_signal_handler(number, hear)
    try:
        yield stop
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _until_stopped(stop: asyncio.Event, work: Coroutine[None, None, None]) -> None:
    """Raises _Stopped when `stop` comes first, else what `work` raises."""
    task, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    for one in (task, stopped):
        one.cancel()
    (outcome, _) = await asyncio.gather(task, stopped, return_exceptions=True)
    if isinstance(outcome, Exception):
        raise outcome
    raise _Stopped


async def _end_in_order(parts: Parts, lines: Lines) -> None:
    """The worker finishes what it holds while web still takes what comes; who delivers, last."""
    by_name = {part.name: part for part in parts.all}
    for name in ("worker", "api", "web", "emulator"):
        if name in by_name:
            await parts.stop(by_name[name])
            lines.say(f"{name} has ended")


def _end_at_once(parts: Sequence[Parts]) -> None:
    for each in parts:
        each.kill_all()
    # Valkey ends by itself, when its last user has gone; nothing is in it that the database has not.
    drain_all()
    os._exit(INTERRUPTED)
