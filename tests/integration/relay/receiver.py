"""A receiver of results: a real HTTP server that verifies with the package that Standard Webhooks publishes,
or as the provider's documentation says, by code that shares nothing with the sender's.
"""

import asyncio
import contextlib
import hashlib
import hmac
import json
from collections import Counter, deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook


@dataclass
class Receiver:
    """Answers as told, else 204; keeps what came."""

    url: str = ""
    answers: deque[web.Response | float] = field(default_factory=deque)
    """Of the next posts: a response, or seconds of silence before a 204."""
    always: int | float = 204
    """Of all others: a status, or seconds of silence."""
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    elsewhere: int = 0
    """Requests at the address that a redirect names."""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """No post is answered while it is cleared."""
    under_way_max: int = 0
    _under_way: int = 0
    _secret: str = ""
    _verified: list[Any] = field(default_factory=list)
    """Of the first of `got`."""

    def __post_init__(self) -> None:
        self.gate.set()

    async def post(self, request: web.Request) -> web.StreamResponse:
        self._under_way += 1
        self.under_way_max = max(self.under_way_max, self._under_way)
        try:
            body = await request.read()
            self.got.append(({k.lower(): v for k, v in request.headers.items()}, body))
            if self._secret:
                self.verify_as_they_come(self._secret)
            await self.gate.wait()
            answer = self.answers.popleft() if self.answers else self.always
            if isinstance(answer, web.Response):
                return answer
            if isinstance(answer, float):
                await asyncio.sleep(answer)
                return web.Response(status=204)
            return web.Response(status=answer)
        finally:
            self._under_way -= 1

    async def other(self, _request: web.Request) -> web.Response:
        self.elsewhere += 1
        return web.Response(status=204)

    def documents(self) -> list[Any]:
        return [json.loads(body) for _, body in self.got]

    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.got]

    def tasks(self, secret: str) -> Counter[str]:
        """How often each task came, each time verified."""
        named = (document["data"].get("task") for document in self.verified(secret))
        return Counter(task for task in named if task is not None)

    def verified(self, secret: str) -> list[Any]:
        """What came, each verified with the published package, whose clock is this machine's: so the test's
        must be too."""
        return [*self._verified, *self._rest(secret)]

    def verify_as_they_come(self, secret: str) -> None:
        """From now on: the package refuses what is older than five minutes, and a run may take longer."""
        self._secret = secret
        self._verified += self._rest(secret)

    def _rest(self, secret: str) -> list[Any]:
        webhook = Webhook(secret)
        return [webhook.verify(body, headers) for headers, body in self.got[len(self._verified) :]]


def verify_as_provider(secret: str, headers: dict[str, str], body: bytes) -> None:
    """C-I.3: the whole secret is the key."""
    signed = headers["x-cloro-timestamp"].encode() + b"." + body
    wanted = "v1=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    assert hmac.compare_digest(wanted, headers["x-cloro-signature"])


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver on a free port of the loopback."""
    receiver = Receiver()
    app = web.Application(client_max_size=32 << 20)
    app.add_routes([web.post("/results", receiver.post), web.route("*", "/elsewhere", receiver.other)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await (site := web.TCPSite(runner, "127.0.0.1", 0)).start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        receiver.url = f"http://127.0.0.1:{port}/results"
        yield receiver
    finally:
        await runner.cleanup()
