"""One request on its way through the emulator, and the wrapper that turns handlers into answers."""

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from app.emulator.billing.organizations import ApiKey
from app.emulator.data.editions import EDITIONS, Edition
from app.emulator.engine import errors, faults
from app.emulator.engine.emulator import Emulator
from app.emulator.http import gateway
from app.emulator.http.gate import Gate

BODY_BYTES_MAX = 32 * 1024 * 1024
"""500 batch items of 10,000 four-byte characters, and their frames."""


class ConnectionLostError(Exception):
    """The answer is to be lost before its first byte (C-M)."""


class GatewayError(Exception):
    """An intermediary answers instead of us (C-J.2)."""

    def __init__(self, page: gateway.Page) -> None:
        super().__init__(page.status)
        self.page = page


@dataclass(slots=True)
class Exchange:
    """What a handler gets: who asks, what for, and the headers its answer will carry."""

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
        self._requests = 0
        self.injected: Counter[str] = Counter()

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
                self.gate.take(key, endpoint, headers)
                await self._disturb(headers)
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
                return gateway.respond(instead.page)
            if edition.request_id_header:
                headers["X-Request-ID"] = str(uuid.uuid4())
                headers["X-Latency-Ms"] = str(round((time.monotonic() - started) * 1000))
            return answer(status, body, headers)

        return handle

    def _refused(self, edition: Edition, refusal: errors.RefusalError, headers: dict[str, str]) -> bytes:
        rates, seed = self._emulator.options.faults, self._emulator.options.fault_seed
        if refusal.headers:
            headers.update(refusal.headers)
        if rates.string_errors and faults.string_error(rates, seed, self._requests):
            self.injected["string_errors"] += 1
            edition = EDITIONS["legacy"]
        return errors.envelope(edition, refusal, self._emulator.clock.now())

    async def _disturb(self, headers: dict[str, str]) -> None:
        """The request faults of C-M; they come before any effect, so what fails here was never stored."""
        rates = self._emulator.options.faults
        self._requests += 1
        if not rates.disturbs_requests:
            return
        name = faults.request_fault(rates, self._emulator.options.fault_seed, self._requests)
        if name is None:
            return
        self.injected[name] += 1
        if name == "slow":
            await asyncio.sleep(rates.slow_s)
            return
        if name == "cut_connection":
            raise ConnectionLostError
        if name == "html_502":
            raise GatewayError(gateway.BAD_GATEWAY)
        if name == "gateway":
            raise GatewayError(gateway.PAGES[(self.injected[name] - 1) % len(gateway.PAGES)])
        if name == "storm_429":
            headers["X-RateLimit-Remaining"] = "0"
            raise errors.rate_limited()
        if name == "error_500":
            raise errors.internal_error()
        wait = {"Retry-After": str(rates.retry_after_s)}
        raise errors.RefusalError(503, "SERVICE_UNAVAILABLE", "Service unavailable", headers=wait)


def answer(status: int, body: bytes, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    headers = {} if headers is None else headers
    headers["Content-Type"] = "application/json"
    return web.Response(status=status, body=body, headers=headers)


def cut(request: web.Request) -> web.Response:
    """Close the connection before any byte of an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
