"""Single tasks, taken as they arrive: what the dispatcher does for POST /v1/async/task, where nothing of it
has to wait but the commit.

Producers send tasks by the thousand, and what aiohttp and the dispatcher put around a handler takes longer
than all that is done for one. Whatever needs a look at the database before, or will be refused, is left to
the dispatcher, which does all of it anew and says why. May not refuse anything before the commit.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import structlog
from aiohttp import StreamReader
from aiohttp.http import RawRequestMessage
from multidict import MultiMapping

from app.api.dialects.provider.create import taken_body
from app.api.dialects.provider.errors import PROVIDER, already_exists
from app.api.dialects.provider.intake import account_of, new_task, taking_of
from app.api.dialects.provider.models import ProviderTaskBody
from app.api.dispatch import Dispatcher, problem_of, problem_parts, too_late
from app.api.problems import Problem
from app.api.route import Caller, Parts, Route
from app.api.validate import JSON, parsed
from app.api.whole import answer_bytes
from app.domain.standing import NewTask
from app.limits import ApiLimits
from app.services.intake import IntakeFull
from app.web.receiver.direct import DirectConnection, Taken

log = structlog.get_logger(__name__)


class DirectTasks:
    """Takes whole POSTs of one task (a Taker of connections)."""

    def __init__(self, dispatcher: Dispatcher, parts: Parts, limits: ApiLimits, route: Route) -> None:
        self.dispatcher, self.route, self.timeout_s = dispatcher, route, limits.api_timeout_s
        self._parts = parts

    def take(self, message: RawRequestMessage, payload: StreamReader, connection: DirectConnection) -> Taken:
        """LEFT where it is another request, or not one to be taken now: nothing has been done then."""
        if message.path != self.route.path or not _is_json(message.headers):
            return Taken.LEFT
        caller = self.dispatcher.access.known_caller(message.headers)
        if caller is None or self.route.scope is None or not caller.scope.includes(self.route.scope):
            return Taken.LEFT
        if not self.dispatcher.slots.take_now():
            return Taken.LEFT
        if self._queue(caller, message.headers, payload, connection):
            return Taken.QUEUED
        self.dispatcher.slots.release(is_stream=False)
        return Taken.LEFT

    def _queue(
        self, caller: Caller, headers: MultiMapping[str], payload: StreamReader, connection: DirectConnection
    ) -> bool:
        """Whether it is."""
        rates, request_id = self.dispatcher.rates, self.dispatcher.request_id_of(headers)
        try:
            of_answer = {"X-Request-Id": request_id} | rates.take(caller.token_id, time.monotonic())
        except Problem:
            return False
        if (task := self._task(caller, _peek(payload))) is not None:
            request = _Request(self, connection, task, of_answer)
            try:
                self._parts.intake.queue(taking_of(caller, [task], "provider.task", request_id), request.end)
            except IntakeFull:
                request.forget()
            else:
                payload.read_nowait()
                self._parts.rooms.take(account_of(caller), task.estimate)
                return True
        rates.give_back(caller.token_id)
        return False

    def _task(self, caller: Caller, body: bytes) -> NewTask | None:
        """None: it is refused, or may be."""
        rooms, account = self._parts.rooms, account_of(caller)
        try:
            task = new_task(self._parts, parsed(ProviderTaskBody, body), push_to=caller.push_to)
        except Problem:
            return None
        if not rooms.is_known(account):
            return None
        room = rooms.known(account)
        return None if room is not None and room < task.estimate else task


class _Request:
    """One that waits for its commit."""

    __slots__ = ("_answer", "_headers", "_owner", "_started_s", "_task", "_timer")

    def __init__(
        self, owner: DirectTasks, connection: DirectConnection, task: NewTask, headers: dict[str, str]
    ) -> None:
        self._owner, self._task, self._headers = owner, task, headers
        self._answer: Callable[[bytes], None] | None = connection.answer
        self._started_s = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(owner.timeout_s, self._end_late)

    def forget(self) -> None:
        """It was not queued after all."""
        self._timer.cancel()

    def end(self, known: set[str], error: BaseException | None) -> None:
        """Answer it, as its tasks are stored, or not."""
        if error is not None:
            # The intake was cancelled: the process ends, and nobody knows what was stored.
            self._refuse(error if isinstance(error, Exception) else ConnectionAbortedError("it ends"))
        elif known:
            self._refuse(already_exists(self._task.key or ""))
        else:
            self._finish(200, self._headers, taken_body(self._task))

    def _end_late(self) -> None:
        self._refuse(too_late(self._owner.timeout_s, is_write=True))

    def _refuse(self, error: Exception) -> None:
        if self._answer is not None:
            with structlog.contextvars.bound_contextvars(request_id=self._headers["X-Request-Id"]):
                status, headers, body = problem_parts(problem_of(error), PROVIDER, self._headers)
                self._finish(status, headers, body)

    def _finish(self, status: int, headers: dict[str, str], body: bytes) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            self._timer.cancel()
            dispatcher = self._owner.dispatcher
            dispatcher.slots.release(is_stream=False)
            dispatcher.note_end("POST", self._owner.route, status, self._started_s)
            answer(answer_bytes(status, headers, body, JSON))


def _is_json(headers: MultiMapping[str]) -> bool:
    """Whether the body is announced as what is taken, in the usual words."""
    return headers.get("Content-Type", JSON) == JSON and "Content-Encoding" not in headers


def _peek(payload: Any) -> bytes:
    """A whole body, which stays to be read."""
    return b"".join(payload._buffer)
