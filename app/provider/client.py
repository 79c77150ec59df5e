"""The provider over HTTP: one request per call, paced, and never an exception for what the provider does."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import aiohttp

from app.domain.send_outcome import BACKOFF_MAX_S, Answer, classify
from app.domain.submission import ClaimedTask
from app.domain.text import storable
from app.ports import BalanceAnswer, BalanceEnd, CreateAnswer, PollAnswer, Slots
from app.provider import wire
from app.provider.batch import encode_batch, read_batch
from app.provider.egress import NOT_SENT, STRAIGHT, Egress
from app.provider.prepared_post import BODY_BYTES_MAX, OnHead, PreparedPost, read_bounded

ANSWER_BYTES_MAX = 64 * 1024 * 1024
"""A poll's answer carries the whole result; rawResponse can be megabytes (C-I.5)."""
CREATE_BYTES_MAX = 1024 * 1024
"""An answer to a create call is some hundred bytes; as many as are in flight are held at once."""
BATCH_BYTES_MAX = 4 * CREATE_BYTES_MAX
"""500 items of some hundred bytes, or of a refusal with its details."""
RATE_PAUSE_S = 1.0
"""A refused request means this second is used up; the window is one second (C-D.3). Refused again and again,
the pause doubles, up to a minute."""

TURN_WAIT_MAX_S = 5.0
"""A turn further away is not waited for: the caller's job and its claims would run out meanwhile."""

_CREATE = "/v1/async/task"
_TROUBLE = (aiohttp.ClientError, TimeoutError, OSError)


class RateLimiter(Protocol):
    """Who decides when the next request may go: a Pacer of this process, or one shared by all."""

    @property
    def share_per_s(self) -> float: ...

    async def acquire(self, within_s: float = ...) -> float: ...

    def answered(self, took_s: float, limit: int | None = ..., remaining: int | None = ...) -> None: ...

    def pause(self, wait_s: float) -> None: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class GetAnswer:
    """The end of one GET."""

    status: int
    body: bytes
    refusal: wire.WireError
    """How it reads as a refusal; says nothing where `body` is what was asked for."""
    dated_ms: int | None
    """When the answer was made, by the clock of whoever answered, in whole seconds; None: it does not say."""


class Watch(Protocol):
    """Told of each request."""

    def waited(self, wait_s: float) -> None: ...

    def ended(self, method: str, status: int | None, took_s: float) -> None: ...


class _NotSent(Exception):  # noqa: N818 - not an error: the provider asked for a pause
    def __init__(self, wait_s: float) -> None:
        super().__init__(f"no turn for {wait_s:.1f} s")
        self.wait_s = wait_s


