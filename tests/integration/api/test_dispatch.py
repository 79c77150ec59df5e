"""What every route gets from the dispatcher, tried with routes of the test's own: bodies, bounds, actions,
dialects, streams, and what becomes of bugs.
"""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp import DummyCookieJar, web
from aiohttp.test_utils import TestClient, TestServer
from pydantic import BaseModel

from app.api import readers
from app.api.dispatch import Dispatcher
from app.api.problems import CONFLICT, Dialect, Problem
from app.api.route import Answer, Body, Call, Params, Parts, Route, Stream, Streamed, Upload, Uploads
from app.config import Settings
from app.domain.access import ActionRow, Scope
from app.ports import StoreUnavailable
from app.store import Store
from app.web.server import handler_args
from tests.clock import SteppedClock
from tests.integration.api.asking import Api


class Named(Body):
    name: str
    count: int = 1


class Said(BaseModel):
    said: str


class Envelope(BaseModel):
    error: dict[str, str]


class ThingParams(Params):
    thing: str


FOREIGN = Dialect(
    "foreign",
    Envelope,
    "application/json",
    lambda problem, _: (418, Envelope(error={"code": problem.kind.code})),
)
PATH = "/v1/things/{thing}"
TOO_LARGE = io.BytesIO(b'{"name": "%s"}' % (b"s" * (1 << 20)))
Start = Callable[..., Awaitable[Api]]


@pytest.fixture
async def start(sqlite_store: Store, clock: SteppedClock) -> AsyncIterator[Start]:
    """`await start(handler, method=…, body=…, in_flight_max=…, settings={…})`: an API of one route."""
    async with AsyncExitStack() as running:

        async def begin(
            handler: Any, *, in_flight_max: int = 4, settings: dict[str, Any] | None = None, **route: Any
        ) -> Api:
            chosen = Settings(_env_file=None, **(settings or {}))
            parts = Parts(sqlite_store, chosen, clock)
            given = {"method": "POST", "answers": {200: Said}, "scope": Scope.SUBMIT, "params": ThingParams}
            routes = [Route(path=PATH, handler=handler, summary="x", **given | route)]
            dispatcher = Dispatcher(routes, parts, chosen, in_flight_max=in_flight_max)
            app = web.Application(handler_args=handler_args())
            app.router.add_route("*", "/{tail:.*}", dispatcher.handle)
            app.on_cleanup.append(lambda _app: dispatcher.close())
            client = TestClient(TestServer(app), cookie_jar=DummyCookieJar())
            await running.enter_async_context(client)
            return Api(client, sqlite_store, clock, parts)

        yield begin


async def say(call: Call[ThingParams, Any]) -> Said:
    return Said(said=call.params.thing)


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        ({"json": {"name": "a", "count": 2}}, 200, ""),
        ({"data": b"{", "headers": {"Content-Type": "application/json"}}, 400, "malformed"),
        ({"json": {"count": "secret"}}, 422, "invalid"),
        ({"json": {"name": "a", "hush": 1}}, 422, "invalid"),
        ({"json": ["secret"]}, 422, "invalid"),
        ({"data": b"name=a"}, 415, "unsupported_media_type"),
        ({"json": {"name": "a"}, "headers": {"Content-Encoding": "gzip"}}, 415, "unsupported_media_type"),
        ({"data": TOO_LARGE, "headers": {"Content-Type": "application/json"}}, 413, "too_large"),
    ],
)
async def test_a_body_is_as_its_model_says(sent: Any, status: int, code: str, start: Start) -> None:
    async def handler(call: Call[ThingParams, Named]) -> Said:
        return Said(said=f"{call.body.name}{call.body.count}")

    api = await start(handler, body=Named)
    answered = await api.ask("/v1/things/x", "POST", **sent)
    assert (answered.status, answered.document.get("code", "")) == (status, code)
    assert b"secret" not in answered.body
    if status == 415:
        header = "Accept-Encoding" if "headers" in sent else "Accept"
        assert answered.headers[header] in ("identity", "application/json")
    if status == 422:
        assert all(error["field"] is None or error["remedy"] for error in answered.document["errors"])


