"""Faults of requests (C-M): refusals, cut connections, and the pages of a proxy, firewall or portal that
answers in the provider's place (C-J.2). All come before any effect: what fails here was never stored."""

import asyncio
from collections import Counter
from typing import NamedTuple

from aiohttp import web

from app.emulator.engine import errors, faults
from app.emulator.engine.options import Options


class Page(NamedTuple):
    """One answer that never came from the provider."""

    status: int
    body: bytes = b""
    content_type: str = "text/html"
    location: str | None = None

    def response(self) -> web.Response:
        """The answer, without any header of the provider's."""
        headers = {} if self.location is None else {"Location": self.location}
        return web.Response(
            status=self.status, body=self.body, content_type=self.content_type, headers=headers
        )


def _html(title: str) -> bytes:
    return f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>".encode()


BAD_GATEWAY = Page(502, _html("502 Bad Gateway"))
PAGES = (
    BAD_GATEWAY,
    Page(404, _html("404 Not Found")),
    Page(405, _html("405 Not Allowed")),
    Page(400, _html("400 Request Header Or Cookie Too Large")),
    Page(413, _html("413 Request Entity Too Large")),
    Page(431),
    Page(401, _html("401 Authorization Required")),
    Page(403, _html("Attention Required! Access denied")),
    Page(403, b'{"message":"Forbidden"}', "application/json"),
    Page(404, b'{"message":"no Route matched with those values"}', "application/json"),
    Page(429, _html("429 Too Many Requests")),
    Page(302, location="/login"),
    Page(200, _html("Accept the terms of this network")),
    Page(504, _html("504 Gateway Time-out")),
)
"""As nginx, Cloudflare, AWS API Gateway, Kong and captive portals send them."""


class ConnectionLostError(Exception):
    """The answer is to be lost before its first byte (C-M)."""


class GatewayError(Exception):
    """An intermediary answers instead of the provider (C-J.2)."""

    def __init__(self, page: Page) -> None:
        super().__init__(page.status)
        self.page = page


class RequestFaults:
    """Draws the fault of each request to /v1, and counts what it injected."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._requests = 0
        self.injected: Counter[str] = Counter()

    def makes_string_error(self) -> bool:
        """Whether the refusal of the present request takes the oldest layer's form."""
        rates, seed = self._options.faults, self._options.fault_seed
        if not (rates.string_errors and faults.string_error(rates, seed, self._requests)):
            return False
        self.injected["string_errors"] += 1
        return True

    async def disturb(self, headers: dict[str, str]) -> None:
        """Let one request meet its fault, if it has one.

        Raises ConnectionLostError, GatewayError or RefusalError for all of them but `slow`."""
        rates = self._options.faults
        self._requests += 1
        if not rates.disturbs_requests:
            return
        name = faults.request_fault(rates, self._options.fault_seed, self._requests)
        if name is None:
            return
        self.injected[name] += 1
        if name == "slow":
            await asyncio.sleep(rates.slow_s)
            return
        if name == "cut_connection":
            raise ConnectionLostError
        if name == "html_502":
            raise GatewayError(BAD_GATEWAY)
        if name == "gateway":
            raise GatewayError(PAGES[(self.injected[name] - 1) % len(PAGES)])
        if name == "storm_429":
            headers["X-RateLimit-Remaining"] = "0"
            raise errors.rate_limited()
        if name == "error_500":
            raise errors.internal_error()
        wait = {"Retry-After": str(rates.retry_after_s)}
        raise errors.RefusalError(503, "SERVICE_UNAVAILABLE", "Service unavailable", headers=wait)


def cut(request: web.Request) -> web.Response:
    """Close the connection before any byte of an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
