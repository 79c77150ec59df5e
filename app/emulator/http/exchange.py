"""One request on its way through the emulator, and the wrapper that turns handlers into answers."""

import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from app.emulator.billing.organizations import ApiKey
from app.emulator.data.editions import EDITIONS, Edition
from app.emulator.engine import errors
from app.emulator.engine.emulator import Emulator
from app.emulator.http.gate import Gate
from app.emulator.http.request_faults import ConnectionLostError, GatewayError, RequestFaults, cut

BODY_BYTES_MAX = 32 * 1024 * 1024
"""500 batch items of 10,000 four-byte characters, and their frames."""


@dataclass(slots=True)
class Exchange:
    """What a handler gets: the request, its key, and the headers its answer will carry."""

    request: web.Request
    key: ApiKey
    headers: dict[str, str] = field(default_factory=dict)

    async def json(self, status: int) -> Any:
        """The decoded body; anything that is not JSON is a validation error of this status."""
        try:
            return msgspec.json.decode(await self.request.read())
        except web.HTTPRequestEntityTooLarge:
            problem = "Request body is too large"
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            problem = "Request body is not valid JSON"
        raise errors.validation_failed(status, [{"field": "", "message": problem}])


Handler = Callable[[Exchange], Awaitable[bytes]]
RawHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Front:
    """What every request to /v1 goes through: gate, request faults, handler, error envelope (C-D.4,
    C-J.1)."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self.gate = Gate(emulator)
        self.faults = RequestFaults(emulator.options)

    def guard(self, endpoint: str, handler: Handler) -> RawHandler:
        """An aiohttp handler for one endpoint of the contract."""
        emulator, monitor = self._emulator, endpoint.startswith("monitor/")

        async def handle(request: web.Request) -> web.StreamResponse:
            started = time.monotonic()
            edition = emulator.edition
            headers: dict[str, str] = {}
            status = 200
            key = None
            try:
                key = self.gate.authenticate(request.headers.get("Authorization"))
                edition = key.edition
                self.gate.count_request(key, endpoint, headers)
                await self.faults.disturb(headers)
                body = await handler(Exchange(request, key, headers))
            except errors.RefusalError as refusal:
                status = refusal.status
                body = self._refused(edition, refusal, headers)
                if monitor and status == 429 and key is not None and edition.credit_headers_on_429:
                    headers["X-Credits-Remaining"] = str(key.organization.account.reported)
                    headers["X-Credits-Charged"] = "0"
            except ConnectionLostError:
                return cut(request)
            except GatewayError as instead:
                return instead.page.response()
            if edition.request_id_header:
                headers["X-Request-ID"] = str(uuid.uuid4())
                headers["X-Latency-Ms"] = str(round((time.monotonic() - started) * 1000))
            return answer(status, body, headers)

        return handle

    def _refused(self, edition: Edition, refusal: errors.RefusalError, headers: dict[str, str]) -> bytes:
        if refusal.headers:
            headers.update(refusal.headers)
        if self.faults.makes_string_error():
            edition = EDITIONS["legacy"]
        return errors.envelope(edition, refusal, self._emulator.clock.now())


def answer(status: int, body: bytes, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    headers = {} if headers is None else headers
    headers["Content-Type"] = "application/json"
    return web.Response(status=status, body=body, headers=headers)
