"""Reads the body of a delivery within bounds: decoded size, time, and memory of all bodies being read.

aiohttp's own decoding is switched off for the app (see server.py): it would also decode what is only thrown
away after a refusal, which makes a gzip bomb worth its while.
"""

import asyncio
import zlib

from aiohttp import HttpVersion11, StreamReader, web

FREE_BYTES = 64 * 1024
"""The start of each body is not counted against the budget: deliveries of the usual 10 to 30 KB are read
even when somebody occupies the budget with large slow ones. Connections are bounded, so this is too."""


class BodyRefused(Exception):  # noqa: N818
    """The body cannot be taken; answer with `status`."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class ReadBudget:
    """Bytes that all bodies being read may hold together, beyond FREE_BYTES each."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.used_bytes = 0

    def take(self, size: int) -> None:
        """Raises BodyRefused when there is no room; then nothing was taken."""
        if self.used_bytes + size > self._bytes_max:
            raise BodyRefused(503, "full")
        self.used_bytes += size

    def give_back(self, size: int) -> None:
        """Room for others."""
        self.used_bytes -= size


async def read_body(request: web.Request, budget: ReadBudget, *, bytes_max: int, timeout_s: float) -> bytes:
    """The decoded body. Raises BodyRefused with 400, 408, 413, 415 or 503; reads no further then."""
    if (request.content_length or 0) > bytes_max:
        raise BodyRefused(413, "oversize")
    decode = _decoder(request.headers.get("Content-Encoding", ""))
    try:
        if decode is None and request.content.is_eof():
            # The usual case: all of it came with the head, and no timer is needed.
            return _within(request.content.read_nowait(), bytes_max)
        async with asyncio.timeout(timeout_s):
            return await _read_stream(request.content, decode, budget, bytes_max)
    except TimeoutError:
        raise BodyRefused(408, "read_timeout") from None
    except ConnectionError:
        raise BodyRefused(400, "disconnected") from None
    except (web.RequestPayloadError, zlib.error):
        raise BodyRefused(400, "bad_body") from None


async def expect_continue(request: web.Request) -> web.Response | None:
    """Answers an Expect header: 100 Continue, or 417. For aiohttp's own handler, which fails with a 500 on a
    header that is not UTF-8."""
    if request.version < HttpVersion11:
        return None
    if request.headers.get("Expect", "").lower() != "100-continue":
        return web.Response(status=417)
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    # The answer proper has not begun.
    request.writer.output_size = 0
    return None


class _Inflate:
    """Decodes one gzip or deflate stream, never further than it is asked to."""

    def __init__(self, wbits: int) -> None:
        self._stream = zlib.decompressobj(wbits)

    def feed(self, data: bytes, size_max: int) -> bytes:
        """What `data` decodes to; more than `size_max` bytes raise BodyRefused."""
        decoded = self._stream.decompress(data, size_max + 1)
        if self._stream.unused_data:
            raise BodyRefused(400, "bad_body")
        return _within(decoded, size_max)

    def finish(self) -> None:
        if not self._stream.eof:
            raise BodyRefused(400, "bad_body")


def _decoder(encoding: str) -> _Inflate | None:
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip":
            return _Inflate(16 + zlib.MAX_WBITS)
        case "deflate":
            return _Inflate(zlib.MAX_WBITS)
        case _:
            raise BodyRefused(415, "unknown_encoding")


async def _read_stream(
    content: StreamReader, decode: _Inflate | None, budget: ReadBudget, bytes_max: int
) -> bytes:
    body = bytearray()
    taken = 0
    try:
        while chunk := await content.readany():
            room = bytes_max - len(body)
            body += decode.feed(chunk, room) if decode else _within(chunk, room)
            more = len(body) - FREE_BYTES - taken
            if more > 0:
                budget.take(more)
                taken += more
    finally:
        budget.give_back(taken)
    if decode and body:
        decode.finish()
    return bytes(body)


def _within(data: bytes, size_max: int) -> bytes:
    if len(data) > size_max:
        raise BodyRefused(413, "oversize")
    return data
