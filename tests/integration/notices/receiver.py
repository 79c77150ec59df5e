"""A receiver of notices: a real HTTP server that checks signatures by code of its own, written after the text
of Standard Webhooks 1.0 and sharing nothing with the sender's.
"""

import asyncio
import base64
import contextlib
import json
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from aiohttp import web

TOLERANCE_S = 300
BLOCK = 64


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """RFC 2104, spelled out."""
    padded = (sha256(key).digest() if len(key) > BLOCK else key).ljust(BLOCK, b"\0")
    inner = sha256(bytes(b ^ 0x36 for b in padded) + message).digest()
    return sha256(bytes(b ^ 0x5C for b in padded) + inner).digest()


def verify(secret: str, headers: Any, body: bytes, *, now_s: float) -> None:
    """Raises ValueError unless one of the signatures is of this secret, and the time is near."""
    key = base64.b64decode(secret[len("whsec_") :])
    sent_at = headers["webhook-timestamp"]
    if not sent_at.isdigit() or abs(now_s - int(sent_at)) > TOLERANCE_S:
        raise ValueError(f"signed at {sent_at}, now is {now_s}")
    content = b".".join([headers["webhook-id"].encode(), sent_at.encode(), body])
    wanted = base64.b64encode(hmac_sha256(key, content)).decode()
    given = [part.partition(",") for part in headers["webhook-signature"].split(" ")]
    if not any(version == "v1" and value == wanted for version, _, value in given):
        raise ValueError("no signature fits")


SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass
class Receiver:
    """Answers as told, else 204; keeps what came and verified."""

    secret: str
    url: str = ""
    answers: deque[web.Response | float] = field(default_factory=deque)
    """Of the next requests: a response, or seconds of silence before a 204."""
    got: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """(webhook-id, document) of every verified request, whatever was answered."""
    refused: list[str] = field(default_factory=list)
    """Why a request did not verify."""
    elsewhere: int = 0
    """Requests at the address that a redirect names."""
    clock_s: Any = time.time

    async def post(self, request: web.Request) -> web.Response:
        body = await request.read()
        try:
            verify(self.secret, request.headers, body, now_s=self.clock_s())
        except (ValueError, KeyError) as error:
            self.refused.append(str(error))
            return web.Response(status=401)
        self.got.append((request.headers["webhook-id"], json.loads(body)))
        answer = self.answers.popleft() if self.answers else web.Response(status=204)
        if isinstance(answer, web.Response):
            return answer
        await asyncio.sleep(answer)
        return web.Response(status=204)

    async def other(self, _request: web.Request) -> web.Response:
        self.elsewhere += 1
        return web.Response(status=204)

    @property
    def ids(self) -> list[str]:
        return [notice_id for notice_id, _ in self.got]

    @property
    def types(self) -> list[str]:
        return [document["type"] for _, document in self.got]


@contextlib.asynccontextmanager
async def receiving(secret: str, **options: Any) -> AsyncIterator[Receiver]:
    """A receiver on a free port of the loopback."""
    receiver = Receiver(secret, **options)
    app = web.Application()
    app.add_routes([web.post("/notices", receiver.post), web.route("*", "/elsewhere", receiver.other)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await (site := web.TCPSite(runner, "127.0.0.1", 0)).start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        receiver.url = f"http://127.0.0.1:{port}/notices"
        yield receiver
    finally:
        await runner.cleanup()
