"""Whatever arrives, the receiver answers with a status of its own choice: never a 5xx but 503, never an
unhandled exception.
"""

import asyncio
import logging
from collections.abc import Iterator

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.web.server import create_app
from tests.clock import SteppedClock
from tests.integration.web.receiving import LIMITS, PATH, SECRET, HeldStore, WakeDouble, signed

NAMES = [
    "X-Cloro-Signature",
    "X-Cloro-Timestamp",
    "X-Cloro-Webhook-Id",
    "Content-Encoding",
    "Content-Type",
    "Expect",
    "Accept",
    "Upgrade",
]
VALUES = st.one_of(
    st.sampled_from(
        [b"gzip", b"deflate", b"br", b"identity", b"chunked", b"100-continue", b"websocket", b"v1="]
    ),
    st.binary(max_size=60).map(lambda raw: raw.translate(None, b"\r\n\0")),
    st.integers(-(10**15), 10**15).map(lambda number: str(number).encode()),
)
HEADERS = st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=6)


class Server:
    """A receiver on a loop that runs only while it is asked something."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.store = HeldStore()
        self.clock = SteppedClock()
        self.app_runner: web.AppRunner | None = None
        self.port = self.runner.run(self._start())

    async def _start(self) -> int:
        self.store.gate.set()
        app = create_app(self.store, WakeDouble(), secrets=(SECRET,), limits=LIMITS, clock=self.clock)
        self.app_runner = web.AppRunner(app)
        await self.app_runner.setup()
        site = web.TCPSite(self.app_runner, "127.0.0.1", 0)
        await site.start()
        return site.port

    def ask(self, request: bytes, *, complete: bool = True) -> bytes:
        """The first line of the answer; empty when the connection was closed without one. A request that is
        not `complete` is followed by an end of file, upon which aiohttp does not answer any more."""
        return self.runner.run(self._ask(request, complete))

    async def _ask(self, request: bytes, complete: bool) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            if not complete:
                writer.write_eof()
            line = await reader.readline()
            return await self._after_continue(reader) if b" 100 " in line else line
        except ConnectionResetError:
            return b""
        finally:
            writer.transport.abort()

    async def _after_continue(self, reader: asyncio.StreamReader) -> bytes:
        await reader.readline()
        return await reader.readline()

    def close(self) -> None:
        assert self.app_runner is not None
        self.runner.run(self.app_runner.cleanup())
        self.runner.close()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


def is_fine(line: bytes) -> bool:
    status = line.split(b" ")[1:2]
    return line == b"" or (status != [] and (status[0] == b"503" or status[0][:1] in b"24"))


many = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@many
@given(body=st.binary(max_size=300), headers=HEADERS)
def test_any_delivery(
    server: Server, caplog: pytest.LogCaptureFixture, body: bytes, headers: list[tuple[str, bytes]]
) -> None:
    lines = [b"%s: %s" % (name.encode(), value) for name, value in headers]
    head = [b"POST " + PATH.encode() + b" HTTP/1.1", b"Host: x", b"Content-Length: %d" % len(body), *lines]
    before = len(server.store.committed)
    line = server.ask(b"\r\n".join(head) + b"\r\n\r\n" + body)
    assert is_fine(line), line
    assert len(server.store.committed) == before
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []


@many
@given(body=st.binary(max_size=300) | st.binary(max_size=50).map(lambda raw: b'{"a":"' + raw + b'"}'))
def test_any_signed_body(server: Server, caplog: pytest.LogCaptureFixture, body: bytes) -> None:
    headers = "".join(f"{k}: {v}\r\n" for k, v in signed(body, server.clock() // 1000).items())
    before = len(server.store.committed)
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    line = server.ask(head.encode() + body)
    assert line[9:12] in (b"200", b"400"), line
    assert len(server.store.committed) - before == (line[9:12] == b"200")
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []


@many
@given(raw=st.binary(min_size=1, max_size=300))
def test_any_bytes(server: Server, caplog: pytest.LogCaptureFixture, raw: bytes) -> None:
    line = server.ask(raw, complete=False)
    assert is_fine(line), line
    assert server.store.committed == []
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []
