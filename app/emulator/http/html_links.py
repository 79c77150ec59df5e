"""HTML results under links that really answer and really expire, for tests without the provider's hosts
(row B30)."""

import re
from html import escape

from aiohttp import web

from app.emulator.engine.emulator import Emulator
from app.emulator.http.exchange import RawHandler

_PAGE = re.compile(r"^page-\d{1,2}\.html$")


def html_page(emulator: Emulator) -> RawHandler:
    """Serve the HTML of a finished task for as long as the edition keeps it."""

    async def show(request: web.Request) -> web.StreamResponse:
        task = emulator.task_anywhere(request.match_info["link_id"])
        if task is None or task.completed_s is None or not _PAGE.match(request.match_info["page"]):
            raise web.HTTPNotFound
        age_s = emulator.clock.now() - task.completed_s
        if age_s >= task.edition.html_lifetime_h * 3600:
            raise web.HTTPGone
        title = escape(f"{task.task_type} {task.id}")
        text = f"<!doctype html><html><head><title>{title}</title></head><body><p>{title}</p></body></html>"
        return web.Response(text=text, content_type="text/html")

    return show
