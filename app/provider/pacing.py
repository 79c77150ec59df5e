"""Keeps requests below the provider's rate limit: evenly spaced, and lowered by what its headers say."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable

HEADROOM = 0.98
"""Share of the limit that is used. The limit counts arrivals in one-second windows (C-D.4); requests shift
between windows by what the network and the event loop delay them, some milliseconds each."""
BURST_S = 0.008
"""How far behind schedule sending may be made up for: 4 requests at 500/s, well inside the headroom."""
WINDOW_S = 1.0
CLOCK_STEP_S = 1e-6
"""Sleeping for less than this might not move the clock at all."""


class Pacer:
    """A leaky bucket shared by all requests of one API key in this process.

    Raising the rate above what was configured is left to the one who configures it; headers only lower it.
    """

    def __init__(
        self,
        rate_per_s: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._configured_per_s = rate_per_s
        self.rate_per_s = rate_per_s * HEADROOM
        self._monotonic = monotonic
        self._sleep = sleep
        self._next_s = 0.0
        self._paused_until_s = 0.0
        # Turns are spaced, but a busy event loop wakes many of them together; so those of the last second
        # are counted as well. At most one second's worth of entries.
        self._gone: deque[float] = deque()

    async def acquire(self, within_s: float = math.inf) -> float:
        """Wait for this request's turn; 0 once it has come. When it is further away than `within_s`, nothing
        is waited for and no turn is used up: the seconds until then."""
        while True:
            now = self._monotonic()
            at = max(self._next_s, now - BURST_S)
            if at - now > within_s:
                return at - now
            self._next_s = at + 1 / self.rate_per_s
            wait_s = at - now if at > now else self._full_for_s()
            while wait_s > 0:
                await self._sleep(wait_s)
                wait_s = self._full_for_s()
            # A pause that began while this request slept holds it too; it takes a new turn then.
            if self._paused_until_s <= self._monotonic():
                self._gone.append(self._monotonic())
                return 0.0

    async def count_in(self) -> None:
        """Wait until the last second has room for one more request, and count this one: a busy event loop
        wakes many evenly spaced turns together."""
        while (wait_s := self._full_for_s()) > 0:
            await self._sleep(wait_s)
        self._gone.append(self._monotonic())

    def observe(self, limit: int | None) -> None:
        """Take over the limit that a response names, when it is below the configured one."""
        if limit is not None and limit > 0:
            self.rate_per_s = min(self._configured_per_s, float(limit)) * HEADROOM

    def pause(self, wait_s: float) -> None:
        """Send nothing for a while: the provider said so."""
        until = self._monotonic() + wait_s
        self._paused_until_s = max(self._paused_until_s, until)
        self._next_s = max(self._next_s, until)

    async def close(self) -> None:
        """Nothing to give back."""

    def _full_for_s(self) -> float:
        """Seconds until the window has room for one more; 0 when it has now."""
        now = self._monotonic()
        while self._gone and self._gone[0] <= now - WINDOW_S + CLOCK_STEP_S:
            self._gone.popleft()
        room = max(int(self.rate_per_s * WINDOW_S), 1) - len(self._gone)
        # Of those that are too many, the one that must have left the window first.
        return 0.0 if room > 0 else max(self._gone[-room] + WINDOW_S - now, 0.0)
