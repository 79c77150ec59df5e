"""Servers of streams on a free port of the loopback, of which no connection is left open."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

TURNS = 5
"""Of the loop, in which a connection that the system has accepted becomes one of the server's."""

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def accepting(serve: Serve, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A port on which each connection is served by a task. At the end all are cut off, also those that came a
    moment ago: asyncio never begins a task that is cancelled before, so that none can close its own."""
    open_ones: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(_served(serve, reader, writer))
        open_ones[task] = writer
        task.add_done_callback(open_ones.pop)

    listening = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=tls)
    try:
        yield int(listening.sockets[0].getsockname()[1])
    finally:
        # A server that is closed forgets what it has accepted and not yet begun, open as it is.
        asyncio.get_running_loop().remove_reader(listening.sockets[0].fileno())
        for _ in range(TURNS):
            await asyncio.sleep(0)
        listening.close()
        ending = dict(open_ones)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        for writer in ending.values():
            writer.transport.abort()
        await asyncio.sleep(0)


async def _served(serve: Serve, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until it is over, or cut off."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        await serve(reader, writer)
