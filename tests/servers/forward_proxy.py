"""A small forward proxy: CONNECT, and requests of whole URLs. Every name leads to this machine, so that tests
may reach a server under a name that is not this machine's."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.servers.accepting import accepting
from tests.servers.tls import relay


@dataclass
class ForwardProxy:
    """What runs, and what it was asked for."""

    port: int = 0
    login: str | None = None
    """USER:PASSWORD that it demands; 407 without."""
    asked: list[str] = field(default_factory=list)
    """First lines of the requests that it passed on."""
    heads: list[str] = field(default_factory=list)
    """All that it read of a request for a tunnel."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")
        method, target, _ = lines[0].split(" ")
        given = [line.partition(": ")[2] for line in lines if line.lower().startswith("proxy-authorization:")]
        if self.login and given != [f"Basic {base64.b64encode(self.login.encode()).decode()}"]:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        self.asked.append(lines[0])
        authority = target if method == "CONNECT" else target.split("/")[2]
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", int(authority.rpartition(":")[2]))
        if method == "CONNECT":
            self.heads.append(head)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            lines[0] = f"{method} /{target.split('/', 3)[3]} HTTP/1.1"
            kept = [line for line in lines if not line.lower().startswith(("proxy-", "connection:"))]
            kept.insert(1, "Connection: close")
            to_writer.write("\r\n".join(kept).encode())
        try:
            await relay((reader, writer), (to_reader, to_writer))
        finally:
            to_writer.close()


@contextlib.asynccontextmanager
async def forward_proxy(*, login: str | None = None) -> AsyncIterator[ForwardProxy]:
    """One that listens on this machine."""
    proxy = ForwardProxy(login=login)
    async with accepting(proxy.serve) as proxy.port:
        yield proxy
