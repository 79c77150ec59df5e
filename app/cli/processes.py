"""Commands that are processes, or look after them: web, worker, emulator, doctor, demo."""

import contextlib
import functools
import gc
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.migrate import bring_to_schema
from app.cli.numbers import read_digits_only
from app.cli.options import AsJson, examples, settings_for
from app.cli.streams import forget_done
from app.errors import FAILED, UserError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web as web_server

    from app.config import Settings
    from app.queue import Queue
    from app.signals.process import ProcessSignals
    from app.store import Store
    from app.views.runs import Document

DEMO_SEED = 1
Migrate = Annotated[
    bool,
    typer.Option("--migrate", help="Bring the database to the schema first; several at once do no harm."),
]


def web(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON line when listening; logs go to stderr.")
    ] = False,
    migrate: Migrate = False,
    with_api: Annotated[
        bool,
        typer.Option("--with-api", help="Answer the API in the same port, for platforms that have only one."),
    ] = False,
) -> None:
    """Run the receiver of webhook deliveries, until Ctrl-C or SIGTERM.

    Listens on TALLYHOOK_HOST and PORT (0 picks a free one). The provider must reach it at PUBLIC_URL. Without
    REDIS_URL an embedded Valkey runs beside it, shared with every worker of the same TALLYHOOK_DATA_DIR.

    With --with-api whoever reaches the port reaches the API, which asks for a token; a few of its requests
    are answered at a time (TALLYHOOK_API_IN_FLIGHT_BESIDE_WEB), so that deliveries do not wait for them.
    """
    import asyncio

    # What is imported from here on stays: to look for garbage among it takes a tenth of the start.
    gc.disable()
    from app.log_sink import guard_standard_streams
    from app.web.server import run

    guard_standard_streams()
    settings = settings_for()
    if migrate:
        asyncio.run(bring_to_schema(settings))
    run(serve_web(settings, as_json=as_json, with_api=with_api))


async def serve_web(settings: "Settings", *, as_json: bool, with_api: bool = False) -> None:
    """The web process: store, queue, receiver."""
    import asyncio

    from app.address.listening import host_in_url
    from app.background_tasks import WorkFailed
    from app.bootstrap import CLOCK, open_queue
    from app.cli.store_access import opened_store
    from app.cli.terminal import announce_ready
    from app.config import WEBHOOK_PATH
    from app.local.embedded import embedded_valkey
    from app.signals.process import ProcessSignals
    from app.signals.scrape import scraped, traced
    from app.web.presence import stay_known
    from app.web.server import METRICS, PROBES, serve

    known: list[asyncio.Task[None]] = []
    signals, metrics_url = ProcessSignals("web"), None

    def announce(port: int) -> None:
        address = settings.address_at(port)
        presence = stay_known(store, CLOCK, address, app[METRICS].refused)
        known.append(asyncio.create_task(presence, name="presence"))
        url, webhook_url = f"http://{host_in_url(settings.host)}:{port}", f"{address}{WEBHOOK_PATH}"
        ready = {"event": "ready", "url": url, "webhook_url": webhook_url}
        said = f"Listening on {url}; deliveries go to {webhook_url}."
        announce_ready(ready, said, metrics_url, as_json=as_json)

    with embedded_valkey(settings) as redis_url:
        async with opened_store(settings) as store, contextlib.AsyncExitStack() as beside:
            beside.enter_context(traced("web", is_wanted=settings.traces))
            signals.watch_database("database", store.db)
            signals.watch_clock(CLOCK.machine_ahead_s)
            queue = open_queue(redis_url, settings, watch=signals.note_redis)
            signals.watch_pool("redis", queue.connections)
            try:
                gc.enable()
                gc.freeze()
                app = _receiver(store, queue, settings, signals)
                metrics_url = await beside.enter_async_context(
                    scraped(signals, app[PROBES], host=settings.metrics_host, port=settings.metrics_port)
                )
                if with_api:
                    await _add_api(app, settings, beside, queue.wake_submit, signals)
                await serve(
                    app,
                    host=settings.host,
                    port=settings.port,
                    share_port=settings.share_port,
                    drain_delay_s=settings.drain_delay_s,
                    on_listening=announce,
                )
            except (OSError, WorkFailed) as error:
                raise _ended_web(settings, error) from error
            finally:
                for task in known:
                    task.cancel()
                await asyncio.gather(*known, return_exceptions=True)
                await queue.close()


