"""The provider over HTTP: one request per call, paced, and never an exception for what the provider does."""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

import aiohttp

from app.domain.retry import Answer, classify
from app.domain.submission import ClaimedTask
from app.ports import Balance, CreateAnswer, PollAnswer, Slots
from app.provider import wire
from app.provider.batch import encode_batch, read_batch

ANSWER_BYTES_MAX = 64 * 1024 * 1024
"""A poll's answer carries the whole result; rawResponse can be megabytes (C-I.5)."""
RATE_PAUSE_S = 1.0
"""A refused request means this second is used up; the window is one second (C-D.3)."""

TURN_WAIT_MAX_S = 5.0
"""A turn further away is not waited for: the caller's job and its claims would run out meanwhile."""

_TROUBLE = (aiohttp.ClientError, TimeoutError, OSError)


class Turns(Protocol):
    """Who decides when the next request may go: a Pacer of this process, or one shared by all."""

    async def acquire(self, within_s: float = ...) -> float: ...

    def answered(self, took_s: float, limit: int | None = ..., remaining: int | None = ...) -> None: ...

    def pause(self, wait_s: float) -> None: ...

    async def close(self) -> None: ...


class _NotSent(Exception):  # noqa: N818 - not an error: the provider asked for a pause
    def __init__(self, wait_s: float) -> None:
        super().__init__(f"no turn for {wait_s:.1f} s")
        self.wait_s = wait_s


class Client:
    """Calls to one provider account. An async context manager."""

    def __init__(
        self, *, base_url: str, api_key: str, webhook_url: str | None, pacer: Turns, timeout_s: float,
        connections: int,
    ) -> None:  # fmt: skip
        self._base_url = base_url
        self._headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
        self._webhook_url = webhook_url
        self._pacer = pacer
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, connect=min(timeout_s, 10.0))
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            timeout=self._timeout,
            connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=30),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
        await self._pacer.close()

    async def create(self, task: ClaimedTask) -> CreateAnswer:
        """POST /v1/async/task (C-G.2)."""
        sent = await self._post("/v1/async/task", wire.encode_create(task, self._webhook_url))
        if isinstance(sent, CreateAnswer):
            return sent
        status, body, request_id = sent
        task_id, to_charge = wire.read_created(body)
        if task_id is None:
            # Accepted or not, we cannot tell; the same key will.
            return CreateAnswer(Answer.LOST, status, message="2xx without a task", request_id=request_id)
        return CreateAnswer(
            Answer.ACCEPTED, status, provider_task_id=task_id, credits_to_charge=to_charge,
            request_id=request_id,
        )  # fmt: skip

    async def create_batch(self, tasks: Sequence[ClaimedTask]) -> list[CreateAnswer] | None:
        """POST /v1/async/task/batch (C-G.3): one answer for each task, in order. None when the provider does
        not take them as a batch; they may go one by one."""
        sent = await self._post("/v1/async/task/batch", encode_batch(tasks, self._webhook_url))
        if isinstance(sent, CreateAnswer):
            return None if sent.answer is Answer.REJECTED else [sent] * len(tasks)
        status, body, request_id = sent
        return read_batch(tasks, status, body, request_id)

    async def slots(self) -> Slots | None:
        """GET /v1/async/status (C-G.5); None when there is no usable answer."""
        return wire.read_slots(await self._get_or_nothing("/v1/async/status"))

    async def balance(self, now_ms: int) -> Balance | None:
        """GET /v1/credits (C-E.6); None when there is no usable answer, as in editions without it (C-B22)."""
        return wire.read_balance(await self._get_or_nothing("/v1/credits"), now_ms)

    async def poll(self, task_id_or_key: str) -> PollAnswer:
        """GET /v1/async/task/{id} (C-G.4); by our key where no id is known, as some editions allow (C-L5)."""
        try:
            status, headers, body = await self._request("GET", f"/v1/async/task/{task_id_or_key}")
        except (_NotSent, *_TROUBLE):
            return PollAnswer(found=None)
        if status == 404:
            return PollAnswer(found=False)
        if status != 200:
            if status == 429:
                wait_s = wire.read_error(status, headers, body).wait_s
                self._pacer.pause(wait_s if wait_s is not None else RATE_PAUSE_S)
            return PollAnswer(found=None)
        state = wire.read_task_status(body)
        if state in ("COMPLETED", "FAILED"):
            return PollAnswer(found=True, finished=True, body=body)
        return PollAnswer(found=None if state is None else True)

    async def get(self, path: str) -> tuple[int, bytes]:
        """Any other GET, for the doctor and the audit: (status, body). Raises OSError or TimeoutError when
        there is no answer."""
        try:
            status, _, body = await self._request("GET", path)
        except (_NotSent, aiohttp.ClientError) as error:
            raise OSError(str(error)) from error
        return status, body

    async def _post(self, path: str, content: bytes) -> tuple[int, bytes, str | None] | CreateAnswer:
        """(status, body, request id) of a success; anything else as the answer that it means."""
        try:
            status, headers, body = await self._request("POST", path, content)
        except _NotSent as pause:
            return CreateAnswer(Answer.DEFERRED, wait_s=pause.wait_s)
        except aiohttp.ClientConnectorError as error:
            # No connection, so nothing was sent; the others may have been cut after the provider stored it.
            return CreateAnswer(Answer.UNAVAILABLE, message=f"cannot connect: {error}")
        except _TROUBLE as error:
            return CreateAnswer(Answer.LOST, message=f"no response: {type(error).__name__}")
        request_id = wire.storable(headers.get("X-Request-ID", ""), wire.ID_CHARS_MAX) or None
        if 200 <= status < 300:
            return status, body, request_id
        refusal = wire.read_error(status, headers, body)
        kind = classify(status, refusal.code)
        if kind is Answer.RATE_LIMITED:
            self._pacer.pause(refusal.wait_s if refusal.wait_s is not None else RATE_PAUSE_S)
        return CreateAnswer(
            kind, status, refusal.code, refusal.message, wait_s=refusal.wait_s, request_id=request_id
        )

    async def _get_or_nothing(self, path: str) -> bytes:
        try:
            status, body = await self.get(path)
        except (OSError, TimeoutError):
            return b""
        return body if status == 200 else b""

    async def _request(
        self, method: str, path: str, body: bytes | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        assert self._session is not None, "use the client as a context manager"  # noqa: S101
        if wait_s := await self._pacer.acquire(TURN_WAIT_MAX_S):
            raise _NotSent(wait_s)
        url = self._base_url + path
        began_s, is_answered = time.monotonic(), False
        try:
            # Redirects are not followed: one would carry the key elsewhere.
            async with self._session.request(method, url, data=body, allow_redirects=False) as response:
                is_answered = True
                self._pacer.answered(time.monotonic() - began_s, *wire.rate_limit(response.headers))
                content = await _read_bounded(response)
                # Its headers are case-insensitive, as the editions need (C-B13).
                return response.status, response.headers, content
        finally:
            if not is_answered:
                self._pacer.answered(time.monotonic() - began_s)


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > ANSWER_BYTES_MAX:
            raise aiohttp.ClientPayloadError("answer too large")
        chunks.append(chunk)
    return b"".join(chunks)
