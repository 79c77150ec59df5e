"""Reads the body of a delivery within bounds: size, time, and memory of all bodies not verified yet.

A body is taken as it is sent. The provider names no content coding and signs the bytes of the body (C-I.3);
a compressed one would have to be inflated for whoever sends it before it could be verified, and 16 KB may
hold 17 MB. `has_content_coding` tells before it is read, and aiohttp's own decoding is off (server.py).
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from aiohttp import HttpVersion11, StreamReader, web

FREE_BYTES = 64 * 1024
"""The start of each body is not counted against the budget: deliveries of the usual 10 to 30 KB are read
even when large slow ones occupy the budget. Connections are bounded, so this is too."""


class BodyRefused(Exception):  # noqa: N818
    """The body cannot be taken; answer with `status`."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class ReadBudget:
    """Bytes that all bodies not yet verified may hold together, beyond FREE_BYTES each."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.used_bytes = 0

    def reserve(self, size: int) -> None:
        """Raises BodyRefused when there is no room; then nothing is reserved."""
        if self.used_bytes + size > self._bytes_max:
            raise BodyRefused(503, "full")
        self.used_bytes += size

    def release(self, size: int) -> None:
        """Make room for others."""
        self.used_bytes -= size

    @contextmanager
    def reserved(self, size: int) -> Iterator[None]:
        """Reserve for a body that was just read, until it is verified. Nothing else was reserved in between,
        so there is room."""
        beyond = max(size - FREE_BYTES, 0)
        self.used_bytes += beyond
        try:
            yield
        finally:
            self.used_bytes -= beyond


def has_content_coding(headers: Mapping[str, str]) -> bool:
    """Whether the body is announced in a content coding, which is answered with 415."""
    return headers.get("Content-Encoding", "").strip().lower() not in ("", "identity")


async def read_body(request: web.Request, budget: ReadBudget, *, bytes_max: int, timeout_s: float) -> bytes:
    """The body as it was sent. Raises BodyRefused with 400, 408, 413 or 503; reads no further then."""
    if (request.content_length or 0) > bytes_max:
        raise BodyRefused(413, "oversize")
    try:
        if request.content.is_eof():
            # The usual case: all of it came with the head, and no timer is needed.
            return _at_most(request.content.read_nowait(), bytes_max)
        async with asyncio.timeout(timeout_s):
            return await _read_stream(request.content, budget, bytes_max)
    except TimeoutError:
        raise BodyRefused(408, "read_timeout") from None
    except ConnectionError:
        raise BodyRefused(400, "disconnected") from None
    except web.RequestPayloadError:
        raise BodyRefused(400, "bad_body") from None


def has_long_unread_rest(request: web.BaseRequest) -> bool:
    """Whether much of the body may still come. A body that was announced short is on its way already, and is
    read to keep the connection."""
    is_short = request.content_length is not None and request.content_length <= FREE_BYTES
    return not is_short and not request.content.is_eof()


async def answer_and_cut(
    request: web.BaseRequest, response: web.StreamResponse, *, lingering_s: float
) -> None:
    """Answer, and end the connection without reading the rest of the body.

    Nothing more is read from the socket; its sender has `lingering_s` to see the answer. aiohttp alone would
    go on reading for as long.
    """
    response.force_close()
    with suppress(ConnectionError):
        await response.prepare(request)
        await response.write_eof()
        if request.transport is not None:
            request.transport.pause_reading()
            await asyncio.sleep(lingering_s)
    request.protocol.force_close()


async def answer_expect(request: web.Request) -> web.Response | None:
    """Answer an Expect header: 100 Continue, or 417. aiohttp's own handler fails with a 500 on a header that
    is not UTF-8."""
    if request.version < HttpVersion11:
        return None
    if request.headers.get("Expect", "").lower() != "100-continue":
        return web.Response(status=417)
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    # The answer proper has not begun.
    request.writer.output_size = 0
    return None


async def _read_stream(content: StreamReader, budget: ReadBudget, bytes_max: int) -> bytes:
    body = bytearray()
    reserved = 0
    try:
        while chunk := await content.readany():
            body += _at_most(chunk, bytes_max - len(body))
            more = len(body) - FREE_BYTES - reserved
            if more > 0:
                budget.reserve(more)
                reserved += more
    finally:
        budget.release(reserved)
    return bytes(body)


def _at_most(data: bytes, size_max: int) -> bytes:
    """The data itself. Raises BodyRefused when there is too much of it."""
    if len(data) > size_max:
        raise BodyRefused(413, "oversize")
    return data
