"""One request on its way: which route, whose token, validated, handled, answered.

May know no route: they are given. Reads no settings.
"""

import asyncio
import contextlib
import dataclasses
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import structlog
from aiohttp import HttpVersion10, HttpVersion11, web

from app.api.access import Access, RequestRates, refuse_without_scope
from app.api.addresses import Addresses
from app.api.idempotency import HEADER, answer_once
from app.api.problems import INTERNAL, MALFORMED, TIMEOUT, TOO_SLOW, UNAVAILABLE, Dialect, Problem
from app.api.respond import respond
from app.api.route import Answer, Call, Caller, Params, Parts, Route, Stream, Uploads
from app.api.signals import ApiSignals
from app.api.slots import Arriving, Slots, busy
from app.api.validate import read_body, read_params, read_values, read_whole
from app.api.whole import SECURITY, whole_answer
from app.domain.access import ActionRow, Scope
from app.domain.task import new_id
from app.domain.text import storable
from app.limits import ApiLimits
from app.ports import ARCHIVE_TROUBLE, StoreUnavailable
from app.services.access import COMMAND_LINE_ID

log = structlog.get_logger(__name__)

R = TypeVar("R")

NOBODY = Caller("", "", Scope.READ, None)
"""Who asks a route that needs no token."""
RETRY_AFTER_S = 5
SUBJECT_CHARS_MAX = 255
"""Of what a path names, in the list of actions: somebody may name anything."""
GONE = 499
"""In the log, as proxies write it."""
STREAMS_FACTOR = 4
"""Streams that are open at once, for each request that is answered: beside the receiver both are few."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:\-]{1,100}")


class Mounted(Protocol):
    """What answers at an address by a protocol of its own, behind the same tokens and rates."""

    async def answer(
        self, request: web.Request, read: Callable[[], Awaitable[bytes]], caller: Caller, request_id: str
    ) -> web.Response:
        """`read`: the body, bounded. Raises Problem."""
        ...

    async def close(self) -> None: ...


class Dispatcher:
    """Answers every request of the API, also those to addresses that are none."""

    def __init__(
        self,
        routes: Sequence[Route],
        parts: Parts,
        limits: ApiLimits,
        *,
        in_flight_max: int,
        signals: ApiSignals | None = None,
    ) -> None:
        self._signals = signals
        self._parts = parts
        self._limits = limits
        self.access = Access(parts.store, parts.clock)
        self.rates = RequestRates(limits.api_rate_per_s)
        self.slots = Slots(in_flight_max, min(limits.api_streams_max, STREAMS_FACTOR * in_flight_max))
        self._arriving = Arriving()
        self._addresses = Addresses(routes)
        self._mounted: dict[str, Mounted] = {}

    def mount(self, path: str, mounted: Mounted) -> None:
        """Let it answer at a path; it is closed with the dispatcher."""
        self._mounted[path] = mounted

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """An aiohttp handler, and never an exception but of a connection that is gone."""
        request_id = self.request_id_of(request.headers)
        started_s = time.monotonic()
        # Never unbound: aiohttp starts a task for each request, and its context ends with it.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        dialect, headers = self._addresses.dialect_of(request.path), {"X-Request-Id": request_id}
        route: Route | None = None
        response: web.StreamResponse
        try:
            _refuse_version(request)
            if (mounted := self._mounted.get(request.path)) is not None:
                response = await self._answered_by(mounted, request, headers)
            else:
                route, path = await self._addresses.resolve(request)
                dialect = route.dialect
                response = await self._answered(route, path, request, headers)
        except ConnectionError:
            if request.transport is not None:
                raise
            # Who sent it went away. Nobody gets this, and no traceback is logged that a stranger makes.
            response = web.Response(status=GONE)
        except Exception as error:
            status, more, body = problem_parts(problem_of(error), dialect, headers)
            # What was not read of the body is discarded with its connection.
            response = whole_answer(request, status, more, body, dialect.media_type)
        at = request.path if request.path in self._mounted else None
        self.note_end(request.method, route, response.status, started_s, at=at)
        return response

    async def close(self) -> None:
        """End streams, and finish what was begun beside requests."""
        self._parts.stopping.set()
        await self._parts.batch_loads.close()
        for mounted in self._mounted.values():
            await mounted.close()
        await self._parts.awaited.close()
        await self._parts.intake.close()
        await self._parts.wakes.close()
        await self.access.close()

    def note_end(
        self, method: str, route: Route | None, status: int, started_s: float, *, at: str | None = None
    ) -> None:
        """Log and count a request. Without the path itself, which may hold what is nobody's business; `at`:
        where something is mounted."""
        took_s = time.monotonic() - started_s
        named = at or (route.path if route is not None else "")
        if self._signals is not None:
            is_stream = route is not None and route.is_stream
            # A method of no route is whatever a stranger wrote.
            of_route = route.method if route is not None else ""
            self._signals.note(of_route, named, status, None if is_stream else took_s)
        if status < 400 and route is not None and route.is_frequent:
            return
        is_quiet = status < 400 and method in ("GET", "HEAD")
        tell = log.debug if is_quiet else log.info
        tell(
            "api_request",
            method=method if route else "",
            route=route.path if route else "",
            status=status,
            ms=round(took_s * 1000),
        )

    def request_id_of(self, headers: Mapping[str, str]) -> str:
        """The one that is given, if it can be one; else a new one."""
        given = headers.get("X-Request-Id", "")
        return given if _REQUEST_ID.fullmatch(given) else new_id(self._parts.clock())

    async def perform(
        self,
        route: Route,
        caller: Caller,
        values: Mapping[str, Any],
        request_id: str,
        *,
        body: Any = None,
        **more: Any,
    ) -> Any:
        """What the handler of a route returns to a caller that came another way; `more`: of its Call. Raises
        Problem."""
        refuse_without_scope(caller, route)
        params = read_values(route.params, values)
        call = Call(self._parts, caller, params, body, request_id, {}, **more)
        return await self.in_time(
            lambda: self._handled(route, call),
            self._time_of(route),
            is_stream=route.is_stream,
            is_write=_is_write(route, params),
        )

    async def _admitted(self, request: web.Request, headers: dict[str, str]) -> Caller:
        caller = await self.access.caller_of(request.headers)
        headers |= self.rates.take(caller.token_id, time.monotonic())
        return caller

    async def _answered_by(
        self, mounted: Mounted, request: web.Request, headers: dict[str, str]
    ) -> web.Response:
        async def whole() -> bytes:
            await _continue(request)
            return await read_whole(request, self._limits.api_body_bytes_max)

        caller = await self._admitted(request, headers)
        response = await mounted.answer(
            request, lambda: self.in_time(whole, self._limits.api_timeout_s), caller, headers["X-Request-Id"]
        )
        response.headers.update({**SECURITY, **headers})
        return response

    async def _answered(
        self, route: Route, path: dict[str, str], request: web.Request, headers: dict[str, str]
    ) -> web.StreamResponse:
        caller = NOBODY
        if route.scope is not None:
            caller = await self._admitted(request, headers)
            refuse_without_scope(caller, route)
        with self._arriving.beside(_bytes_to_come(route, request, self._limits)) as is_beside:
            whole = await self._arrived(route, request) if is_beside else None
            return await self.in_time(
                lambda: self._in_turn(route, path, request, caller, headers, whole),
                self._time_of(route),
                is_stream=route.is_stream,
                is_write=route.action is not None,
            )

    async def _arrived(self, route: Route, request: web.Request) -> bytes:
        """A body that is still to come, before its request has its turn: whoever sends slowly takes no place
        of those that are answered."""
        deadline = asyncio.timeout(self._limits.api_timeout_s)
        try:
            async with deadline:
                await _continue(request)
                return await read_whole(request, route.body_bytes_max or self._limits.api_body_bytes_max)
        except TimeoutError:
            if not deadline.expired():
                raise
            within = f"the body did not come within {self._limits.api_timeout_s:g} s"
            raise Problem(TOO_SLOW, f"{within}: send it again") from None

    async def in_time(
        self,
        work: Callable[[], Awaitable[R]],
        timeout_s: float | None,
        *,
        is_stream: bool = False,
        is_write: bool = False,
    ) -> R:
        """Do it in its turn. Raises Problem when that takes too long, waiting included, or too many wait."""
        deadline, is_begun = asyncio.timeout(timeout_s), False
        try:
            async with deadline, self.slots.taken(is_stream=is_stream):
                is_begun = True
                return await work()
        except TimeoutError:
            if not deadline.expired():
                raise
            if not is_begun:
                raise busy(f"no turn came within {timeout_s:g} s") from None
            raise too_late(timeout_s or 0.0, is_write=is_write) from None

    async def _in_turn(
        self,
        route: Route,
        path: dict[str, str],
        request: web.Request,
        caller: Caller,
        headers: dict[str, str],
        whole: bytes | None,
    ) -> web.StreamResponse:
        params = read_params(route, path, request.query)
        if whole is None:
            await _continue(request)
        body = await read_body(route, request, self._limits.api_body_bytes_max, whole)
        call = Call(self._parts, caller, params, body, headers["X-Request-Id"], request.headers)
        call.is_gone = lambda: request.transport is None
        if route.scope is not None:
            call.look_again = lambda: self.access.caller_of(request.headers)
        result = await self._handled(route, call)
        if isinstance(result, Stream):
            result = dataclasses.replace(result, chunks=_while_valid(result.chunks, call.look_again))
        return await respond(result, request, route, headers)

    def _time_of(self, route: Route) -> float | None:
        if route.is_long:
            return self._parts.settings.database_long_timeout_s
        return None if route.is_stream else self._limits.api_timeout_s

    async def _handled(self, route: Route, call: Call) -> object:  # type: ignore[type-arg]
        """What the handler returns. A write is in the list of actions before it is done, so that none is
        missing there however this process ends."""
        if not _is_write(route, call.params):
            return await _handle(route, call)
        now_ms = self._parts.clock()
        caller, access = call.caller, self._parts.store.access
        subject = next(iter(call.params.model_dump().values()), None) if route.path_fields else None
        subject = None if subject is None else storable(str(subject), SUBJECT_CHARS_MAX)
        token_id = None if caller.token_id == COMMAND_LINE_ID else caller.token_id
        what = route.action or "", subject, call.request_id
        row = ActionRow(new_id(now_ms), now_ms, caller.name, token_id, *what, None)
        await access.begin_action(row)
        try:
            result = await _handle(route, call)
        except Problem as problem:
            await access.end_action(row.id, problem.kind.status, call.subject)
            raise
        await access.end_action(row.id, result.status if isinstance(result, Answer) else 200, call.subject)
        return result


async def _handle(route: Route, call: Call) -> object:  # type: ignore[type-arg]
    # An upload is hashed as it comes, and looks at its key itself.
    is_plain = route.takes_key and not isinstance(route.body, Uploads)
    return await (answer_once(call, route) if is_plain and HEADER in call.headers else route.handler(call))


def _is_write(route: Route, params: Params) -> bool:
    """Whether something is changed; trying it out is none."""
    return route.action is not None and not getattr(params, "dry_run", False)


def _bytes_to_come(route: Route, request: web.Request, limits: ApiLimits) -> int:
    """Of a body that is read whole and is not there yet, at most; 0: there is none."""
    is_whole = route.body is not None and not isinstance(route.body, Uploads)
    if not is_whole or not request.can_read_body or request.content.is_eof():
        return 0
    bytes_max = route.body_bytes_max or limits.api_body_bytes_max
    return min(bytes_max if request.content_length is None else request.content_length, bytes_max)


def _refuse_version(request: web.BaseRequest) -> None:
    """Raises Problem for a version that nobody speaks in such lines: what a proxy before us takes the request
    for is not known then. aiohttp's parser takes 0.9 and 2.0 too."""
    if request.version not in (HttpVersion10, HttpVersion11):
        raise Problem(MALFORMED, "this is no HTTP/1.1: send it as that")


