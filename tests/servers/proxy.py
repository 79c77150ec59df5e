"""A TCP proxy before a server: it can fall silent while it goes on to accept, and be turned to another
server, as an address is at a fail-over. Connections that stand keep the server that they were made to.
"""

import asyncio
import contextlib
import threading
from types import TracebackType
from typing import Self

import sqlalchemy as sa

from tests.servers.accepting import accepting

HOST = "127.0.0.1"
CHUNK_BYTES = 65_536
STORED_NEW = b"SELECT 0\0"
"""In PostgreSQL's answer to deliveries that are stored, none of which was there before."""


class Proxy:
    """Forwards connections from `port` to a local server, in a thread of its own; a context manager."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        """Of connections to come."""
        self.silent = False
        """Whatever either side says is swallowed meanwhile; new connections are accepted."""
        self.lost_answer: bytes | None = None
        """The next answer that holds these is lost, and its connection with it; None once it was."""
        self.port = 0
        self.accepted = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None and self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with accepting(self._accept) as self.port:
            self._ready.set()
            await self._stop.wait()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        other: asyncio.StreamWriter | None = None
        try:
            back, other = await asyncio.open_connection(HOST, self.target_port)
            ways = [
                asyncio.ensure_future(self._pump(reader, other)),
                asyncio.ensure_future(self._pump(back, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
        finally:
            for end in (writer, other):
                if end is not None:
                    end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                if self.lost_answer is not None and self.lost_answer in chunk:
                    self.lost_answer = None
                    return
                if not self.silent:
                    writer.write(chunk)
                    await writer.drain()


def through(proxy: Proxy, url: str) -> str:
    """A database's URL by way of the proxy."""
    return sa.make_url(url).set(host=HOST, port=proxy.port).render_as_string(hide_password=False)
