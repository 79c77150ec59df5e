"""The page, mounted: every request of a browser finds its page, its session, its answer. Knows no page but by
its record.
"""

import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from urllib.parse import parse_qsl, quote

import structlog
from aiohttp import web

from app.api.dispatch import Dispatcher, problem_of
from app.api.fields import is_id
from app.api.problems import (
    FORBIDDEN,
    INTERNAL,
    INVALID,
    NOT_FOUND,
    UNAUTHORIZED,
    UNAVAILABLE,
    UNSUPPORTED_MEDIA_TYPE,
    Problem,
)
from app.api.readers import StalledError, drain, send
from app.api.route import Caller, Parts, Upload
from app.api.validate import read_whole
from app.domain.page_session import form_token
from app.domain.task import new_id
from app.page import session
from app.page.assets import FOLDER, serve_asset
from app.page.errors import error_page
from app.page.layout import render
from app.page.live import SHARED
from app.page.overview.reading import AHEAD
from app.page.run.voided import VOIDED
from app.page.security import HEADERS, is_from_us, own_path
from app.page.session import FORM_TOKEN, Sessions
from app.page.signing_in import sign_in_page
from app.page.table import PAGES, PLACES
from app.page.visit import Download, Drawn, Events, GoTo, PageRoute, Result, Visit
from app.ports import ARCHIVE_TROUBLE, StoreUnavailable

log = structlog.get_logger(__name__)

