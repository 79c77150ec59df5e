"""The emulator's HTTP face: which path leads where (endpoint map of C-A)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from . import errors
from .async_routes import AsyncRoutes
from .books import books
from .clock import Clock
from .engine import Emulator
from .exchange import BODY_BYTES_MAX, Exchange, Handler, answer, guarded
from .gate import Gate
from .options import Options

EMULATOR: web.AppKey[Emulator] = web.AppKey("emulator", Emulator)


def create_app(options: Options | None = None, *, clock: Clock | None = None) -> web.Application:
    """An application that serves one emulator; `app[EMULATOR]` is the engine behind it."""
    emulator = Emulator(options or Options(), clock=clock)
    return app_of(emulator)


def app_of(emulator: Emulator) -> web.Application:
    """The application of an engine that was built by the caller."""
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app[EMULATOR] = emulator
    gate = Gate(emulator)

    def wrap(endpoint: str, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        return guarded(emulator, gate, endpoint, handler)

    tasks = AsyncRoutes(emulator)
    app.router.add_post("/v1/async/task", wrap("async/task", tasks.create))
    app.router.add_get("/v1/async/status", wrap("async/status", tasks.status))
    app.router.add_get("/v1/async/task/{task_id}", wrap("async/task/id", tasks.retrieve))
    app.router.add_get("/v1/credits", wrap("credits", _credits(emulator)))
    app.router.add_get("/_emulator/books", _books(emulator))
    app.router.add_route("*", "/v1/{tail:.*}", wrap("unknown", _no_route))
    app.router.add_route("*", "/{tail:.*}", _outside(emulator))
    app.on_startup.append(_start)
    app.on_cleanup.append(_stop)
    return app


async def _start(app: web.Application) -> None:
    await app[EMULATOR].start()


async def _stop(app: web.Application) -> None:
    await app[EMULATOR].stop()


def _credits(emulator: Emulator) -> Handler:
    async def show(exchange: Exchange) -> bytes:
        """GET /v1/credits, up to 60 emulated seconds old (C-E.6)."""
        key = exchange.key
        if not (key.edition.credits_endpoint or emulator.options.switches.credits_endpoint):
            raise errors.route_not_found(exchange.request.path)
        return msgspec.json.encode(key.organization.account.statement(emulator.clock.now()))

    return show


async def _no_route(exchange: Exchange) -> bytes:
    raise errors.route_not_found(exchange.request.path)


def _outside(emulator: Emulator) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def refuse(request: web.Request) -> web.StreamResponse:
        """Paths outside /v1 are 404 even without a key (C-C)."""
        refusal = errors.route_not_found(request.path)
        return answer(404, errors.envelope(emulator.edition, refusal, emulator.clock.now()), {})

    return refuse


def _books(emulator: Emulator) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def show(request: web.Request) -> web.StreamResponse:
        name = request.query.get("organization", emulator.options.organization)
        organization = emulator.organizations.get(name)
        if organization is None:
            return answer(404, msgspec.json.encode({"error": f"no organization named {name}"}), {})
        with_tasks = request.query.get("tasks", "1") != "0"
        return answer(
            200, msgspec.json.encode(books(organization, emulator.clock.now(), with_tasks=with_tasks)), {}
        )

    return show
