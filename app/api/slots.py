"""How many requests are answered at once. More wait for their turn, and beyond a bound are refused."""

import asyncio
import contextlib
from collections.abc import Iterator

from app.api.problems import UNAVAILABLE, Problem

WAITING_FACTOR = 16
ARRIVING_BYTES_MAX = 64 << 20
"""Of bodies that are read before their requests have their turn; beyond it they are read within it."""


class Slots:
    """Of one process. Streams have slots of their own: they stay open for hours."""

    def __init__(self, in_flight_max: int, streams_max: int) -> None:
        self._slots = asyncio.Semaphore(in_flight_max)
        self._waiting, self._waiting_max = 0, WAITING_FACTOR * in_flight_max
        self._streams, self._streams_max = 0, streams_max

    def taken(self, *, is_stream: bool) -> "_Turn":
        """To wait for a slot with, and hold it. Raises Problem when too many wait."""
        return _Turn(self, is_stream)

    async def acquire(self, *, is_stream: bool) -> None:
        """Raises Problem when too many wait, or too many streams are open."""
        if is_stream:
            if self._streams >= self._streams_max:
                raise busy("too many streams are open already")
            self._streams += 1
            return
        if self._waiting >= self._waiting_max:
            raise busy("too many requests wait already")
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1

    def take_now(self) -> bool:
        """Acquire a slot for a request, if one is free."""
        if self._slots.locked():
            return False
        with contextlib.suppress(StopIteration):
            self._slots.acquire().send(None)  # does not wait
        return True

    def release(self, *, is_stream: bool) -> None:
        """Let the next one have its turn."""
        if is_stream:
            self._streams -= 1
        else:
            self._slots.release()


class Arriving:
    """Bodies that come slowly, or in a packet of their own."""

    def __init__(self) -> None:
        self._bytes = 0

    @contextlib.contextmanager
    def beside(self, body_bytes: int) -> Iterator[bool]:
        """Whether a body may be read before its request has its turn: counted until that has ended."""
        may = 0 < body_bytes <= ARRIVING_BYTES_MAX - self._bytes
        counted = body_bytes if may else 0
        self._bytes += counted
        try:
            yield may
        finally:
            self._bytes -= counted


class _Turn:
    """Not by contextlib, whose generators each request would pay for."""

    __slots__ = ("_is_stream", "_slots")

    def __init__(self, slots: Slots, is_stream: bool) -> None:
        self._slots, self._is_stream = slots, is_stream

    async def __aenter__(self) -> None:
        await self._slots.acquire(is_stream=self._is_stream)

    async def __aexit__(self, *_: object) -> None:
        self._slots.release(is_stream=self._is_stream)


def busy(why: str) -> Problem:
    """It may be asked again soon, and nothing was begun."""
    return Problem(UNAVAILABLE, f"{why}: try again in a second", headers={"Retry-After": "1"})