def _receiver(
    store: "Store", queue: "Queue", settings: "Settings", signals: "ProcessSignals"
) -> "web_server.Application":
    from app.bootstrap import now_ms
    from app.web.server import create_app

    return create_app(
        store,
        queue,
        secrets=settings.webhook_secrets,
        extra_accounts=extra_secrets(settings),
        limits=settings,
        clock=now_ms,
        allow_unsigned=settings.allow_unsigned,
        signals=signals,
        public_metrics=settings.public_metrics,
    )


async def _add_api(
    app: "web_server.Application",
    settings: "Settings",
    beside: contextlib.AsyncExitStack,
    wake: "Callable[[], Awaitable[object]]",
    signals: "ProcessSignals",
) -> None:
    """With connections of its own to the database: what the API asks, no delivery waits for."""
    from app.api.route import Parts
    from app.api.server import add_to_web
    from app.bootstrap import now_ms
    from app.cli import GARBAGE_AFTER
    from app.cli.store_access import opened_replica, opened_store
    from app.page.site import mount

    # As in `api`: an upload makes garbage by thousands of rows.
    gc.set_threshold(GARBAGE_AFTER)
    own = await beside.enter_async_context(opened_store(settings))
    replica = await beside.enter_async_context(opened_replica(settings))
    signals.watch_database("api database", own.db)
    parts = Parts(own, settings, now_ms, wake=wake, replica=replica)
    add_to_web(app, parts, settings, mount, registry=signals.registry)


def _ended_web(settings: "Settings", error: Exception) -> UserError:
    """Why there is no web process any more, and what to do."""
    from app.address.listening import host_in_url, listening_remedy

    if isinstance(error, OSError):
        where = f"{host_in_url(settings.host)}:{settings.port}"
        return UserError(
            "cannot_listen", f"cannot listen on {where}: {error.strerror}", listening_remedy(error)
        )
    remedy = "start it again; what it acknowledged is stored, the rest is delivered again"
    return UserError("work_failed", f"web had to end: {error}", remedy)


def extra_secrets(settings: "Settings") -> dict[str, tuple[str, ...]]:
    """The secrets of every account but the default one, by name."""
    from app.config import DEFAULT_ACCOUNT

    accounts = settings.all_accounts().values()
    return {account.name: account.webhook_secrets for account in accounts if account.name != DEFAULT_ACCOUNT}


def worker(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON line when starting; logs are JSON on stderr.")
    ] = False,
    migrate: Migrate = False,
) -> None:
    """Run one worker process: it submits, settles and sweeps, until Ctrl-C or SIGTERM.

    Any number may run. Without REDIS_URL an embedded Valkey runs beside it, shared with web.
    """
    import asyncio

    from app.local.processes import own_command
    from app.log_sink import drain_all, guard_standard_streams
    from app.stop_signals import block_until_exec

    settings = settings_for()
    if migrate:
        asyncio.run(bring_to_schema(settings))
    refuse_unready_database(settings)
    guard_standard_streams()
    if as_json:
        from app.cli.terminal import announce_line

        os.environ["TALLYHOOK_LOG_FORMAT"] = "json"
        started = {"event": "starting", "provider": settings.base_url, "webhook_url": settings.webhook_url}
        announce_line(json.dumps(started))
    drain_all()
    if settings.cloro_base_url:  # perhaps found, see settings_for
        os.environ["CLORO_BASE_URL"] = settings.cloro_base_url
    # In our place, not as our child: signals and exit code are the worker's own.
    block_until_exec()
    command = own_command("workers")
    os.execv(command[0], command)  # noqa: S606 - our own package


