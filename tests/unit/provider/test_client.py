"""The client against a server on a real socket, for every kind of answer and every way to get none."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from app.domain.send_outcome import Answer
from app.domain.submission import ClaimedTask
from app.provider.client import TURN_WAIT_MAX_S, Client
from app.provider.ratelimit.pacing import Pacer
from tests.http_handlers import cut_connection
from tests.servers.processes import free_port

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

TASK = ClaimedTask(
    "id", "run", 1, "id.1", "CHATGPT", '{"prompt":"p"}', 1, Decimal(5), 1, first_sent_at_ms=0, claim="c"
)


class Provider:
    """One server whose every path is answered by `answer`, and a client for it."""

    def __init__(self, url: str, client: Client, pacer: Pacer) -> None:
        self.url = url
        self.client = client
        self.pacer = pacer
        self.answer: Handler = _no_answer
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.path, dict(request.headers), await request.read()))
        return await self.answer(request)

    def answers(self, status: int, body: str = "", **headers: str) -> None:
        """Answer everything alike from now on."""

        async def answer(_: web.Request) -> web.StreamResponse:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return web.Response(status=status, body=body.encode(), headers=named)

        self.answer = answer


async def _no_answer(_: web.Request) -> web.StreamResponse:
    raise AssertionError("not told what to answer")


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with serving() as opened:
        yield opened


@contextlib.asynccontextmanager
async def serving(
    timeout_s: float = 60.0, *, pacer: Pacer | None = None, **changes: Any
) -> AsyncIterator[Provider]:
    served: list[Provider] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        return await served[0].handle(request)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handle)
    async with TestServer(app) as server:
        url, pacer = str(server.make_url("")).rstrip("/"), pacer or Pacer(500)
        async with client_of(url, pacer, timeout_s, **changes) as client:
            served.append(Provider(url, client, pacer))
            yield served[0]


def client_of(
    url: str,
    pacer: Pacer | None = None,
    timeout_s: float = 60.0,
    api_key: str = "sk_test_x",
    monotonic: Callable[[], float] = time.monotonic,
) -> Client:
    return Client(
        base_url=url,
        api_key=api_key,
        webhook_url="http://127.0.0.1:1/hook",
        pacer=pacer or Pacer(500),
        timeout_s=timeout_s,
        connections=4,
        monotonic=monotonic,
    )


async def test_accepted(provider: Provider) -> None:
    provider.answers(
        200, '{"success":true,"task":{"id":"t-1"},"credits":{"creditsToCharge":7}}', x_request_id="req-1"
    )
    answer = await provider.client.create(TASK)
    assert (answer.answer, answer.provider_task_id, answer.credits_to_charge) == (
        Answer.ACCEPTED,
        "t-1",
        Decimal(7),
    )
    assert answer.request_id == "req-1"
    method, path, headers, body = provider.seen[0]
    assert (method, path) == ("POST", "/v1/async/task")
    assert headers["Authorization"] == "Bearer sk_test_x"
    assert b'"idempotencyKey":"id.1"' in body and b'"url":"http://127.0.0.1:1/hook"' in body


@pytest.mark.parametrize(
    ("status", "body", "answer"),
    [
        (201, '{"task":{"id":"t"}}', Answer.ACCEPTED),
        (200, '{"task":{}}', Answer.LOST),  # accepted or not, only the key can tell
        (200, "{}", Answer.GATEWAY),
        (200, "<html>", Answer.GATEWAY),
        (204, "", Answer.GATEWAY),
        (409, '{"error":{"code":"RESOURCE_ALREADY_EXISTS"}}', Answer.EXISTS),
        (409, "", Answer.GATEWAY),
        (400, '{"error":{"code":"VALIDATION_ERROR"}}', Answer.REJECTED),
        (422, '{"error":"Request validation failed"}', Answer.REJECTED),
        (413, "<html>too large</html>", Answer.GATEWAY),
        (401, '{"error":"Invalid or missing API key"}', Answer.BAD_KEY),
        (403, '{"error":{"code":"INSUFFICIENT_CREDITS"}}', Answer.NO_CREDITS),
        (403, '{"error":{"code":"INSUFFICIENT_PERMISSIONS"}}', Answer.NO_CREDITS),
        (402, "", Answer.GATEWAY),
        (429, '{"error":{"code":"RATE_LIMIT_EXCEEDED"}}', Answer.RATE_LIMITED),
        (429, '{"error":{"code":"CONCURRENT_LIMIT_EXCEEDED"}}', Answer.RATE_LIMITED),
        (429, "", Answer.GATEWAY),
        (429, '{"error":{"code":"QUEUE_LIMIT_EXCEEDED"}}', Answer.QUEUE_FULL),
        (500, '{"error":{"code":"INTERNAL_SERVER_ERROR"}}', Answer.UNAVAILABLE),
        (502, "<html>Bad Gateway</html>", Answer.GATEWAY),
        (503, "", Answer.GATEWAY),
        (520, "", Answer.GATEWAY),
        (408, "", Answer.GATEWAY),
        (499, '{"error":"Request was canceled"}', Answer.UNAVAILABLE),
    ],
)
async def test_every_status_has_its_answer(
    provider: Provider, status: int, body: str, answer: Answer
) -> None:
    provider.answers(status, body)
    got = await provider.client.create(TASK)
    assert got.answer is answer
    assert got.http_status == status


async def test_a_refusal_carries_its_reason_and_wait(provider: Provider) -> None:
    provider.answers(
        503, '{"error":{"code":"SERVICE_UNAVAILABLE","message":"later"}}', Retry_After="7", X_REQUEST_id="r"
    )
    got = await provider.client.create(TASK)
    assert (got.code, got.message, got.wait_s, got.request_id) == ("SERVICE_UNAVAILABLE", "later", 7.0, "r")


async def test_a_rate_limit_pauses_every_request(provider: Provider) -> None:
    provider.answers(429, '{"success":false,"error":"slow down","retry_after":900}')
    assert (await provider.client.create(TASK)).wait_s == 900
    deferred = await provider.client.create(TASK)
    assert deferred.answer is Answer.DEFERRED, "claimed, but not sent"
    assert deferred.wait_s is not None and deferred.wait_s > TURN_WAIT_MAX_S
    assert (await provider.client.poll("t")).found is None
    with pytest.raises(OSError, match="no turn"):
        await provider.client.get("/v1/credits")
    assert len(provider.seen) == 1


@pytest.mark.parametrize("body", ["", '{"retry_after":30}'])
async def test_a_rate_limited_poll_pauses_too(provider: Provider, body: str) -> None:
    provider.answers(429, body)
    assert (await provider.client.poll("t")).found is None
    wait_s = await provider.pacer.acquire(within_s=0.0)
    assert wait_s == pytest.approx(30.0 if body else 1.0, abs=0.5)


async def test_the_limit_of_the_headers_is_taken_over(provider: Provider) -> None:
    provider.answers(200, '{"task":{"id":"t"}}', x_ratelimit_limit="50")
    await provider.client.create(TASK)
    assert provider.pacer.windows.cap == 49


async def test_a_redirect_is_not_followed(provider: Provider) -> None:
    provider.answers(307, "", Location="http://127.0.0.1:1/elsewhere")
    got = await provider.client.create(TASK)
    assert (got.answer, got.http_status) == (Answer.GATEWAY, 307)
    assert got.message == "HTTP 307 to http://127.0.0.1:1/elsewhere, no type, empty"
    assert (await provider.client.poll("t")).found is None
    assert len(provider.seen) == 2


async def test_no_connection_means_nothing_was_sent() -> None:
    async with client_of(f"http://127.0.0.1:{free_port()}") as client:
        got = await client.create(TASK)
        assert (got.answer, got.http_status) == (Answer.UNAVAILABLE, None)
        assert (await client.poll("t")).found is None
        with pytest.raises(OSError):
            await client.get("/v1/credits")


async def _cut_mid_body(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "500"})
    await response.prepare(request)
    await response.write(b'{"task":{"id":"t"')
    assert request.transport is not None
    request.transport.close()
    return response


async def _no_http(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.write(b"SSH-2.0-OpenSSH\r\n\r\n")
    request.transport.close()
    return web.Response()


@pytest.mark.parametrize("answer", [cut_connection, _cut_mid_body, _no_http])
async def test_a_cut_connection_leaves_the_result_unknown(provider: Provider, answer: Handler) -> None:
    provider.answer = answer
    got = await provider.client.create(TASK)
    assert (got.answer, got.http_status) == (Answer.LOST, None)
    assert (await provider.client.poll("t")).found is None
    with pytest.raises(OSError):
        await provider.client.get("/v1/credits")
    assert sum(method == "POST" for method, *_ in provider.seen) == 1, "the client itself sends nothing twice"


async def test_no_answer_in_time_leaves_the_result_unknown() -> None:
    asked = asyncio.Event()

    async def hang(_: web.Request) -> web.StreamResponse:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(timeout_s=0.1) as provider:
        provider.answer = hang
        async with asyncio.timeout(30):
            while not asked.is_set():  # a busy machine may need longer to begin
                got = await provider.client.create(TASK)
        assert got.answer is Answer.LOST
        assert (await provider.client.poll("t")).found is None


async def test_an_answer_without_end_is_cut_off(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.provider.client.ANSWER_BYTES_MAX", 10_000)
    monkeypatch.setattr("app.provider.client.CREATE_BYTES_MAX", 10_000)
    provider.answers(200, '{"task":{"id":"' + "x" * 10_001)
    assert (await provider.client.create(TASK)).answer is Answer.GATEWAY
    assert (await provider.client.poll("t")).found is None
    provider.answers(200, '{"task":{"id":"t"}}' + " " * 9_000)
    assert (await provider.client.create(TASK)).answer is Answer.ACCEPTED


@pytest.mark.parametrize(
    ("status", "body", "found", "finished"),
    [
        (200, '{"task":{"id":"t","status":"QUEUED"}}', True, False),
        (200, '{"task":{"id":"t","status":"PROCESSING"}}', True, False),
        (200, '{"task":{"id":"t","status":"COMPLETED"}}', True, True),
        (200, '{"task":{"id":"t","status":"FAILED"}}', True, True),
        (200, '{"task":{"id":"t","status":"NEW_STATE"}}', True, False),
        (200, "{}", None, False),
        (200, "<html>", None, False),
        (404, '{"error":{"code":"RESOURCE_NOT_FOUND"}}', False, False),
        (404, '{"success":false,"error":"Task not found"}', False, False),
        (404, "<html>404 Not Found</html>", None, False),
        (404, '{"message":"no Route matched with those values"}', None, False),
        (404, "", None, False),
        (401, "", None, False),
        (500, "", None, False),
        (204, "", None, False),
    ],
)
async def test_polling(
    provider: Provider, status: int, body: str, found: bool | None, finished: bool
) -> None:
    provider.answers(status, body)
    got = await provider.client.poll("t-1")
    assert (got.found, got.finished) == (found, finished)
    assert got.body == (body.encode() if finished else b"")
    assert provider.seen[0][:2] == ("GET", "/v1/async/task/t-1")


async def test_any_other_get(provider: Provider) -> None:
    provider.answers(404, "nothing")
    got = await provider.client.get("/v1/credits")
    assert (got.status, got.body, got.refusal.is_own) == (404, b"nothing", False)


async def test_s14_what_waits_for_its_turn_is_not_sent_behind_a_refusal_of_the_key() -> None:
    async with serving(pacer=Pacer(20)) as provider:
        provider.answers(401, '{"error":"Invalid or missing API key"}')
        answers = await asyncio.gather(*(provider.client.create(TASK) for _ in range(8)))
    kinds = [answer.answer for answer in answers]
    assert len(provider.seen) == kinds.count(Answer.BAD_KEY) <= 2
    assert kinds.count(Answer.DEFERRED) == 8 - len(provider.seen)
