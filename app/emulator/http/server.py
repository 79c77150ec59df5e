"""The emulator's HTTP face: which path leads where (endpoint map of C-A)."""

import re
from html import escape
from importlib import resources

from aiohttp import web

from app.emulator.data.editions import EDITIONS
from app.emulator.data.engine_table import ENGINES
from app.emulator.engine import errors
from app.emulator.engine.clock import Clock
from app.emulator.engine.emulator import Emulator
from app.emulator.engine.options import Options
from app.emulator.http.async_routes import AsyncRoutes
from app.emulator.http.control_routes import ControlRoutes
from app.emulator.http.control_token import guarded
from app.emulator.http.exchange import BODY_BYTES_MAX, Exchange, Front, RawHandler, answer
from app.emulator.http.monitor_routes import MonitorRoutes
from app.emulator.http.openapi import document
from app.emulator.http.reference_routes import ReferenceRoutes
from app.emulator.http.sync_calls import SyncCalls

_HTML_PAGE = re.compile(r"^page-\d{1,2}\.html$")
EMULATOR: web.AppKey[Emulator] = web.AppKey("emulator", Emulator)


def create_app(options: Options | None = None, *, clock: Clock | None = None) -> web.Application:
    """An application that serves one emulator; `app[EMULATOR]` is the engine behind it."""
    return app_of(Emulator(options or Options(), clock=clock))


def app_of(emulator: Emulator) -> web.Application:
    """The application of an engine that was built by the caller."""
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app[EMULATOR] = emulator
    front, calls = Front(emulator), SyncCalls(emulator)
    _add_contract(app, emulator, front, calls)
    for method, path, handler in ControlRoutes(emulator, front, calls).routes():
        app.router.add_route(method, path, guarded(handler, emulator.options.control_token))
    app.router.add_get("/_emulator/", _status_page)
    app.router.add_get("/_emulator/html/{link_id}/{page}", _html_page(emulator))
    app.router.add_get("/openapi.json", _openapi(emulator))
    app.router.add_route("*", "/v1/{tail:.*}", front.guard("unknown", _no_route))
    app.router.add_route("*", "/{tail:.*}", _outside(emulator))
    app.on_startup.append(_start)
    app.on_cleanup.append(_stop)
    return app


def _add_contract(app: web.Application, emulator: Emulator, front: Front, calls: SyncCalls) -> None:
    tasks, monitor, reference = (
        AsyncRoutes(emulator),
        MonitorRoutes(emulator, calls),
        ReferenceRoutes(emulator),
    )
    add = app.router.add_route
    add("POST", "/v1/async/task", front.guard("async/task", tasks.create))
    add("POST", "/v1/async/task/batch", front.guard("async/task/batch", tasks.create_batch))
    add("POST", "/v1/task", front.guard("task", tasks.create_old))
    add("GET", "/v1/async/status", front.guard("async/status", tasks.status))
    add("DELETE", "/v1/async/queue", front.guard("async/queue", tasks.clear_queue))
    # The second path is the one of the vendor's n8n node.
    for path in ("/v1/async/task/{task_id}", "/v1/tasks/{task_id}"):
        add("GET", path, front.guard("async/task/id", tasks.retrieve))
    for task_type, engine in ENGINES.items():
        path = f"monitor/{engine.path}"
        add("POST", f"/v1/{path}", front.guard(path, monitor.engine(task_type)))
    add("POST", "/v1/monitor/google-news", front.guard("monitor/google/news", monitor.news_alias))
    add("POST", "/v1/monitor/google/goto", front.guard("goto", monitor.goto))
    for path in ("run", "monitor"):
        add("POST", f"/v1/{path}", front.guard("monitor/run", monitor.run))
    add("GET", "/v1/credits", front.guard("credits", reference.credits))
    add("GET", "/v1/countries", front.guard("countries", reference.countries))
    add("GET", "/v1/states", front.guard("states", reference.states))


async def _start(app: web.Application) -> None:
    await app[EMULATOR].start()


async def _stop(app: web.Application) -> None:
    await app[EMULATOR].stop()


async def _no_route(exchange: Exchange) -> bytes:
    raise errors.route_not_found(exchange.request.path)


def _outside(emulator: Emulator) -> RawHandler:
    async def refuse(request: web.Request) -> web.StreamResponse:
        """Paths outside /v1 are 404 even without a key (C-C)."""
        refusal = errors.route_not_found(request.path)
        return answer(404, errors.envelope(emulator.edition, refusal, emulator.clock.now()))

    return refuse


def _openapi(emulator: Emulator) -> RawHandler:
    async def show(request: web.Request) -> web.StreamResponse:
        """The document of the process's edition, or of `?edition=`."""
        return answer(200, document(EDITIONS.get(request.query.get("edition", ""), emulator.edition)))

    return show


async def _status_page(request: web.Request) -> web.StreamResponse:
    """A page that reads /_emulator/state every second; a control token it takes from behind the # of its own
    address, which no browser sends."""
    data = resources.files("app.emulator").joinpath("data")
    theme = data.joinpath("theme.css").read_bytes()
    page = data.joinpath("status.html").read_bytes().replace(b"/* theme.css */", theme)
    return web.Response(body=page, content_type="text/html", charset="utf-8")


def _html_page(emulator: Emulator) -> RawHandler:
    async def show(request: web.Request) -> web.StreamResponse:
        """The HTML of a finished task, for as long as the edition keeps it (row B30)."""
        task = emulator.task_anywhere(request.match_info["link_id"])
        if task is None or task.completed_s is None or not _HTML_PAGE.match(request.match_info["page"]):
            raise web.HTTPNotFound
        age_s = emulator.clock.now() - task.completed_s
        if age_s >= task.edition.html_lifetime_h * 3600:
            raise web.HTTPGone
        title = escape(f"{task.task_type} {task.id}")
        text = f"<!doctype html><html><head><title>{title}</title></head><body><p>{title}</p></body></html>"
        return web.Response(text=text, content_type="text/html")

    return show