class Client:
    """Calls to one provider account. An async context manager."""

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        webhook_url: str | None,
        pacer: RateLimiter,
        timeout_s: float,
        connections: int,
        egress: Egress = STRAIGHT,
        watch: Watch | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._base_url = base_url
        self._egress = egress
        self._watch = watch
        self._headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
        self.webhook_url = webhook_url
        """Where the tasks that are sent from now on are delivered."""
        self._rate_limiter = pacer
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, connect=min(timeout_s, 10.0))
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._prepared: PreparedPost | None = None
        """Creates a task; None: by a proxy, which takes requests of another form."""
        self._key = api_key.encode()
        self._paused_until_s = 0.0
        self._refusals = 0
        """Create calls with which the account was refused: its key, or its credits."""
        self._pauses: Counter[str] = Counter()
        """By method: pauses in a row without a success between them."""

    @property
    def share_per_s(self) -> float:
        """Requests a second that this process may send at present."""
        return self._rate_limiter.share_per_s

    async def __aenter__(self) -> Self:
        connector = self._egress.connector(limit=self._connections, keepalive_timeout=30)
        self._session = aiohttp.ClientSession(timeout=self._timeout, connector=connector)
        if self._egress.proxy is None:
            self._prepared = PreparedPost(connector, self._base_url + _CREATE, self._headers, self._timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
        await self._rate_limiter.close()

    async def create(self, task: ClaimedTask) -> CreateAnswer:
        """POST /v1/async/task (C-G.2)."""
        sent = await self._post(_CREATE, wire.encode_create(task, self.webhook_url))
        if isinstance(sent, CreateAnswer):
            return sent
        status, headers, body = sent
        request_id = _request_id(headers)
        task_id, to_charge = wire.read_created(body)
        if task_id is None:
            # Accepted or not, we cannot tell; the same key will.
            return self._no_acceptance(status, headers, body)
        return CreateAnswer(
            Answer.ACCEPTED,
            status,
            provider_task_id=task_id,
            credits_to_charge=to_charge,
            request_id=request_id,
        )

    async def create_batch(self, tasks: Sequence[ClaimedTask]) -> list[CreateAnswer] | None:
        """POST /v1/async/task/batch (C-G.3): one answer for each task, in order. None when the provider does
        not take them as a batch; they may go one by one."""
        sent = await self._post(
            "/v1/async/task/batch", encode_batch(tasks, self.webhook_url), BATCH_BYTES_MAX
        )
        if isinstance(sent, CreateAnswer):
            alone = sent.answer in (Answer.REJECTED, Answer.MISDIRECTED)
            return None if alone else [sent] * len(tasks)
        status, headers, body = sent
        if not wire.is_own_create(body):
            return [self._no_acceptance(status, headers, body)] * len(tasks)
        return read_batch(tasks, status, body, _request_id(headers))

    async def slots(self) -> Slots | None:
        """GET /v1/async/status (C-G.5); None when there is no usable answer."""
        try:
            status, _, body = await self._request("GET", "/v1/async/status", bytes_max=CREATE_BYTES_MAX)
        except (_NotSent, *_TROUBLE):
            return None
        return wire.read_slots(body) if status == 200 else None

    async def balance(self, now_ms: int) -> BalanceAnswer:
        """GET /v1/credits (C-E.6). Only the provider's own 404 says that its edition has none (C-B22)."""
        try:
            status, headers, body = await self._request("GET", "/v1/credits", bytes_max=CREATE_BYTES_MAX)
        except _NotSent as pause:
            return BalanceAnswer(BalanceEnd.UNKNOWN, why=str(pause))
        except _TROUBLE as error:
            return BalanceAnswer(BalanceEnd.UNKNOWN, why=f"no response: {type(error).__name__}")
        if status == 200 and (balance := wire.read_balance(body, now_ms)) is not None:
            return BalanceAnswer(BalanceEnd.REPORTED, balance)
        refusal = self._refusal("GET", status, headers, body)
        if not refusal.is_own:
            return BalanceAnswer(BalanceEnd.UNKNOWN, why=refusal.message)
        end = {404: BalanceEnd.ABSENT, 401: BalanceEnd.REFUSED}.get(status, BalanceEnd.UNKNOWN)
        return BalanceAnswer(end, why=f"HTTP {status}, {refusal.code or refusal.message}")

    async def poll(self, task_id_or_key: str) -> PollAnswer:
        """GET /v1/async/task/{id} (C-G.4); by our key where no id is known, as some editions allow (C-L5)."""
        try:
            status, headers, body = await self._request("GET", f"/v1/async/task/{task_id_or_key}")
        except (_NotSent, *_TROUBLE):
            return PollAnswer(found=None)
        state = wire.read_task_status(body) if status == 200 else None
        if state is not None:
            self._pauses["GET"] = 0
            finished = state in ("COMPLETED", "FAILED")
            return PollAnswer(found=True, finished=finished, body=body if finished else b"")
        refusal = self._refusal("GET", status, headers, body)
        if not refusal.is_own:
            return PollAnswer(found=None, gateway=refusal.message)
        if status == 404 and not refusal.is_route:
            return PollAnswer(found=False)
        elsewhere = classify(status, refusal.code) is Answer.MISDIRECTED
        return PollAnswer(found=None, gateway=refusal.describe(status) if elsewhere else None)

    async def get(self, path: str) -> GetAnswer:
        """Any other GET, for the doctor. Raises OSError or TimeoutError when there is no answer."""
        try:
            status, headers, body = await self._request("GET", path, bytes_max=CREATE_BYTES_MAX)
        except (_NotSent, aiohttp.ClientError) as error:
            raise OSError(str(error)) from error
        return GetAnswer(status, body, self._refusal("GET", status, headers, body), wire.dated_ms(headers))

    async def _post(
        self, path: str, content: bytes, bytes_max: int = CREATE_BYTES_MAX
    ) -> tuple[int, Mapping[str, str], bytes] | CreateAnswer:
        """(status, headers, body) of a success; anything else as the answer that it means."""
        try:
            status, headers, body = await self._request("POST", path, content, bytes_max)
        except _NotSent as pause:
            return CreateAnswer(Answer.DEFERRED, wait_s=pause.wait_s)
        except NOT_SENT as error:
            # No connection, so nothing was sent; the others may have been cut after the provider stored it.
            return CreateAnswer(Answer.UNAVAILABLE, message=f"cannot connect: {error}")
        except _TROUBLE as error:
            return CreateAnswer(Answer.LOST, message=f"no response: {type(error).__name__}")
        if 200 <= status < 300:
            self._pauses["POST"] = 0
            return status, headers, body
        refusal = self._refusal("POST", status, headers, body)
        kind = classify(status, refusal.code) if refusal.is_own else Answer.GATEWAY
        self._refusals += kind in (Answer.BAD_KEY, Answer.NO_CREDITS)
        message = refusal.describe(status) if kind is Answer.MISDIRECTED else refusal.message
        return CreateAnswer(
            kind, status, refusal.code, message, wait_s=refusal.wait_s, request_id=_request_id(headers)
        )

    def _no_acceptance(self, status: int, headers: Mapping[str, str], body: bytes) -> CreateAnswer:
        """A 2xx without a task: the provider's own, unreadable; or somebody else's page."""
        page = wire.page_of(status, headers, self._without_key(body))
        kind = Answer.LOST if wire.is_own_create(body) else Answer.GATEWAY
        return CreateAnswer(kind, status, message=page, request_id=_request_id(headers))

    def _refusal(self, method: str, status: int, headers: Mapping[str, str], body: bytes) -> wire.WireError:
        """An answer without what was asked for. A 429, whoever says it, pauses every request."""
        refusal = wire.read_error(status, headers, self._without_key(body))
        if status == 429 and refusal.code != "QUEUE_LIMIT_EXCEEDED":
            self._slow_down(method, refusal.wait_s)
        return refusal

    def _slow_down(self, method: str, wait_s: float | None) -> None:
        now = self._monotonic()
        if now >= self._paused_until_s:
            # The others of this time went before the pause, and are the same refusal.
            self._pauses[method] += 1
        own_s = min(RATE_PAUSE_S * 2.0 ** min(self._pauses[method] - 1, 10), BACKOFF_MAX_S)
        pause_s = max(own_s, wait_s or 0.0)
        self._paused_until_s = max(self._paused_until_s, now + pause_s)
        self._rate_limiter.pause(pause_s)

    def _without_key(self, body: bytes) -> bytes:
        """What is shown of it must not hold our key, should it be echoed."""
        return body.replace(self._key, b"...") if self._key else body

    async def _request(
        self, method: str, path: str, body: bytes | None = None, bytes_max: int | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        refusals, asked_s = self._refusals, self._monotonic()
        if wait_s := await self._rate_limiter.acquire(TURN_WAIT_MAX_S):
            raise _NotSent(wait_s)
        if method == "POST" and refusals != self._refusals:
            raise _NotSent(0.0)  # what waited for its turn meanwhile would be refused as well
        began_s, is_answered, status = self._monotonic(), False, None
        if self._watch is not None:
            self._watch.waited(began_s - asked_s)

        def on_head(headers: Mapping[str, str]) -> None:
            nonlocal is_answered
            is_answered = True
            self._rate_limiter.answered(self._monotonic() - began_s, *wire.rate_limit(headers))

        bytes_max = bytes_max or ANSWER_BYTES_MAX
        try:
            if path == _CREATE and self._prepared and body is not None and len(body) <= BODY_BYTES_MAX:
                answer = await self._prepared.send(body, on_head, bytes_max)
            else:
                answer = await self._by_session(method, path, body, on_head, bytes_max)
            status = answer[0]
            return answer
        finally:
            if self._watch is not None:
                self._watch.ended(method, status, self._monotonic() - began_s)
            if not is_answered:
                self._rate_limiter.answered(self._monotonic() - began_s)

    async def _by_session(
        self, method: str, path: str, body: bytes | None, on_head: OnHead, bytes_max: int
    ) -> tuple[int, Mapping[str, str], bytes]:
        assert self._session is not None, "use the client as a context manager"  # noqa: S101
        # Redirects are not followed: one would carry the key elsewhere.
        async with self._session.request(
            method, self._base_url + path, data=body, allow_redirects=False, **self._egress.how(self._headers)
        ) as response:
            on_head(response.headers)
            # Its headers are case-insensitive, as the editions need (C-B13).
            return response.status, response.headers, await read_bounded(response.content, bytes_max)


def _request_id(headers: Mapping[str, str]) -> str | None:
    return storable(headers.get("X-Request-ID", ""), wire.ID_CHARS_MAX) or None
