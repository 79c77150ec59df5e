"""The answer to a delivery that was committed, as bytes that are made once a second.

Every acknowledgement is the same but for its date. aiohttp would build, encode and join the headers of each:
10 µs. May not decide anything; who gets it is decided in webhook.py.
"""

import time
from email.utils import formatdate

from aiohttp import HttpVersion11, web
from aiohttp.http import SERVER_SOFTWARE

BODY = b'{"received": true}'
_TYPE = "application/json"


def acknowledge(request: web.Request) -> web.StreamResponse:
    """The 200 for `request`; of aiohttp's own making in HTTP/1.0 and on a connection that ends with it."""
    if request.version == HttpVersion11 and request.keep_alive:
        return _acknowledgement
    return web.Response(body=BODY, content_type=_TYPE)


def acknowledgement_bytes() -> bytes:
    """All of the 200, head and body, of HTTP/1.1 on a connection that stays."""
    now_s = int(time.time())
    return _bytes if now_s == _made_s else _make(now_s)


class _Acknowledgement(web.StreamResponse):
    """Holds nothing of a request, so there is one for all of them."""

    @property
    def keep_alive(self) -> bool:
        return True

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write all of it. Raises ConnectionResetError when the sender has gone."""
        if isinstance(request, web.Request):
            await request.app.on_response_prepare.send(request, self)
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the sender has gone")
        transport.write(acknowledgement_bytes())
        # Whoever sends without reading the answers waits.
        await request.writer.drain()

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write."""


def _make(now_s: int) -> bytes:
    global _made_s, _bytes
    lines = (
        "HTTP/1.1 200 OK",
        f"Content-Type: {_TYPE}",
        f"Content-Length: {len(BODY)}",
        f"Date: {formatdate(now_s, usegmt=True)}",
        f"Server: {SERVER_SOFTWARE}",
    )
    _bytes, _made_s = "\r\n".join([*lines, "", ""]).encode() + BODY, now_s
    return _bytes


_acknowledgement = _Acknowledgement()
_made_s, _bytes = 0, b""