async def _while_valid(
    chunks: AsyncIterator[bytes], look_again: Callable[[], Awaitable[object]]
) -> AsyncIterator[bytes]:
    """A stream may take hours. Raises Problem when its token ends within it."""
    try:
        async for chunk in chunks:
            with contextlib.suppress(StoreUnavailable):  # it is not known to have ended
                await look_again()
            yield chunk
    finally:
        if (close := getattr(chunks, "aclose", None)) is not None:
            await close()


async def _continue(request: web.Request) -> None:
    """Ask for a body that waits to be asked for; whoever has no token never gets here."""
    # HTTP/1.0 knows no answer before the answer.
    if request.version == HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer proper has not begun


def too_late(timeout_s: float, *, is_write: bool) -> Problem:
    """Of what took longer than its time."""
    what = "it may have been done: look before you repeat it" if is_write else "ask for less"
    return Problem(TIMEOUT, f"no answer within {timeout_s:g} s; {what}")


NO_ARCHIVE = "an answer of this is archived, and the archive does not give it: the service's log says why"


def problem_of(error: Exception) -> Problem:
    """What is said of what ended a request. What is our fault, or the database's, is in the log."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, StoreUnavailable):
        log.warning("api_store_unavailable", error=type(error).__name__)
        retry = {"Retry-After": str(RETRY_AFTER_S)}
        return Problem(UNAVAILABLE, "the database does not answer: try again later", headers=retry)
    if isinstance(error, ARCHIVE_TROUBLE):
        log.warning("api_archive_unavailable", error=str(error)[:300])
        return Problem(UNAVAILABLE, NO_ARCHIVE)
    log.error("api_request_failed", error=type(error).__name__, exc_info=error)
    return Problem(INTERNAL, "please report it with the request id; the log has the rest")


def problem_parts(
    problem: Problem, dialect: Dialect, headers: Mapping[str, str]
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body, as the dialect says it."""
    status, model = dialect.document(problem, headers["X-Request-Id"])
    return status, {**headers, **problem.headers}, model.model_dump_json().encode()
