"""How many requests are answered at once. More wait for their turn, and beyond a bound are refused."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

from app.api.problems import UNAVAILABLE, Problem

WAITING_FACTOR = 16


class Slots:
    """Of one process. Streams have slots of their own: they stay open for hours."""

    def __init__(self, in_flight_max: int, streams_max: int) -> None:
        self._slots = asyncio.Semaphore(in_flight_max)
        self._waiting, self._waiting_max = 0, WAITING_FACTOR * in_flight_max
        self._streams, self._streams_max = 0, streams_max

    @contextlib.asynccontextmanager
    async def taken(self, *, is_stream: bool) -> AsyncIterator[None]:
        """Wait for a slot, and hold it. Raises Problem when too many wait."""
        if is_stream:
            with self._stream():
                yield
            return
        if self._waiting >= self._waiting_max:
            raise _busy("too many requests wait already")
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._slots.release()

    @contextlib.contextmanager
    def _stream(self) -> Iterator[None]:
        if self._streams >= self._streams_max:
            raise _busy("too many streams are open already")
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1


def _busy(why: str) -> Problem:
    return Problem(UNAVAILABLE, f"{why}: try again in a second", headers={"Retry-After": "1"})
