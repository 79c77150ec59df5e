"""The command api: the process that answers programs and people."""

import contextlib
import gc
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import examples, settings_for
from app.cli.processes import Migrate
from app.errors import UserError

if TYPE_CHECKING:
    from app.config import Settings


def api(
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen on.", show_default="TALLYHOOK_API_HOST, or 127.0.0.1"),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            help="Port to listen on; 0 picks a free one.",
            min=0,
            max=65535,
            show_default="TALLYHOOK_API_PORT, or 8081",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON line when listening; logs go to stderr.")
    ] = False,
    migrate: Migrate = False,
) -> None:
    """Run the API, until Ctrl-C or SIGTERM.

    Every request needs a token: tallyhook token create makes one. Only this machine reaches it by default;
    with another address put a proxy with TLS before it. /openapi.json describes it, docs/api.md too.
    """
    import asyncio

    # What is imported from here on stays: to look for garbage among it takes a tenth of the start.
    gc.disable()
    from app.address import AddressError
    from app.address.listening import read_host
    from app.cli.migrate import bring_to_schema
    from app.log_sink import guard_standard_streams
    from app.web.server import run

    guard_standard_streams()
    settings = settings_for()
    try:
        at = read_host(host) if host is not None else settings.api_host
    except AddressError as error:
        raise typer.BadParameter(str(error), param_hint="--host") from None
    if migrate:
        asyncio.run(bring_to_schema(settings))
    run(_serve(settings, at, settings.api_port if port is None else port, as_json=as_json))


async def _serve(settings: "Settings", host: str, port: int, *, as_json: bool) -> None:
    from app.address.listening import host_in_url
    from app.api.route import Parts
    from app.api.server import PROBES, create_api, serve_api
    from app.bootstrap import CLOCK, now_ms
    from app.cli import GARBAGE_AFTER
    from app.cli.store_access import opened_replica, opened_store
    from app.cli.terminal import announce_ready
    from app.cli.wake import Waker
    from app.page.site import mount
    from app.signals.process import ProcessSignals
    from app.signals.scrape import scraped, traced
    from app.web.presence import reading_clock

    def announce(bound: int) -> None:
        url = f"http://{host_in_url(host)}:{bound}"
        said = f"The page and the API listen on {url}; {url}/openapi.json describes it."
        announce_ready({"event": "ready", "url": url}, said, metrics_url, as_json=as_json)

    signals, metrics_url = ProcessSignals("api"), None
    async with (
        opened_store(settings) as store,
        opened_replica(settings) as replica,
        reading_clock(store, CLOCK),
        contextlib.AsyncExitStack() as beside,
    ):
        beside.enter_context(traced("api", is_wanted=settings.traces))
        signals.watch_database("database", store.db)
        signals.watch_clock(CLOCK.machine_ahead_s)
        waker = Waker(settings)
        parts = Parts(store, settings, now_ms, wake=waker.wake, replica=replica)
        app = create_api(parts, settings, mount, registry=signals.registry)
        metrics_url = await beside.enter_async_context(
            scraped(signals, app[PROBES], host=settings.metrics_host, port=settings.metrics_port)
        )
        gc.enable()
        gc.freeze()
        # An upload makes garbage by thousands of rows.
        gc.set_threshold(GARBAGE_AFTER)
        try:
            await serve_api(app, parts, host=host, port=port, on_listening=announce)
        except OSError as error:
            where = f"{host_in_url(host)}:{port}"
            raise UserError(
                "cannot_listen",
                f"cannot listen on {where}: {error.strerror}",
                "set TALLYHOOK_API_HOST and TALLYHOOK_API_PORT, or --host and --port, to what is free here",
            ) from error
        finally:
            await waker.close()


API_EXAMPLES = examples("tallyhook api", "tallyhook api --port 9001 --json")
