"""Time that runs only when everybody sleeps: seconds of pacing are simulated in milliseconds, exactly."""

import asyncio
import heapq
from collections.abc import Callable
from itertools import count

SETTLE_STEPS = 4
"""Turns of the real event loop after which every woken coroutine sleeps again."""


class VirtualTime:
    """`monotonic` and `sleep` for what is tested, `run` for the test."""

    def __init__(self, late_s: Callable[[], float] = lambda: 0.0) -> None:
        self.now_s = 1_000.0
        self._late_s = late_s
        self._order = count()
        self._sleeping: list[tuple[float, int, asyncio.Future[None]]] = []

    def monotonic(self) -> float:
        return self.now_s

    async def sleep(self, delay_s: float) -> None:
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleeping, (self.now_s + delay_s, next(self._order), woken))
        await woken

    async def run(self, until_s: float) -> None:
        """Wake sleepers in order until that time; each may be woken late, as by a busy event loop."""
        await self._let_run()
        while self._sleeping and self._sleeping[0][0] <= until_s:
            due_s, _, woken = heapq.heappop(self._sleeping)
            # A busy loop holds up everybody: time never runs backwards for the next one.
            self.now_s = max(self.now_s, due_s) + self._late_s()
            if not woken.done():
                woken.set_result(None)
            await self._let_run()
        self.now_s = max(self.now_s, until_s)

    async def _let_run(self) -> None:
        for _ in range(SETTLE_STEPS):
            await asyncio.sleep(0)