async def test_an_upload_is_read_as_it_comes(start: Start) -> None:
    sizes: list[int] = []

    async def handler(call: Call[ThingParams, Upload]) -> Said:
        async for chunk in call.body.chunks:
            sizes.append(len(chunk))
        return Said(said=call.body.media_type)

    async def slowly() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b"x" * 65_536

    api = await start(handler, body=Uploads({"text/csv": "rows"}))
    answered = await api.ask("/v1/things/x", "POST", data=slowly(), headers={"Content-Type": "text/csv"})
    assert (answered.status, answered.document["said"]) == (200, "text/csv")
    assert sum(sizes) == 64 * 65_536
    assert max(sizes) <= 1 << 20
    wrong = await api.ask("/v1/things/x", "POST", data=b"{}", headers={"Content-Type": "application/json"})
    assert (wrong.status, "text/csv" in wrong.document["detail"]) == (415, True)


async def test_a_reader_that_stops_is_cut_off_and_gives_its_place_back(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "STALLED_S", 0.2)
    is_over = asyncio.Event()

    async def handler(_call: Call[ThingParams, Any]) -> Stream:
        async def endless() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield bytes(1 << 16)
            finally:
                is_over.set()

        return Stream("application/octet-stream", endless())

    streamed = Streamed("application/octet-stream", "x")
    api = await start(handler, method="GET", scope=Scope.READ, answers={200: streamed})
    reader, writer = await asyncio.open_connection("127.0.0.1", api.client.port, limit=1 << 16)
    head = f"GET /v1/things/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {await api.token()}\r\n\r\n"
    writer.write(head.encode())
    async with asyncio.timeout(60):
        await reader.readexactly(1 << 16)
        await is_over.wait()
    writer.transport.abort()


async def test_nobody_without_a_token_is_asked_for_a_body(start: Start) -> None:
    api = await start(say, body=Named)
    async with api.client.post("/v1/things/x", json={"name": "a"}, expect100=True) as response:
        assert response.status == 401
    assert (await api.ask("/v1/things/x", "POST", json={"name": "a"}, expect100=True)).status == 200


async def test_every_write_is_in_the_list_of_actions_before_it_is_done(start: Start) -> None:
    listed: list[ActionRow] = []
    ends: list[Any] = [None, Problem(CONFLICT, "no"), ZeroDivisionError()]

    async def handler(call: Call[ThingParams, Any]) -> Answer:
        listed.extend((await call.store.access.actions_before(None, 1))[0])
        if (end := ends.pop(0)) is not None:
            raise end
        call.subject = "made-1"
        return Answer(Said(said="x"), status=201)

    api = await start(handler, action="thing.make", answers={201: Said})
    await api.token("operate")
    for status in (201, 409, 500):
        api.clock.advance(1)
        headers = {"X-Request-Id": f"r-{status}"}
        assert (await api.ask("/v1/things/x", "POST", headers=headers)).status == status
    assert [(row.action, row.status, row.subject) for row in listed] == [("thing.make", None, "x")] * 3
    rows = ((await api.store.access.actions_before(None, 10))[0])[::-1]
    (token,) = await api.store.access.list_tokens(5)
    assert [(row.status, row.subject, row.request_id) for row in rows if row.token_id == token.id] == [
        (201, "made-1", "r-201"),
        (409, "x", "r-409"),
        (None, "x", "r-500"),
    ], "of what ended by a bug nobody knows what was done"


@pytest.mark.parametrize("scope", ["read", "submit", "operate"])
async def test_a_scope_that_is_too_small_is_refused(scope: str, start: Start) -> None:
    api = await start(say)
    answered = await api.ask("/v1/things/x", "POST", scope=scope)
    assert answered.status == (403 if scope == "read" else 200)
    assert ('scope="submit"' in answered.headers.get("WWW-Authenticate", "")) == (scope == "read")