FORM_BYTES_MAX = 64 << 10
FIELDS_MAX = 100
FORM = "application/x-www-form-urlencoded"
FORM_WITH_FILE = "multipart/form-data"
SIGN_IN, SIGN_OUT = "/sign-in", "/sign-out"
Answer = Callable[[web.Request, str], Awaitable[web.StreamResponse]]
Unknown = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Site:
    """Every page of one process."""

    def __init__(self, dispatcher: Dispatcher, parts: Parts) -> None:
        self._dispatcher, self._parts = dispatcher, parts
        self._sessions = Sessions(parts.store, dispatcher.access, parts.clock)

    def add_to(self, app: web.Application) -> None:
        """Let an application answer the pages' addresses; what else it answers stays as quick as it was."""
        app.router.add_get(FOLDER + "{name}", serve_asset)
        app.router.add_get(SIGN_IN, self._guarded(self._ask_for_token))
        app.router.add_post(SIGN_IN, self._guarded(self._sign_in))
        app.router.add_post(SIGN_OUT, self._guarded(self._sign_out))
        for route in PAGES:
            add = app.router.add_get if route.method == "GET" else app.router.add_post
            add(route.path, self._guarded(self._page(route)))

    async def close(self, _app: web.Application) -> None:
        """End what was begun beside requests."""
        self._parts.stopping.set()
        shared = self._parts.shared
        beside = [one for name in (AHEAD, VOIDED) for one in shared.get(name, {}).values()]
        for kept in (*beside, *filter(None, [shared.get(SHARED)])):
            await kept.close()

    async def unknown(self, request: web.Request) -> web.StreamResponse:
        """Of an address that is none: a page for a browser, the API's own answer for a program."""
        if request.method in ("GET", "HEAD") and "text/html" in request.headers.get("Accept", ""):
            return await self._guarded(_no_such_page)(request)
        return await self._dispatcher.handle(request)

    def _guarded(self, answer: Answer) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """An aiohttp handler, which raises nothing: what goes wrong is a page too."""

        async def handle(request: web.Request) -> web.StreamResponse:
            request_id = new_id(self._parts.clock())
            with structlog.contextvars.bound_contextvars(request_id=request_id):
                try:
                    return await answer(request, request_id)
                except Problem as problem:
                    found = problem
                except StoreUnavailable as error:
                    log.warning("api_store_unavailable", error=type(error).__name__)
                    found = Problem(UNAVAILABLE, "the database does not answer: try again in a few seconds")
                except ConnectionError:
                    raise  # whoever asked went away
                except ARCHIVE_TROUBLE as error:
                    found = problem_of(error)
                except Exception as error:
                    log.exception("api_request_failed", error=type(error).__name__)
                    found = Problem(INTERNAL, "please report it with the request id; the log has the rest")
                return await self._refused(request, found, request_id)

        return handle

    async def _refused(self, request: web.Request, problem: Problem, request_id: str) -> web.Response:
        """With the navigation for who is signed in, as far as that can be known now."""
        visit = None
        try:
            visit = await self._visit(request, {}, request_id)
        except Exception as error:  # it is what went wrong already, or the next thing that did
            log.info("page_error_without_visit", error=type(error).__name__)
        is_asked = problem.kind is INVALID and request.method == "GET" and request.query_string
        page = error_page(
            problem, request_id, is_signed_in=visit is not None, again=request.path if is_asked else None
        )
        response = self._drawn(page, visit, request_id)
        response.headers.update(problem.headers)
        return response

    def _page(self, route: PageRoute) -> Answer:
        async def answer(request: web.Request, request_id: str) -> web.StreamResponse:
            visit = await self._visit(request, request.match_info, request_id)
            if visit is None and route.is_listened:
                raise _signed_out()
            if visit is None:
                return _go_to(SIGN_IN + _coming_from(request))
            self._dispatcher.rates.take(visit.caller.token_id, time.monotonic())
            route.refuse_without_scope(visit.caller)
            given = dict(request.query)
            if route.has_file:
                visit.upload = _upload(request)
            elif route.method == "POST":
                given = await self._form(request)
            route.refuse_unknown(given)
            _refuse_no_id(request.match_info)
            visit.values = {**visit.values, **given}
            return await self._answered(await route.handler(visit), visit, request)

        return answer

    async def _visit(self, request: web.Request, path: Mapping[str, str], request_id: str) -> Visit | None:
        cookie = session.cookie_of(request)
        caller = await self._sessions.caller_of(cookie)
        if caller is None:
            return None
        return Visit(
            self._parts,
            self._dispatcher,
            caller,
            request_id,
            request.path_qs,
            self._parts.clock(),
            dict(path),
            form_token(cookie),
            request.headers,
        )

    async def _form(self, request: web.Request, *, in_session: bool = True) -> dict[str, str]:
        """What a form of ours says. Raises Problem for one that is another's."""
        _refuse_anothers(request)
        if request.content_type != FORM:
            raise Problem(UNSUPPORTED_MEDIA_TYPE, "use the page's own form")
        body = await self._dispatcher.in_time(
            lambda: read_whole(request, FORM_BYTES_MAX), self._parts.settings.api_timeout_s
        )
        try:
            pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FIELDS_MAX)
        except ValueError:
            raise Problem(UNSUPPORTED_MEDIA_TYPE, "this is no form of this page") from None
        form = dict(pairs)
        if in_session and not session.is_form_of(form, session.cookie_of(request)):
            raise Problem(FORBIDDEN, "this form is of another session: go back, reload the page, try again")
        form.pop(FORM_TOKEN, None)
        return form

    async def _answered(self, result: Result, visit: Visit, request: web.Request) -> web.StreamResponse:
        if isinstance(result, GoTo):
            response = _go_to(result.path)
            response.headers.update(result.headers)
            return response
        if isinstance(result, Download | Events):
            async with self._dispatcher.slots.taken(is_stream=True):
                result = dataclasses.replace(result, chunks=self._while_signed_in(result.chunks, request))
                return await _sent(result, request)
        return self._drawn(result, visit, visit.request_id)

    async def _while_signed_in(
        self, chunks: AsyncIterator[bytes], request: web.Request
    ) -> AsyncIterator[bytes]:
        """A stream may take hours. Raises Problem when its session ends within it."""
        try:
            async for chunk in chunks:
                with contextlib.suppress(StoreUnavailable):  # it is not known to have ended
                    if await self._sessions.caller_of(session.cookie_of(request)) is None:
                        raise _signed_out()
                yield chunk
        finally:
            # At once, not when it is found to be garbage: whoever listens is counted.
            if (close := getattr(chunks, "aclose", None)) is not None:
                await close()

    def _drawn(self, drawn: Drawn, visit: Visit | None, request_id: str) -> web.Response:
        return web.Response(
            status=drawn.status,
            body=render(drawn, visit, PLACES),
            content_type="text/html",
            charset="utf-8",
            headers={**HEADERS, "X-Request-Id": request_id},
        )

    async def _ask_for_token(self, request: web.Request, request_id: str) -> web.Response:
        path = own_path(request.query.get("next", "/"))
        if await self._visit(request, {}, request_id) is not None:
            return _go_to(path)
        return self._drawn(sign_in_page(path), None, request_id)

    async def _sign_in(self, request: web.Request, request_id: str) -> web.Response:
        """A new session, whatever the browser had."""
        form = await self._form(request, in_session=False)
        path = own_path(form.get("next", "/"))
        caller = await self._caller_with(form.get("token", "").strip())
        if caller is None:
            # After the look: behind a proxy all have one address, and nobody shuts out who has a token.
            address = request.remote or ""
            self._sessions.tries.refuse_too_many(address)
            self._sessions.tries.note_failed(address)
            return self._drawn(sign_in_page(path, is_refused=True), None, request_id)
        made = await self._sessions.begin(caller, session.cookie_of(request))
        response = _go_to(path)
        session.set_cookie(request, response, made)
        return response

    async def _caller_with(self, token: str) -> Caller | None:
        try:
            return await self._dispatcher.access.caller_with(token)
        except Problem:
            return None

    async def _sign_out(self, request: web.Request, _request_id: str) -> web.Response:
        await self._form(request)
        await self._sessions.end(session.cookie_of(request))
        response = _go_to(SIGN_IN)
        session.set_cookie(request, response, "")
        # What a browser still has of the pages goes with the session.
        response.headers["Clear-Site-Data"] = '"cache"'
        return response


