"""Every call against everything that may answer in the provider's place: none of it decides anything."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from app.domain.send_outcome import Answer
from app.domain.sync_call import SyncEnd
from app.emulator.http.request_faults import PAGES, Page
from app.ports import BalanceEnd
from app.provider.client import Client
from app.provider.ratelimit.pacing import Pacer
from app.provider.sync import SyncClient
from tests.unit.provider.test_client import TASK, serving

JSON = "application/json"
MORE = (
    *(Page(status, b"", "text/html") for status in (400, 401, 403, 404, 405, 409, 413, 422, 429, 503)),
    *(Page(status, b"", "text/html", "/login") for status in (301, 303, 307, 308)),
    *(
        Page(status, json.dumps(body).encode(), JSON)
        for status, body in (
            (401, {"message": "Unauthorized"}),
            (401, {"error": "invalid_token", "error_description": "expired"}),
            (403, {"error": "Forbidden"}),
            (403, {"error": {"code": 403, "message": "m", "status": "PERMISSION_DENIED"}}),
            (403, {"error": {"code": "AuthorizationFailed", "message": "m"}}),
            (403, {"success": False, "errors": [{"code": 10000, "message": "Authentication error"}]}),
            (404, {"error": "Not Found", "status": 404, "path": "/v1/async/task"}),
            (404, []),
            (409, {"message": "conflict"}),
            (200, {"ok": True}),
            (200, {"success": True}),
        )
    ),
    Page(200, b"", "text/html"),
    Page(204, b"", "text/html"),
    Page(404, b"\x1b[31m\xe2\x80\xae\xff<h1>", "text/html"),
    Page(404, b"<" * 2_000_000, "text/html"),
    Page(400, b"[" * 100_000, JSON),
)
ALL = (*PAGES, *MORE)


async def create(client: Client) -> str | None:
    got = await client.create(TASK)
    assert got.answer is Answer.GATEWAY
    return got.message


async def batch(client: Client) -> str | None:
    got = await client.create_batch([TASK, TASK])
    assert got is not None and [answer.answer for answer in got] == [Answer.GATEWAY] * 2
    return got[0].message


async def poll(client: Client) -> str | None:
    got = await client.poll("t")
    assert (got.found, got.finished) == (None, False)
    return got.gateway


async def balance(client: Client) -> str:
    got = await client.balance(0)
    assert (got.end, got.balance) == (BalanceEnd.UNKNOWN, None)
    return got.why


async def slots(client: Client) -> None:
    assert await client.slots() is None


async def get(client: Client) -> str:
    got = await client.get("/v1/async/status")
    assert not got.refusal.is_own
    return got.refusal.message


def instead(page: Page) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(_: web.Request) -> web.StreamResponse:
        headers = {} if page.location is None else {"Location": page.location}
        return web.Response(
            status=page.status, body=page.body, content_type=page.content_type, headers=headers
        )

    return answer


class Unpaused(Pacer):
    """A 429 pauses all requests, whoever says it; here it does not."""

    def pause(self, wait_s: float) -> None:
        pass


@pytest.mark.parametrize("call", [create, batch, poll, balance, slots, get], ids=lambda call: call.__name__)
async def test_no_page_is_the_providers_word(call: Callable[[Client], Awaitable[Any]]) -> None:
    async with serving(pacer=Unpaused(10_000)) as provider:
        for page in ALL:
            provider.answer = instead(page)
            answer = await call(provider.client)
            if call is not slots:
                assert answer is not None, page
                assert answer.startswith(f"HTTP {page.status}"), page
                assert answer.isprintable() and len(answer) < 250, page


async def test_a_sync_call_that_something_else_answered_is_lost_and_not_repeated() -> None:
    async with serving() as provider:
        client = SyncClient(base_url=provider.url, api_key="sk", pacer=Pacer(10_000), timeout_s=60)
        for page in ALL:
            provider.answer = instead(page)
            got = await client.ask("CHATGPT", "{}")
            assert got.end is SyncEnd.LOST, page
            assert f"HTTP {page.status}" in (got.message or ""), page


async def test_what_is_kept_of_a_page_never_holds_our_key() -> None:
    async with serving(api_key="opaque-key") as provider:
        provider.answers(403, "you sent opaque-key to us")
        got = await provider.client.create(TASK)
        assert got.message is not None and "opaque-key" not in got.message and "you sent" in got.message


async def test_an_answer_to_a_create_call_is_read_to_a_mebibyte_only() -> None:
    """64 of 50 MB in flight would be held at once."""
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            for _ in range(800):
                await response.write(b" " * 65_536)
                sent += 65_536
        except ConnectionError:
            pass
        return response

    async with serving() as provider:
        provider.answer = endless
        assert (await provider.client.create(TASK)).answer is Answer.GATEWAY
        got = await provider.client.create_batch([TASK, TASK])
        assert got is not None and got[0].answer is Answer.GATEWAY
    assert sent < 40_000_000, "the rest was never taken"