async def test_a_dialect_says_it_in_its_own_shape(start: Start) -> None:
    async def refuse(_call: Call[ThingParams, Any]) -> Said:
        raise Problem(CONFLICT, "no")

    api = await start(refuse, dialect=FOREIGN)
    answered = await api.ask("/v1/things/x", "POST")
    assert (answered.status, answered.document) == (418, {"error": {"code": "conflict"}})
    assert (await api.ask("/v1/things/x", "POST", scope="read")).document["error"]["code"] == "forbidden"


async def test_a_bug_says_nothing_of_what_it_was_about(start: Start) -> None:
    async def fail(_call: Call[ThingParams, Any]) -> Said:
        raise ValueError("the secret prompt")

    api = await start(fail)
    with structlog.testing.capture_logs() as lines:
        answered = await api.ask("/v1/things/x", "POST")
    assert (answered.status, answered.document["code"]) == (500, "internal")
    assert b"secret" not in answered.body
    assert [line["event"] for line in lines] == ["api_request_failed", "api_request"]


async def test_a_database_that_is_away_is_worth_another_try(start: Start) -> None:
    async def fail(_call: Call[ThingParams, Any]) -> Said:
        raise StoreUnavailable("at host secret")

    api = await start(fail)
    answered = await api.ask("/v1/things/x", "POST")
    assert (answered.status, answered.headers["Retry-After"]) == (503, "5")
    assert b"secret" not in answered.body


async def test_a_request_ends_in_time_and_gives_its_place_up(start: Start) -> None:
    release = asyncio.Event()

    async def wait(call: Call[ThingParams, Any]) -> Said:
        if call.params.thing == "slow":
            await asyncio.Event().wait()
        if call.params.thing == "stuck":
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await release.wait()
        return Said(said="x")

    api = await start(wait, in_flight_max=1, settings={"api_timeout_s": 0.3})
    late = await api.ask("/v1/things/slow", "POST")
    assert (late.status, late.document["code"]) == (504, "timeout")
    async with asyncio.timeout(30):
        while (await api.ask("/v1/things/x", "POST")).status != 200:
            pass  # on a machine that is busy it may take as long as that
        stuck = asyncio.create_task(api.ask("/v1/things/stuck", "POST"))
        while (waits := await api.ask("/v1/things/x", "POST")).status != 503:
            pass  # it was faster
    assert waits.headers["Retry-After"] == "1", "its turn did not come"
    release.set()
    await stuck


async def test_beyond_the_bound_requests_wait_and_then_are_refused(start: Start) -> None:
    gate, most, now = asyncio.Event(), 0, 0

    async def handler(_call: Call[ThingParams, Any]) -> Said:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await gate.wait()
        now -= 1
        return Said(said="x")

    api = await start(handler, in_flight_max=2)
    await api.token()
    asked = [asyncio.create_task(api.ask("/v1/things/x", "POST")) for _ in range(40)]
    refused = []
    async with asyncio.timeout(20):
        for done in asyncio.as_completed(asked):
            refused.append((await done).status)
            if len(refused) == 6:
                gate.set()
    assert refused[:6] == [503] * 6
    assert refused[6:] == [200] * 34, "two at once, and 16 times as many that wait"
    assert most == 2


async def test_a_stream_that_fails_is_seen_to_be_cut_off(start: Start) -> None:
    async def lines() -> AsyncIterator[bytes]:
        yield b"1\n"
        raise ZeroDivisionError

    async def handler(_call: Call[ThingParams, Any]) -> Stream:
        return Stream("application/x-ndjson", lines())

    api = await start(handler, method="GET", answers={200: Streamed("application/x-ndjson", "lines")})
    with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError)):
        await api.ask("/v1/things/x")