def _refuse_no_id(path: Mapping[str, str]) -> None:
    if any(name.endswith("_id") and not is_id(value) for name, value in path.items()):
        raise _no_page()


def _signed_out() -> Problem:
    return Problem(UNAUTHORIZED, "your session has ended: sign in again")


def _no_page() -> Problem:
    return Problem(NOT_FOUND, "there is no page at this address")


def _upload(request: web.Request) -> Upload:
    """A form with a file, of which nothing is read yet."""
    _refuse_anothers(request)
    if request.content_type != FORM_WITH_FILE:
        raise Problem(UNSUPPORTED_MEDIA_TYPE, "use the page's own form")
    return Upload(FORM_WITH_FILE, request.content.iter_any(), request.headers, request.content)


def _refuse_anothers(request: web.Request) -> None:
    if not is_from_us(request):
        raise Problem(FORBIDDEN, "this form was sent by a page of another site: use the page's own")


async def _no_such_page(_request: web.Request, _request_id: str) -> web.StreamResponse:
    raise _no_page()


def _go_to(path: str) -> web.Response:
    return web.Response(status=303, headers={**HEADERS, "Location": path})


def _coming_from(request: web.Request) -> str:
    """To come back to after the sign-in; a form is not sent again."""
    is_read = request.method in ("GET", "HEAD") and request.path_qs != "/"
    return f"?next={quote(request.path_qs, safe='/')}" if is_read else ""


async def _sent(result: Download | Events, request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={**HEADERS, "X-Accel-Buffering": "no"})
    if isinstance(result, Download):
        name = quote(result.filename, safe="")
        response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{name}"
    response.content_type = result.media_type if isinstance(result, Download) else "text/event-stream"
    await response.prepare(request)
    try:
        async for chunk in result.chunks:
            await send(response, request, chunk)
        await drain(request)
    except ConnectionError:
        return response
    except Exception as error:
        if not isinstance(error, Problem | StalledError):
            log.exception("api_stream_failed", error=type(error).__name__)
        if request.transport is not None:
            request.transport.abort()  # without its end it is seen to be cut off
        return response
    finally:
        await result.chunks.aclose()  # type: ignore[attr-defined]
    await response.write_eof()
    return response


def mount(app: web.Application, dispatcher: Dispatcher, parts: Parts) -> Unknown:
    """Add the pages to the application that the API is in; returns what answers an address that is none."""
    site = Site(dispatcher, parts)
    site.add_to(app)
    app.on_cleanup.append(site.close)
    return site.unknown
