"""An answer that is there as a whole: head and body are bytes that are written at once.

aiohttp copies, encodes and joins the headers of each answer by themselves, which takes longer than most
handlers here. Whoever speaks HTTP/1.0, or ends the connection with the answer, gets one of aiohttp's own
making. May not decide anything.
"""

import functools
import time
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus

from aiohttp import HttpVersion11, web

SECURITY = {
    "Cache-Control": "private, no-cache",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "tallyhook",
    "X-Content-Type-Options": "nosniff",
}
"""Of every answer. No header allows another origin, and none sets a cookie."""
_OF_ALL = "".join(f"{name}: {value}\r\n" for name, value in SECURITY.items())


def whole_answer(
    request: web.BaseRequest, status: int, headers: Mapping[str, str], body: bytes, media_type: str
) -> web.StreamResponse:
    """`headers`: those besides the ones of every answer."""
    if request.version == HttpVersion11 and request.keep_alive:
        return _Whole(
            status, answer_bytes(status, headers, body, media_type, with_body=request.method != "HEAD")
        )
    answer = web.Response(status=status, body=body, content_type=media_type, headers={**SECURITY, **headers})
    if request.version > HttpVersion11:
        # Refused: nothing more of it is read.
        answer.force_close()
    return answer


def answer_bytes(
    status: int, headers: Mapping[str, str], body: bytes, media_type: str, *, with_body: bool = True
) -> bytes:
    """All of an answer in HTTP/1.1 on a connection that stays. Raises ValueError for a header that would end
    before its line does."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        raise ValueError("a header of the answer has a line break")
    head = f"{_first_lines(status, media_type, int(time.time()))}{lines}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body if with_body else head.encode()


@functools.lru_cache(maxsize=100)
def _first_lines(status: int, media_type: str, now_s: int) -> str:
    """What is the same in all answers of a kind within a second."""
    date = formatdate(now_s, usegmt=True)
    status_line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
    return f"{status_line}{_OF_ALL}Content-Type: {media_type}\r\nDate: {date}\r\n"


class _Whole(web.StreamResponse):
    """Without the headers and the state of aiohttp's own, which nobody looks at."""

    def __init__(self, status: int, data: bytes) -> None:
        self._status, self._data = status, data

    @property
    def keep_alive(self) -> bool:
        return True

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write all of it. Raises ConnectionResetError when whoever asked has gone."""
        if isinstance(request, web.Request):
            await request.app.on_response_prepare.send(request, self)
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("whoever asked has gone")
        transport.write(self._data)
        # Whoever sends without reading the answers waits.
        await request.writer.drain()

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write."""