def refuse_unready_database(settings: "Settings") -> None:
    """Raises UserError when the database is not there or not migrated: said once, before the logs begin."""
    import asyncio

    from app.cli.store_access import opened_store

    async def look() -> None:
        async with opened_store(settings):
            pass

    asyncio.run(look())


def doctor(as_json: AsJson = False) -> None:
    """Check everything a real run needs, and say what to do about each fault.

    Configuration, database, Redis, provider, and that the webhook URL reaches our own receiver, which proves
    itself with the secret. Changes nothing. Ends with 1 if there is a fault.
    """
    import asyncio

    from app.cli.doctor.check import draw_checks
    from app.cli.doctor.configuration import wrong_settings
    from app.cli.doctor.doctor import document, examine
    from app.cli.terminal import show
    from app.settings_text import ConfigError

    try:
        settings = settings_for(log_level="error", quiet=True)
    except ConfigError as error:
        found = document(wrong_settings(error))
    else:
        found = document(asyncio.run(examine(settings)))
    show(found, as_json=as_json, draw=draw_checks)
    if not found["healthy"]:
        raise typer.Exit(FAILED)


def demo(
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="A new directory for database, queue and logs, which stays."),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Prompts to submit; default: examples/prompts.csv.", exists=True)
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the emulator's answers and faults.", min=0, max=2**31 - 1)
    ] = DEMO_SEED,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything running, to look at the page, until Ctrl-C.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run the whole pipeline on this machine against a misbehaving provider, and compare the books.

    Starts Valkey, the emulator, web and a worker as processes of their own on free ports, submits the
    prompts, waits until every task is settled, and lays what was found beside what the emulator says it did:
    tasks that fail, deliveries sent twice, late or never, wrong charges, lost responses. Ends with 1 if the
    two differ anywhere. Leaves nothing running and nothing behind, unless --keep says so.
    """
    import asyncio

    from app import log
    from app.cli.demo.demo import Demo, run_demo
    from app.cli.demo.draw import draw_demo
    from app.cli.terminal import show

    log.configure("auto", "warning")

    def look(document: "Document") -> None:
        forget_done()  # its run is gone with its directory, and only the books are asked for
        show(document, as_json=as_json, draw=draw_demo)

    document = asyncio.run(run_demo(Demo(prompts, seed, directory, look if keep else None)))
    if not keep:
        look(document)
    if not document["agree"]:
        raise typer.Exit(FAILED)


def emulator(context: typer.Context) -> None:
    """Run the provider locally: the async API, signed webhooks, its own books, and faults on request."""
    # Its options are its own, and it imports nothing of ours: they are parsed there.
    from app.emulator.cli.command import emulator as run
    from app.log_sink import guard_standard_streams

    @functools.wraps(run)
    def guarded(**options: object) -> None:
        # It goes by none of them; but who has set one wrongly hears of it by whatever is started first.
        settings_for()
        guard_standard_streams()
        run(**options)  # type: ignore[arg-type]

    alone = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    alone.command()(guarded)
    command = typer.main.get_command(alone)
    read_digits_only(command)
    command(args=context.args, prog_name="tallyhook emulator")


EMULATOR_CONTEXT = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": list[str](),
}
WEB_EXAMPLES = examples("tallyhook web", "PORT=9000 PUBLIC_URL=https://hooks.example.com tallyhook web")
DEMO_EXAMPLES = examples("tallyhook demo", "tallyhook demo --seed 7 --json", "tallyhook demo --keep")
DOCTOR_EXAMPLES = examples(
    "tallyhook doctor", "tallyhook doctor --json | jq '.checks[] | select(.state != \"ok\")'"
)
