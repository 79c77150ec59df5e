"""Waking the workers: beside requests, none of which waits for it, and once for many.

The queue may be away, or hang for seconds; then workers find by themselves what there is to send.
"""

import asyncio
from collections.abc import Awaitable, Callable

EVERY_S = 0.2
"""The first wake after a pause is sent at once, others within this."""


class Wakes:
    """Of one process."""

    def __init__(self, wake: Callable[[], Awaitable[object]]) -> None:
        """`wake` tells the workers that there is something to send; it raises nothing."""
        self._wake = wake
        self._is_due = False
        self._waking: asyncio.Task[None] | None = None

    def soon(self) -> None:
        """There is something to send now."""
        self._is_due = True
        if self._waking is None or self._waking.done():
            self._waking = asyncio.create_task(self._wake_while_due(), name="wake workers")

    async def close(self) -> None:
        """Wait for what is under way."""
        if self._waking is not None:
            await asyncio.gather(self._waking, return_exceptions=True)

    async def _wake_while_due(self) -> None:
        while self._is_due:
            self._is_due = False
            await self._wake()
            await asyncio.sleep(EVERY_S)
