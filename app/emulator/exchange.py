"""One request on its way through the emulator, and the wrapper that turns handlers into answers."""

from __future__ import annotations

import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from aiohttp import web

from . import errors
from .engine import Emulator
from .gate import Gate
from .organizations import ApiKey

BODY_BYTES_MAX: Final = 32 * 1024 * 1024  # 500 batch items of 10,000 four-byte characters, and their frames


class ConnectionLostError(Exception):
    """The request was carried out, and its answer is to be lost before the first byte (C-M)."""


@dataclass(slots=True)
class Exchange:
    """What a handler gets: who asks, what for, and the headers its answer will carry."""

    request: web.Request
    key: ApiKey
    headers: dict[str, str] = field(default_factory=dict)

    async def json(self, status: int) -> Any:
        """The decoded body; anything that is not JSON is a validation error of this status."""
        try:
            raw = await self.request.read()
            return msgspec.json.decode(raw)
        except web.HTTPRequestEntityTooLarge:
            problem = "Request body is too large"
        except (msgspec.DecodeError, UnicodeDecodeError):
            problem = "Request body is not valid JSON"
        raise errors.validation_failed(status, [{"field": "", "message": problem}])


Handler = Callable[[Exchange], Awaitable[bytes]]


def answer(status: int, body: bytes, headers: dict[str, str]) -> web.Response:
    """A JSON answer."""
    headers["Content-Type"] = "application/json"
    return web.Response(status=status, body=body, headers=headers)


def guarded(
    emulator: Emulator, gate: Gate, endpoint: str, handler: Handler
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Authentication, rate limit and the error envelope around a handler (C-D.4, C-J.1)."""

    async def handle(request: web.Request) -> web.StreamResponse:
        started = time.monotonic()
        edition = emulator.edition
        headers: dict[str, str] = {}
        status = 200
        try:
            key = gate.authenticate(request.headers.get("Authorization"))
            edition = key.edition
            exchange = Exchange(request, key, headers)
            gate.take(key, endpoint, headers)
            body = await handler(exchange)
        except errors.RefusalError as refusal:
            status = refusal.status
            body = errors.envelope(edition, refusal, emulator.clock.now())
            if refusal.headers:
                headers.update(refusal.headers)
        except ConnectionLostError:
            return cut(request)
        if edition.request_id_header:
            headers["X-Request-ID"] = str(uuid.uuid4())
            headers["X-Latency-Ms"] = str(round((time.monotonic() - started) * 1000))
        return answer(status, body, headers)

    return handle


def cut(request: web.Request) -> web.Response:
    """Close the connection before any byte of an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
