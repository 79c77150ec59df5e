"""A connection that has a whole POST taken as it arrives, without what aiohttp puts around a handler.

For each message aiohttp makes a request and a writer, starts a task, looks up the route and wakes two tasks:
more work than verifying what came. Its parser reads here as everywhere. Whatever cannot be taken at once
(another path, a body in pieces, messages sent ahead, a refusal) is answered by the handler, as ever. May not
decide anything: `Taker` does. What is used of aiohttp's own is held by test_direct.py, and by its version in
pyproject.toml.
"""

import asyncio
import json
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Protocol

from aiohttp import HttpVersion11, StreamReader, web
from aiohttp.http import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from app.web.receiver.body import FREE_BYTES

Refusal = tuple[int, str]
"""Status and reason."""


UNREADABLE = json.dumps(
    {
        "type": "urn:tallyhook:problem:malformed",
        "title": "The request cannot be read.",
        "status": 400,
        "detail": "This is no HTTP request, or a line of it is longer than 8,190 bytes.",
        "code": "malformed",
        "request_id": "",
        "errors": [],
        "errors_unnamed": 0,
    }
)
"""As the API has it for whatever else is wrong; such a request has no id yet."""


class Taken(Enum):
    """What became of a whole message."""

    LEFT = auto()
    """Nothing of it was read."""
    REFUSED = auto()
    """It was read, and `refusal` of the connection says why the handler is to refuse it."""
    QUEUED = auto()
    """`answer` or `hand_over` will be called, later."""


class Taker(Protocol):
    """Takes whole POSTs."""

    def take(
        self, message: RawRequestMessage, payload: StreamReader, connection: "DirectConnection"
    ) -> Taken: ...


class Takers:
    """Several of one port, each with addresses of its own."""

    def __init__(self, *takers: Taker) -> None:
        self._takers = takers

    def add(self, taker: Taker) -> None:
        """Asked after the others."""
        self._takers = (*self._takers, taker)

    def take(
        self, message: RawRequestMessage, payload: StreamReader, connection: "DirectConnection"
    ) -> Taken:
        """What the first one does that takes it."""
        for taker in self._takers:
            if (taken := taker.take(message, payload, connection)) is not Taken.LEFT:
                return taken
        return Taken.LEFT


class Connection(RequestHandler):
    """aiohttp's, which does not repeat what it could not read: a line of it may hold somebody's token."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """As aiohttp has it, but for what is quoted."""
        if message is None:
            return super().handle_error(request, status, exc)
        answer = super().handle_error(request, status, exc, UNREADABLE)
        answer.content_type = "application/problem+json"
        return answer


class DirectConnection(Connection):
    """Takes one POST at a time; what is sent ahead waits for the answer, then goes to the handler."""

    __slots__ = ("_answered", "_is_taking", "_taker", "refusal")

    def __init__(
        self, server: web.Server, taker: Taker, answered: Callable[[RequestHandler], None], **options: Any
    ) -> None:
        """`answered` is called before each answer that did not come from the handler."""
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self._taker, self._answered = taker, answered
        self._is_taking = False
        self.refusal: Refusal | None = None
        """Of the message that the handler is called with next."""

    def data_received(self, data: bytes) -> None:
        # aiohttp's task waits by this future for the next message; without it messages are parsed and queued.
        waiter, self._waiter = self._waiter, None
        super().data_received(data)
        self._waiter = waiter
        if waiter is not None and self._messages and not self._is_taking:
            self._take_or_wake()

    def answer(self, response: bytes) -> None:
        """End what was taken: `response` is all of its answer, head and body."""
        self._end()
        if self.transport is None or self._parser is None:
            return
        self._answered(self)
        self.transport.write(response)
        self._messages.popleft()
        self._parser.message_consumed()
        if self._messages:
            self._wake()

    def hand_over(self, refusal: Refusal) -> None:
        """What was taken is refused after all, by the handler."""
        self._end()
        if self.transport is not None:
            self.refusal = refusal
            self._wake()

    def _end(self) -> None:
        self._is_taking = self._request_in_progress = False
        if self._handler_waiter is not None and not self._handler_waiter.done():
            # Who ends the server waits for this.
            self._handler_waiter.set_result(None)

    def pop_refusal(self) -> Refusal | None:
        """What the handler is to refuse its message with, if it was read here."""
        refusal, self.refusal = self.refusal, None
        return refusal

    def _take_or_wake(self) -> None:
        if self._may_take():
            message, payload = self._messages[0]
            if isinstance(message, RawRequestMessage) and is_whole(message, payload):
                # Before: reading the payload may have the parser go on.
                self._is_taking = True
                if self._taker.take(message, payload, self) is Taken.QUEUED:
                    self._request_in_progress = True
                    self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
                    return
                self._is_taking = False
        self._wake()

    def _may_take(self) -> bool:
        """Nothing else is to be done on this connection first; its sender reads the answers."""
        return len(self._messages) == 1 and not (
            self._paused or self._buffer_paused or self._upgraded or self._force_close
        )

    def _wake(self) -> None:
        """Have aiohttp's task, which waits, go on with the first message."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def is_whole(message: RawRequestMessage, payload: StreamReader) -> bool:
    """Whether this is a POST as providers send it, its body short and all there."""
    return (
        message.method == "POST"
        and message.version == HttpVersion11
        and not message.should_close
        and not message.upgrade
        and payload.is_eof()
        and payload.exception() is None
        and 0 < payload.total_bytes <= FREE_BYTES
        and "Expect" not in message.headers
    )
