"""Writes a stream for as long as somebody reads it: whoever stops would keep a place that others wait for."""

import asyncio

from aiohttp import web

STALLED_S = 60.0
"""In which nothing is taken of what waits to be read."""


class StalledError(Exception):
    """The reader is there, and reads no more."""


async def send(response: web.StreamResponse, request: web.BaseRequest, chunk: bytes) -> None:
    """Write a part. Raises StalledError, and ConnectionError where the reader has gone."""
    deadline = asyncio.timeout(STALLED_S)
    try:
        async with deadline:
            await response.write(chunk)
    except TimeoutError:
        if not deadline.expired():
            raise
        # All of it is in the connection's buffer by now: only the wait was cut off.
        await drain(request)


async def drain(request: web.BaseRequest) -> None:
    """Wait until most of what was written is read. Raises StalledError."""
    left = _waiting(request)
    while True:
        deadline = asyncio.timeout(STALLED_S)
        try:
            async with deadline:
                return await request.writer.drain()
        except TimeoutError:
            if not deadline.expired():
                raise
        left, before = _waiting(request), left
        if left >= before:
            raise StalledError


def _waiting(request: web.BaseRequest) -> int:
    """Bytes that the system did not take yet."""
    return 0 if request.transport is None else request.transport.get_write_buffer_size()
