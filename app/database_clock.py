"""The database's time, kept by this process: what is written goes by one clock, however wrong a machine's is.

The database is asked every few seconds; in between this machine's monotonic clock goes on from its answer, so
neither a wrong clock nor one that is set while we run shows anywhere, and no reading costs a round trip. On
SQLite the database's time is the machine's, and what this still spares us is a jump of it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from app.logger import get_logger

EVERY_S = 5.0
JUMP_MS = 2_000
"""An answer this far from what we expect is a jump; less is the drift of two quartzes, or a slow answer."""
JUMP_READINGS = 4
"""A jump is believed when so many answers in a row say the same, 15 s: one that lasts for seconds is not."""
ROUND_TRIP_MAX_S = 1.0
"""A slower answer says too little."""

log = get_logger(__name__)


def steady_s() -> float:
    """Seconds by a clock that nobody sets, and that goes on while the machine is asleep. Python's own stands
    still then: for some seconds after a weekend a key of Friday's would pass for one of just now."""
    return time.clock_gettime(_STEADY) if _STEADY is not None else time.monotonic()


# Linux; macOS, whose CLOCK_MONOTONIC goes on in sleep; Windows has neither.
_STEADY = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


def wall_ms() -> int:
    """This machine's time: UTC milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class DatabaseClock:
    """Satisfies app.ports.Clock. Until the database has answered it gives the machine's time."""

    def __init__(
        self, *, wall: Callable[[], int] = wall_ms, monotonic: Callable[[], float] = steady_s
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._ahead_ms: float | None = None
        """What is added to the monotonic clock."""
        self._jumped_ms = 0.0
        self._jumps = 0

    def __call__(self) -> int:
        if self._ahead_ms is None:
            return self._wall()
        return round(self._monotonic() * 1000 + self._ahead_ms)

    def machine_ahead_s(self) -> float:
        """Seconds that the machine's clock is ahead of the database's."""
        return (self._wall() - self()) / 1000

    async def read(self, ask: Callable[[], Awaitable[int]]) -> None:
        """Ask the database for its time once. Raises what `ask` raises."""
        asked_s = self._monotonic()
        database_ms = await ask()
        took_s = self._monotonic() - asked_s
        if self._ahead_ms is None or took_s <= ROUND_TRIP_MAX_S:
            self._note(database_ms - (asked_s + took_s / 2) * 1000)

    def _note(self, ahead_ms: float) -> None:
        if self._ahead_ms is None or abs(ahead_ms - self._ahead_ms) <= JUMP_MS:
            self._ahead_ms, self._jumps = ahead_ms, 0
            return
        same = self._jumps and abs(ahead_ms - self._jumped_ms) <= JUMP_MS
        self._jumps = self._jumps + 1 if same else 1
        self._jumped_ms = ahead_ms
        if self._jumps >= JUMP_READINGS:
            log.warning("clock_jumped", by_s=round((ahead_ms - self._ahead_ms) / 1000, 1))
            self._ahead_ms, self._jumps = ahead_ms, 0

    async def keep(self, ask: Callable[[], Awaitable[int]], *, every_s: float = EVERY_S) -> None:
        """Ask again and again; a database that is away is asked again."""
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.read(ask)
            except Exception as error:
                log.debug("clock_not_read", error=type(error).__name__)
