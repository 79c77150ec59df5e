"""Keeps requests below the provider's rate limit: evenly spaced, and lowered by what its headers say."""

import asyncio
import time
from collections.abc import Awaitable, Callable

HEADROOM = 0.98
"""Share of the limit that is used. The limit counts arrivals in one-second windows (C-D.4); evenly spaced
requests shift between windows by what the network and the event loop delay them, some milliseconds each."""
BURST_S = 0.008
"""How far behind schedule sending may be made up for: 4 requests at 500/s, well inside the headroom."""


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

    async def acquire(self) -> None:
        """Wait for this request's turn."""
        while True:
            now = self._monotonic()
            at = max(self._next_s, now - BURST_S)
            self._next_s = at + 1 / self.rate_per_s
            if at > now:
                await self._sleep(at - now)
            # A pause that began while this request slept holds it too; it takes a new turn then.
            if self._paused_until_s <= self._monotonic():
                return

    def observe(self, limit: int | None) -> None:
        """Take over the limit that a response names, when it is below the configured one."""
        if limit is not None and limit > 0:
            self.rate_per_s = min(self._configured_per_s, float(limit)) * HEADROOM

    def pause(self, wait_s: float) -> None:
        """Send nothing for a while: the provider said so."""
        until = self._monotonic() + wait_s
        self._paused_until_s = max(self._paused_until_s, until)
        self._next_s = max(self._next_s, until)
