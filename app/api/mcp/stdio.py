"""Tools for agents that start this process themselves, and talk by its standard input and output. Imported
late, as the protocol is.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import IO, Any

from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from app.api.mcp.asking import Asking, Perform
from app.api.mcp.server import agent_server
from app.api.route import Caller
from app.domain.task import new_id
from app.ports import Clock
from app.waiting import set_within

LINE_BYTES_MAX = 1 << 20
LAST_ANSWERS_S = 30.0
_UNREADABLE = "\n"


class Wire:
    """Standard input and output, a message a line. Input ends when every request of it was answered: whoever
    pipes requests in gets all answers."""

    def __init__(self, reader: asyncio.StreamReader, file: IO[bytes]) -> None:
        self._reader = reader
        self._file = file
        self._open: set[str | int] = set()
        self._all_answered = asyncio.Event()
        self._all_answered.set()

    async def __aiter__(self) -> AsyncIterator[str]:
        while True:
            try:
                line = await self._reader.readline()
            except ValueError:
                # Longer than a line may be. What follows of it is no message either.
                yield _UNREADABLE
                continue
            if not line:
                await set_within(self._all_answered, LAST_ANSWERS_S)
                return
            if (request_id := _id_in(line, is_request=True)) is not None:
                self._open.add(request_id)
                self._all_answered.clear()
            yield line.decode(errors="replace")

    async def write(self, text: str) -> None:
        """By a descriptor of its own: what else is printed goes to standard error."""
        await asyncio.to_thread(self._file.write, text.encode())
        self._open.discard(_id_in(text, is_request=False) or "")

    async def flush(self) -> None:
        await asyncio.to_thread(self._file.flush)
        if not self._open:
            self._all_answered.set()


def _id_in(line: str | bytes, *, is_request: bool) -> str | int | None:
    """Of a request, or of an answer."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or ("method" in message) != is_request:
        return None
    found = message.get("id")
    return found if isinstance(found, str | int) else None


async def serve_stdio(perform: Perform, caller: Caller, clock: Clock, stop: asyncio.Event) -> None:
    """Serve one agent until its input ends, or `stop`."""
    server = agent_server(perform, lambda _: Asking(caller, new_id(clock())))
    with os.fdopen(os.dup(1), "wb") as wire:
        os.dup2(2, 1)
        try:
            serving = asyncio.create_task(_serve(server, wire), name="agent")
            stopping = asyncio.create_task(stop.wait(), name="stop")
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            for task in (serving, stopping):
                task.cancel()
            await asyncio.gather(stopping, return_exceptions=True)
            await _ended(serving)
        finally:
            os.dup2(wire.fileno(), 1)


async def _ended(serving: "asyncio.Task[None]") -> None:
    try:
        await serving
    except asyncio.CancelledError:
        return
    except BrokenPipeError:
        return  # the agent has left


async def _serve(server: Server[Any], file: IO[bytes]) -> None:
    wire: Any = Wire(await _input(), file)
    async with stdio_server(wire, wire) as (read, write):
        await server.run(read, write, server.create_initialization_options())


async def _input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    file = os.fdopen(os.dup(0), "rb", buffering=0)
    try:
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
    except ValueError:  # a file, which is read at once
        with file:
            reader.feed_data(file.read())
        reader.feed_eof()
    return reader
