"""A request that is one write: the same on the wire as a session's, and safe with whatever answers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from app.provider.prepared_post import PreparedPost

HEADERS = {"Authorization": "Bearer sk_live_1", "Content-Type": "application/json"}
BODY = b'{"taskType":"GROK"}'
OK = b"HTTP/1.1 200 OK\r\nx-REQUEST-id: 7\r\nContent-Length: 2\r\n\r\n{}"
BYTES_MAX = 1_000
Sent = tuple[int, Mapping[str, str], bytes]


class Server:
    """Answers each request with the next script, and keeps what it got."""

    def __init__(self, *scripts: bytes) -> None:
        self.scripts = list(scripts)
        self.requests: list[bytes] = []
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                if not (script := self.scripts.pop(0)):
                    break
                writer.write(script)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def posting(
    server: Server, **connector: Any
) -> AsyncIterator[tuple[Callable[..., Awaitable[Sent]], str, aiohttp.ClientSession]]:
    """(what posts BODY to the server within so many seconds, its URL, a session on the same connections)."""
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1/async/task"
    connections = aiohttp.TCPConnector(**connector)
    try:
        async with aiohttp.ClientSession(connector=connections) as session:

            def post(within_s: float = 60.0) -> Awaitable[Sent]:
                prepared = PreparedPost(connections, url, HEADERS, aiohttp.ClientTimeout(total=within_s))
                return prepared.send(BODY, lambda _: None, BYTES_MAX)

            yield post, url, session
    finally:
        listening.close()
        await listening.wait_closed()


async def test_it_is_on_the_wire_what_a_session_sends() -> None:
    server = Server(OK, OK)
    async with posting(server) as (post, url, session):
        status, headers, body = await post()
        async with session.post(url, data=BODY, headers=HEADERS) as response:
            assert (response.status, await response.read()) == (status, body) == (200, b"{}")
        assert headers["X-Request-ID"] == "7"
    ours, theirs = (request.partition(b"\r\n\r\n") for request in server.requests)
    assert sorted(ours[0].split(b"\r\n")) == sorted(theirs[0].split(b"\r\n"))
    assert ours[0].split(b"\r\n")[0] == theirs[0].split(b"\r\n")[0] and ours[2] == theirs[2] == BODY
    assert server.connections == 1, "kept, and shared with the session"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
    ],
)
async def test_an_answer_in_pieces_is_whole(answer: bytes) -> None:
    async with posting(Server(answer, OK)) as (post, _, _):
        assert ((await post())[2], (await post())[2]) == (b"{}", b"{}")


@pytest.mark.parametrize(
    ("answer", "length"),
    [
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", 2),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + b"x" * 5_000, BYTES_MAX),
        (OK + b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nfor", 2),
    ],
)
async def test_no_connection_is_used_again_that_may_hold_the_rest_of_an_answer(
    answer: bytes, length: int
) -> None:
    server = Server(answer, OK)
    async with posting(server) as (post, _, _):
        assert len((await post())[2]) == length
        assert (await post())[2] == b"{}"
    assert server.connections == 2


@pytest.mark.parametrize(
    "answer", [b"", b"SMTP ready\r\n\r\n", b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n", OK[:20], OK[:-1]]
)
async def test_what_is_no_answer_is_an_error_of_a_request(answer: bytes) -> None:
    server = Server(answer, b"", OK)
    async with posting(server) as (post, _, _):
        with pytest.raises((aiohttp.ClientError, TimeoutError)):
            await post(0.5)
        server.scripts = [OK]
        assert (await post())[0] == 200, "by another connection"


async def test_silence_ends_in_time_and_gives_the_connection_up() -> None:
    server = Server(b"H", OK)
    async with posting(server, limit=1) as (post, _, _):
        with pytest.raises(TimeoutError):
            await post(0.5)
        assert (await post())[0] == 200, "the one connection there may be is free"


async def test_no_connection_is_told_apart() -> None:
    server = Server(OK)
    async with posting(server) as (_, url, session):
        assert session.connector is not None
        nowhere = PreparedPost(session.connector, "http://127.0.0.1:9/x", {}, aiohttp.ClientTimeout())
        with pytest.raises(aiohttp.ClientConnectorError):
            await nowhere.send(BODY, lambda _: None, BYTES_MAX)
        with pytest.raises(ValueError, match="end of a line"):
            PreparedPost(session.connector, url, {"X": "a\r\nB: c"}, aiohttp.ClientTimeout())
