"""A bound on open connections. aiohttp has none, and a process that runs out of file descriptors cannot reach
its database either (R11).
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from aiohttp import web

from app.address.listening import both_stacks, host_in_url
from app.web.receiver.direct import Connection, DirectConnection, Taker

log = structlog.get_logger(__name__)

BACKLOG = 1024


class Connections:
    """At the bound, a new connection takes the place of the one that has gone longest without an answer.

    Silent and slow sockets are never answered, so they are cut first; a good request is answered within a
    fraction of a second and survives.
    """

    def __init__(
        self, connections_max: int, taker: Taker | None = None, options: Mapping[str, Any] | None = None
    ) -> None:
        """`taker`: of whole deliveries; None where aiohttp takes all. `options` are those of its
        RequestHandler."""
        self._max, self._taker, self._options = connections_max, taker, options or {}
        self._by_last_answer: dict[web.RequestHandler, None] = {}
        self.cut = 0
        """Connections ended to make room."""

    async def note_answer(self, request: web.BaseRequest, _response: web.StreamResponse) -> None:
        """An on_response_prepare signal: this connection is note_answer now."""
        self.note_answered(request.protocol)

    def note_answered(self, handler: web.RequestHandler) -> None:
        """It is the last one that will be cut."""
        if handler in self._by_last_answer:
            del self._by_last_answer[handler]
            self._by_last_answer[handler] = None

    def open_connection(self, server: web.Server) -> web.RequestHandler:
        """The protocol of a new connection; at the bound, another one is cut."""
        if len(server.connections) >= self._max:
            self._cut_longest_unanswered()
        elif len(self._by_last_answer) > 2 * self._max:
            self._forget_closed()
        handler = self._made(server)
        self._by_last_answer[handler] = None
        return handler

    def _made(self, server: web.Server) -> web.RequestHandler:
        if self._taker is None:
            return Connection(server, loop=asyncio.get_running_loop(), **self._options)
        return DirectConnection(server, self._taker, self.note_answered, **self._options)

    def _cut_longest_unanswered(self) -> None:
        while self._by_last_answer:
            oldest = next(iter(self._by_last_answer))
            del self._by_last_answer[oldest]
            if oldest.transport is not None:
                oldest.force_close()
                self.cut += 1
                return

    def _forget_closed(self) -> None:
        for handler in [known for known in self._by_last_answer if known.transport is None]:
            del self._by_last_answer[handler]


class BoundedSite(web.BaseSite):
    """A TCP site whose connections are bounded."""

    def __init__(
        self,
        runner: web.BaseRunner,
        host: str,
        port: int,
        connections: Connections,
        *,
        share_port: bool = False,
    ) -> None:
        super().__init__(runner, backlog=BACKLOG)
        self._share_port = share_port
        self._host = host
        self._requested_port = port
        self._connections = connections

    @property
    def name(self) -> str:
        return f"http://{host_in_url(self._host)}:{self.port}"

    @property
    def port(self) -> int:
        """The bound port, once started."""
        addresses = self._runner.addresses
        return int(addresses[0][1]) if addresses else self._requested_port

    async def start(self) -> None:
        await super().start()
        server = self._runner.server
        if server is None:
            raise RuntimeError("the runner is not set up")
        factory: Callable[[], asyncio.Protocol] = lambda: self._connections.open_connection(server)  # noqa: E731
        loop, backlog = asyncio.get_running_loop(), BACKLOG
        dual_stack = both_stacks(
            self._host, self._requested_port, backlog=backlog, share_port=self._share_port
        )
        if dual_stack is not None:
            self._server = await loop.create_server(factory, sock=dual_stack, backlog=backlog)
            return
        self._server = await loop.create_server(
            factory, self._host, self._requested_port, backlog=backlog, reuse_port=self._share_port or None
        )
