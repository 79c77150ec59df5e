"""The API as a process of its own, or beside the receiver in one port: put together, served, ended."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CollectorRegistry

from app.api.dialects.provider.create import create_provider_task
from app.api.dialects.provider.direct import DirectTasks
from app.api.dispatch import Dispatcher
from app.api.mcp.endpoint import AgentEndpoint
from app.api.route import Parts
from app.api.signals import ApiSignals
from app.api.table import ROUTES
from app.limits import ApiLimits
from app.signals.scrape import readiness
from app.web.receiver.body import answer_expect
from app.web.receiver.connections import BoundedSite, Connections
from app.web.receiver.direct import Takers
from app.web.server import (
    CONNECTIONS_MAX,
    TAKERS,
    connection_options,
    connections_allowed,
    handler_args,
    stop_signals,
)

log = structlog.get_logger(__name__)

DATABASE_TIMEOUT_S = 2.0
SHUTDOWN_TIMEOUT_S = 8.0
"""For requests in flight."""
Mount = Callable[[web.Application, Dispatcher, Parts], Callable[[web.Request], Awaitable[web.StreamResponse]]]
"""Adds pages to an application, and returns what answers an address that is none."""
BESIDE_WEB = ("/v1/{tail:(?s:.*)}", "/openapi.json", "/mcp")
"""What the API answers in the receiver's port."""


def create_api(
    parts: Parts, limits: ApiLimits, mount: Mount | None = None, *, registry: CollectorRegistry | None = None
) -> web.Application:
    """The API, with probes, and with the pages that `mount` adds; everything else is the API's to answer.
    Requests are counted on `registry`."""
    dispatcher = _dispatcher(parts, limits, limits.api_in_flight, registry)
    probes = Probes(parts)
    app = web.Application(handler_args=handler_args(), middlewares=[_no_address(dispatcher)])
    app[PROBES] = probes
    app.add_routes(
        [
            web.get("/healthz", probes.health, expect_handler=answer_expect),
            web.get("/readyz", probes.ready, expect_handler=answer_expect),
        ]
    )
    _add(app, dispatcher, BESIDE_WEB)
    unknown = mount(app, dispatcher, parts) if mount else dispatcher.handle
    app.router.add_route("*", "/{tail:(?s:.*)}", unknown, expect_handler=_left_to_the_dispatcher)
    app[TAKERS] = Takers(_direct_tasks(dispatcher, parts, limits))
    app.on_cleanup.append(_closing(dispatcher))
    return app


def add_to_web(
    app: web.Application,
    parts: Parts,
    limits: ApiLimits,
    mount: Mount | None = None,
    *,
    registry: CollectorRegistry | None = None,
) -> None:
    """Let the receiver's port answer the API and the pages too. `parts.store` has connections of its own, and
    few requests are answered at once, so that deliveries wait for neither."""
    dispatcher = _dispatcher(parts, limits, limits.api_in_flight_beside_web, registry)
    _add(app, dispatcher, BESIDE_WEB)
    if mount is not None:
        mount(app, dispatcher, parts)
    app[TAKERS].add(_direct_tasks(dispatcher, parts, limits))
    app.on_shutdown.append(_stopping(parts))
    app.on_cleanup.append(_closing(dispatcher))


def _no_address(dispatcher: Dispatcher) -> Middleware:
    """What names no path (OPTIONS *, CONNECT) no route can take: it is answered as any other address that is
    none."""

    @web.middleware
    async def answered(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await (handler if request.path.startswith("/") else dispatcher.handle)(request)

    return answered


def _add(app: web.Application, dispatcher: Dispatcher, paths: Sequence[str]) -> None:
    for path in paths:
        app.router.add_route("*", path, dispatcher.handle, expect_handler=_left_to_the_dispatcher)


def _dispatcher(
    parts: Parts, limits: ApiLimits, in_flight_max: int, registry: CollectorRegistry | None
) -> Dispatcher:
    signals = None if registry is None else ApiSignals(registry)
    dispatcher = Dispatcher(ROUTES, parts, limits, in_flight_max=in_flight_max, signals=signals)
    dispatcher.mount("/mcp", AgentEndpoint(dispatcher.perform, parts.settings.api_names))
    return dispatcher


def _direct_tasks(dispatcher: Dispatcher, parts: Parts, limits: ApiLimits) -> DirectTasks:
    route = next(route for route in ROUTES if route.handler is create_provider_task)
    return DirectTasks(dispatcher, parts, limits, route)


class Probes:
    """Handlers of /healthz and /readyz, as the receiver has them."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._looking: asyncio.Task[list[str]] | None = None

    async def health(self, _request: web.Request) -> web.Response:
        """200 while the process runs; says nothing about the database."""
        return web.Response(text="ok\n")

    async def ready(self, _request: web.Request) -> web.Response:
        """200, or 503 with every reason. One look at the database answers all requests meanwhile."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._reasons(), name="readiness")
        reasons = await asyncio.shield(self._looking)
        return readiness(reasons)

    async def _reasons(self) -> list[str]:
        reasons = ["draining: the process is ending"] if self._parts.stopping.is_set() else []
        try:
            async with asyncio.timeout(DATABASE_TIMEOUT_S):
                await self._parts.store.queries.schema_revision()
        except TimeoutError:
            reasons.append(f"database: no answer within {DATABASE_TIMEOUT_S:g} s")
        except Exception as error:  # only its kind: its text can name hosts and users
            reasons.append(f"database: {type(error).__name__}")
        return reasons


PROBES = web.AppKey("probes", Probes)


async def serve_api(
    app: web.Application,
    parts: Parts,
    *,
    host: str,
    port: int,
    stop: asyncio.Event | None = None,
    on_listening: Callable[[int], None] | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT, SIGHUP or `stop`, then end in order: no new connections, streams ended,
    requests in flight finished. Port 0 takes a free one; it is passed to `on_listening`."""
    stop = stop or asyncio.Event()
    connections_max = min(CONNECTIONS_MAX, connections_allowed())
    connections = Connections(connections_max, app[TAKERS], connection_options())
    app.on_response_prepare.append(connections.note_answer)
    runner = web.AppRunner(app, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    with stop_signals(stop):
        try:
            await runner.setup()
            site = BoundedSite(runner, host, port, connections)
            await site.start()
            log.info("api_listening", host=host, port=site.port)
            if on_listening is not None:
                on_listening(site.port)
            await stop.wait()
            log.info("api_stopping")
            parts.stopping.set()
            await site.stop()
        finally:
            await runner.cleanup()
    log.info("api_stopped")


async def _left_to_the_dispatcher(_request: web.Request) -> None:
    """Nothing is asked for before a token was looked at."""


def _stopping(parts: Parts) -> Callable[[web.Application], Awaitable[None]]:
    async def stop(_app: web.Application) -> None:
        parts.stopping.set()

    return stop


def _closing(dispatcher: Dispatcher) -> Callable[[web.Application], Awaitable[None]]:
    async def close(_app: web.Application) -> None:
        await dispatcher.close()

    return close
