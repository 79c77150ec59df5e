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


class _Acknowledgement(web.StreamResponse):
    """Holds nothing of a request, so there is one for all of them."""

    def __init__(self) -> None:
        super().__init__()
        self._made_s = 0
        self._bytes = b""

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
        transport.write(self._bytes_now())
        # Whoever sends without reading the answers waits.
        await request.writer.drain()

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write."""

    def _bytes_now(self) -> bytes:
        now_s = int(time.time())
        if now_s != self._made_s:
            lines = (
                "HTTP/1.1 200 OK",
                f"Content-Type: {_TYPE}",
                f"Content-Length: {len(BODY)}",
                f"Date: {formatdate(now_s, usegmt=True)}",
                f"Server: {SERVER_SOFTWARE}",
            )
            self._bytes, self._made_s = "\r\n".join([*lines, "", ""]).encode() + BODY, now_s
        return self._bytes


_acknowledgement = _Acknowledgement()
