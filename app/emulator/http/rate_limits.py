"""Request rate limits: fixed one-second windows, and the oldest layer's hourly bucket (C-D, rows B7 and
B8)."""

import math
from collections import deque

HOURLY_BURST = 20
"""The oldest layer "spreads requests evenly", so bursts are refused: this many may come at once (C-L row
L32)."""
_WINDOWS_MAX = 10_000
_SECONDS_MAX = 7_200
"""Two hours of history."""


class SecondWindows:
    """Counters per bucket, all reset when the wall clock's second changes (C-D.4, L12)."""

    def __init__(self) -> None:
        self._second = -1
        self._used: dict[str, int] = {}
        self._asked = 0
        self.seconds: deque[tuple[int, int]] = deque(maxlen=_SECONDS_MAX)
        """Past seconds in which anything came: the Unix second, and requests, refused ones included."""

    def take(self, bucket: str, limit: int, wall_s: float) -> int:
        """Requests left after this one, or -1 if it is refused."""
        second = int(wall_s)
        if second != self._second:
            if self._asked:
                self.seconds.append((self._second, self._asked))
            self._second, self._asked = second, 0
            self._used.clear()
        self._asked += 1
        used = self._used.get(bucket, 0)
        if used >= limit:
            return -1
        self._used[bucket] = used + 1
        return limit - used - 1


class HourlyBuckets:
    """A token bucket per key that also never gives more than its limit within one clock hour (row B8,
    L32)."""

    def __init__(self) -> None:
        self._state: dict[str, tuple[int, int, float, float]] = {}

    def take(self, bucket: str, limit: int, now_s: float) -> tuple[int, int]:
        """(requests left in the hour, 0), or (-1, seconds to wait)."""
        hour = int(now_s // 3600)
        per_s = limit / 3600
        burst = min(HOURLY_BURST, limit)
        old_hour, used, tokens, filled_s = self._state.get(bucket, (hour, 0, float(burst), now_s))
        if old_hour != hour:
            used = 0
        tokens = min(float(burst), tokens + max(0.0, now_s - filled_s) * per_s)
        if used >= limit:
            self._keep(bucket, (hour, used, tokens, now_s))
            return -1, max(1, math.ceil((hour + 1) * 3600 - now_s))
        if tokens < 1.0:
            self._keep(bucket, (hour, used, tokens, now_s))
            return -1, max(1, math.ceil((1.0 - tokens) / per_s))
        self._keep(bucket, (hour, used + 1, tokens - 1.0, now_s))
        return limit - used - 1, 0

    def _keep(self, bucket: str, state: tuple[int, int, float, float]) -> None:
        if len(self._state) >= _WINDOWS_MAX:
            self._state.clear()
        self._state[bucket] = state


def hourly_message(wait_s: int) -> str:
    """The oldest layer names minutes, rounded up (row B9)."""
    minutes = max(1, math.ceil(wait_s / 60))
    return f"Rate limit exceeded. Try again in {minutes} minute{'s' if minutes != 1 else ''}."
