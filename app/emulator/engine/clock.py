"""Emulated time: starts at the wall clock, runs `scale` times as fast, may be stopped and stepped.

Two times exist on purpose. Everything the provider does with hours and days (latency, retry ladder,
retention, billing cycle) follows `now()`. What a client on this machine checks against its own clock, the
signature's 300 s window and the one-second rate window, follows `wall()`.
"""

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime


class Clock:
    """A scaled clock in Unix seconds; every source of real time is an argument."""

    def __init__(
        self,
        scale: float = 1.0,
        *,
        start_s: float | None = None,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.wall = wall
        self._monotonic = monotonic
        self._scale = scale
        self._origin_s = monotonic()
        self._anchor_s = wall() if start_s is None else start_s

    @property
    def scale(self) -> float:
        """Emulated seconds per real second; 0 means stopped."""
        return self._scale

    def now(self) -> float:
        """Emulated Unix seconds."""
        return self._anchor_s + (self._monotonic() - self._origin_s) * self._scale

    def rescale(self, scale: float) -> None:
        """Go on from the present emulated time at another speed."""
        self.jump_to(self.now())
        self._scale = scale

    def jump_to(self, now_s: float) -> None:
        """Make `now_s` the present. The engine, not this class, runs what falls due on the way."""
        self._origin_s = self._monotonic()
        self._anchor_s = now_s

    def real_delay_s(self, emulated_s: float) -> float:
        """Real seconds until `emulated_s` have passed; infinite while the clock is stopped."""
        return emulated_s / self._scale if self._scale > 0 else math.inf


def iso(time_s: float) -> str:
    """ISO-8601 UTC with milliseconds and Z, the only time format on the wire (C-A)."""
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
