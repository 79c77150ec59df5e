"""Who may steer the emulator: on loopback everybody, elsewhere whoever has the token.

`/_emulator` shows every key and moves clock, prices and credits, so no network should reach it unasked."""

import hmac
import secrets
from ipaddress import ip_address

from aiohttp import web

from app.emulator.http.exchange import RawHandler, answer

REFUSED = (
    b'{"error":"/_emulator needs the control token that the emulator printed at its start: '
    b'send it as Authorization: Bearer TOKEN"}'
)


def token_for(host: str, given: str | None) -> str | None:
    """The token that control requests need when the emulator listens on `host`; None: none. Elsewhere than on
    loopback one is made where none is given. A name counts as elsewhere, whatever it resolves to."""
    if given is None and not _is_loopback(host):
        return secrets.token_urlsafe(24)
    return given


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def guarded(handler: RawHandler, token: str | None) -> RawHandler:
    """The handler, for whoever sends the token; as it is where there is none."""
    if token is None:
        return handler
    expected = f"Bearer {token}".encode()

    async def handle(request: web.Request) -> web.StreamResponse:
        sent = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(sent, expected):
            return answer(401, REFUSED)
        return await handler(request)

    return handle
