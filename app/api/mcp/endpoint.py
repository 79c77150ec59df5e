"""/mcp: tools for agents over HTTP. The package of the protocol takes a second to import and is an extra, so
it is loaded when the first agent comes.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import TYPE_CHECKING

from aiohttp import web

from app.api.mcp.asking import Asking, Perform
from app.api.mcp.hosts import refuse_foreign
from app.api.problems import METHOD_NOT_ALLOWED, NOT_INSTALLED, UNAVAILABLE, Problem
from app.api.repeated import refuse_repeated_members
from app.api.route import Caller

if TYPE_CHECKING:
    from app.api.mcp.server import Running

REMEDY = "install it on the server: pip install 'tallyhook[mcp]'"


class AgentEndpoint:
    """Of one process."""

    def __init__(self, perform: Perform, names: tuple[str, ...]) -> None:
        """`names`: by which agents reach this machine, besides its addresses."""
        self._perform = perform
        self._names = names
        self._running: Running | None = None
        self._serving: asyncio.Task[None] | None = None
        self._started: asyncio.Future[Running] | None = None
        self._stop = asyncio.Event()

    async def answer(
        self, request: web.Request, read: Callable[[], Awaitable[bytes]], caller: Caller, request_id: str
    ) -> web.Response:
        """One message of an agent's. Raises Problem."""
        refuse_foreign(request.headers, self._names)
        if request.method != "POST":
            # Nothing is told to an agent that did not ask, so there is no stream to listen to.
            allow = {"Allow": "POST"}
            raise Problem(METHOD_NOT_ALLOWED, "use one of: POST", headers=allow)
        body = await read()
        with contextlib.suppress(ValueError):  # the protocol has its own words for what is no JSON
            refuse_repeated_members(body)
        running = await self._run()
        asking = Asking(caller, request_id, lambda: request.transport is None)
        return await running.answer(request, body, asking)

    async def close(self) -> None:
        """End the calls that go on."""
        self._stop.set()
        if self._serving is not None:
            await asyncio.gather(self._serving, return_exceptions=True)

    async def _run(self) -> "Running":
        if self._started is None or (self._started.done() and self._started.exception() is not None):
            self._started = asyncio.get_running_loop().create_future()
            self._serving = asyncio.create_task(self._serve(self._started), name="agents")
        return await asyncio.shield(self._started)

    async def _serve(self, started: "asyncio.Future[Running]") -> None:
        """In a task of its own: what it opens must be closed where it was opened."""
        try:
            module = await asyncio.to_thread(_load)
            async with module.running(self._perform) as running:
                started.set_result(running)
                await self._stop.wait()
        except Exception as error:
            if started.done():
                raise
            started.set_exception(error)
        finally:
            with contextlib.suppress(asyncio.InvalidStateError):
                started.set_exception(Problem(UNAVAILABLE, "the process is ending: ask another one"))


def _load() -> ModuleType:
    """Raises Problem where the extra is missing."""
    try:
        from app.api.mcp import server
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "mcp":
            raise
        problem = Problem(NOT_INSTALLED, f"tools for agents need the extra mcp: {REMEDY}")
    else:
        return server
    raise problem
