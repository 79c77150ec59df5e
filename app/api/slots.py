"""How many requests are answered at once. More wait for their turn, and beyond a bound are refused."""

import asyncio
import contextlib

from app.api.problems import UNAVAILABLE, Problem

WAITING_FACTOR = 16


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
                raise _busy("too many streams are open already")
            self._streams += 1
            return
        if self._waiting >= self._waiting_max:
            raise _busy("too many requests wait already")
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


class _Turn:
    """Not by contextlib, whose generators each request would pay for."""

    __slots__ = ("_is_stream", "_slots")

    def __init__(self, slots: Slots, is_stream: bool) -> None:
        self._slots, self._is_stream = slots, is_stream

    async def __aenter__(self) -> None:
        await self._slots.acquire(is_stream=self._is_stream)

    async def __aexit__(self, *_: object) -> None:
        self._slots.release(is_stream=self._is_stream)


def _busy(why: str) -> Problem:
    return Problem(UNAVAILABLE, f"{why}: try again in a second", headers={"Retry-After": "1"})
