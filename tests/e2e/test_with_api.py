"""`web --with-api` as a real process: whatever clients of the API do in the receiver's port, every delivery
is taken, soon, and stored."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import sqlalchemy as sa

from app.config import EMULATOR_WEBHOOK_SECRET
from app.provider.wire import read_answer
from app.store import Database, Store
from app.store.tables import deliveries
from tests.e2e.stack import STOP, Stack
from tests.integration.web.receiving import PATH, delivery_body, signed

DELIVERIES, AT_ONCE = 300, 8
WITHIN_S = 25.0
"""The process that answers all of it shares busy cores with those who ask; who holds a place of the API may
keep it for longer."""
SILENT = (
    "GET /v1/runs HTTP/1.1\r\nHost: x\r\nAuth",
    "POST /v1/runs HTTP/1.1\r\nHost: x\r\n{token}Content-Length: 900\r\n\r\n{{",
    "POST /v1/runs HTTP/1.1\r\nHost: x\r\n{token}Content-Type: text/csv\r\nTransfer-Encoding: chunked\r\n\r\n"
    "a\r\nprompt\nhi\n\r\n",
    "POST /v1/async/task HTTP/1.1\r\nHost: x\r\n{token}Content-Length: 900\r\n\r\n{{",
    "GET /v1/events HTTP/1.1\r\nHost: x\r\n{token}\r\n",
    "POST /mcp HTTP/1.1\r\nHost: localhost\r\n{token}Content-Length: 900\r\n\r\n{{",
)
"""How requests begin that never go on."""
UNREAD = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 20
"""Some 4 MB of answers that nobody reads."""
GARBAGE = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET /v1/runs SPDY/9\r\n\r\n",
    b"\r\n" * 50,
    b"PRI * HTTP/2.0\r\n\r\n",
)


@asynccontextmanager
async def a_hostile_crowd(url: str, token: str) -> AsyncIterator[None]:
    """Clients that are slow, many, wrong or mad, until the block ends."""
    place = urlsplit(url)
    header = f"Authorization: Bearer {token}\r\n"
    opened: list[asyncio.StreamWriter] = []
    asking: list[asyncio.Task[None]] = []
    async with aiohttp.ClientSession() as client:
        try:
            for text in (*itertools.islice(itertools.cycle(SILENT), 90), *[UNREAD] * 10):
                _, writer = await asyncio.open_connection(place.hostname, place.port)
                opened.append(writer)
                writer.write(text.format(token=header).encode())
            asking += [asyncio.create_task(ask_on(client, url, token, n)) for n in range(6)]
            asking.append(asyncio.create_task(send_garbage(place.hostname or "", place.port or 0)))
            yield
            for task in asking:
                assert not task.done() or task.result()
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            for writer in opened:
                writer.transport.abort()
            await asyncio.sleep(0)


async def ask_on(client: aiohttp.ClientSession, url: str, token: str, number: int) -> None:
    """One request after the other: wrong tokens, large bodies, lists, tasks."""
    wrong = {"Authorization": f"Bearer thk_{'0' * 9}_{'0' * 43}"}
    right = {"Authorization": f"Bearer {token}"}
    task = {"taskType": "GEMINI", "payload": {"prompt": "x", "country": "DE"}}
    for turn in itertools.count(number):
        how = (
            ("GET", "/v1/runs", {"headers": wrong}),
            ("GET", "/v1/runs?limit=1000", {"headers": right}),
            ("POST", "/v1/async/task", {"headers": right, "json": task}),
            ("POST", "/v1/runs", {"headers": right, "json": {"prompts": ["x" * 9_000] * 100}}),
            ("GET", "/v1/nothing", {"headers": right}),
        )[turn % 5]
        try:
            async with client.request(how[0], url + how[1], **how[2]) as answer:  # type: ignore[arg-type]
                await answer.read()
        except aiohttp.ClientError:
            pass  # its connection had to give way
        await asyncio.sleep(0.01)


async def send_garbage(host: str, port: int) -> None:
    """What is no HTTP, again and again."""
    for sent in itertools.cycle(GARBAGE):
        _, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(sent)
            await asyncio.sleep(0.02)
        finally:
            writer.transport.abort()


async def deliver_all(url: str) -> list[float]:
    """Seconds that each delivery took; raises AssertionError for one that is not taken."""
    took: list[float] = []
    numbers = iter(range(DELIVERIES))

    async def deliver(client: aiohttp.ClientSession) -> None:
        for number in numbers:
            body, started_s = delivery_body(number, "words " * 3_000), time.monotonic()
            headers = signed(body, int(time.time()), secret=EMULATOR_WEBHOOK_SECRET)
            async with client.post(url + PATH, data=body, headers=headers) as answer:
                assert answer.status == 200
            took.append(time.monotonic() - started_s)

    async with aiohttp.ClientSession() as client:
        await asyncio.gather(*(deliver(client) for _ in range(AT_ONCE)))
    return took


async def test_no_client_of_the_api_holds_up_a_delivery(tmp_path: Path, sqlite_url: str) -> None:
    store = Store(Database(sqlite_url), read_answer)
    stack = Stack(tmp_path, store, sqlite_url, "redis://127.0.0.1:1")
    stack.is_forked = stack.with_api = True
    try:
        stack.start("web")
        async with a_hostile_crowd(stack.web_url, await stack.token("operate")):
            took = await deliver_all(stack.web_url)
        assert max(took) < WITHIN_S, took
        async with store.db.engine.connect() as connection:
            stored = await connection.scalar(sa.select(sa.func.count()).select_from(deliveries))
        assert stored == DELIVERIES
        assert stack.end("web", STOP) == 0, stack.logs()
    finally:
        stack.close()
        await store.close()
    assert "Traceback" not in (tmp_path / "web.log").read_text()
