"""Keeps requests below the provider's rate limits: spaced, counted, and lowered by what its headers say."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from app.provider.ratelimit.window import CLOCK_STEP_S, WINDOW_S, RateWindow

HEADROOM = 0.978
"""Share of the limit that goes. The limit counts arrivals in one-second windows (C-D.4);
requests shift between windows by what the network and the event loop delay them: 2.2 % are 22 ms."""
KNOWN_HEADROOM = 0.994
"""The same where the provider says how much is left: `RateWindow` then holds back
what would be one too many."""
CATCH_UP = 1.15
"""How much denser than the limit permits may be after a stall in the midst of sending: 0.15 s are made up for
within a second. The limit's own spacing makes up for 22 ms, less than two busy cores lose in some seconds."""
RECENT_S = 2.0
"""Whoever sent a second's worth of permits within this time is in the midst of sending."""
BURST_S = 0.008
"""How far behind schedule sending may be made up for at once: 4 requests at 500/s, inside the headroom."""
HOUR_S = 3_600.0


@dataclass(frozen=True, slots=True)
class Windows:
    """Limits that hold at once (C-D.1): so many in any second, and so many in any hour."""

    rate_per_s: float
    per_hour: int | None = None
    headroom: float = HEADROOM

    @property
    def spacing_s(self) -> float:
        """Between two permits: the limit's own. One by the hour wants its requests spread over it (C-D.1)."""
        return self._spacing_s(1.0)

    @property
    def catch_up_s(self) -> float:
        """Between two permits while a stall is being made up for, below the cap all the same."""
        return self._spacing_s(CATCH_UP)

    def _spacing_s(self, denser: float) -> float:
        return max(1 / (self.rate_per_s * denser), HOUR_S / self.per_hour if self.per_hour else 0.0)

    @property
    def cap(self) -> int:
        """Turns in any `cap_s`, at most; never more than the limit."""
        return max(math.ceil(self.rate_per_s * self.headroom * WINDOW_S), 1)

    @property
    def cap_s(self) -> float:
        """A second, and a bit more where it would not have whole turns: 10 in 1.02 s, as 9 in a second are a
        tenth less than 10."""
        if self.rate_per_s < 1:
            return WINDOW_S  # their spacing is longer
        return max(self.cap / (self.rate_per_s * self.headroom), WINDOW_S)

    def lowered(self, limit: float | None) -> "Windows":
        """As these, but with a limit that a response names when it is lower."""
        if limit is None or not 0 < limit < self.rate_per_s:
            return self
        return replace(self, rate_per_s=float(limit))


class Pacer:
    """The permits of all requests of one API key in this process.

    Raising the rate above what was configured is left to the one who configures it; headers only lower it.
    """

    def __init__(
        self,
        rate_per_s: float,
        *,
        per_hour: int | None = None,
        window: RateWindow | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._configured = Windows(rate_per_s, per_hour)
        self.windows = self._configured
        self.window = window or RateWindow(monotonic)
        self._reported: tuple[float | None, float] = (None, HEADROOM)
        self._monotonic = monotonic
        self._sleep = sleep
        self._paused_until_s = 0.0
        # Turns given, newest last: what the next one must keep its distance from.
        self._permits: deque[float] = deque(maxlen=max(math.ceil(rate_per_s), per_hour or 0))
        # Turns are spaced, but a busy event loop wakes many of them together; so those of the last second
        # are counted as well when they go. At most one second's worth of entries.
        self._gone: deque[float] = deque()

    @property
    def share_per_s(self) -> float:
        """What this process may send of the limit."""
        return 1 / self.windows.spacing_s

    async def acquire(self, within_s: float = math.inf) -> float:
        """Wait for this request's permit; 0 once it has come. When that is further than `within_s`, nothing
        is waited for and no permit is used up: the seconds until then."""
        while True:
            now = self._monotonic()
            at = self._next_permit(now)
            if at - now > within_s:
                return at - now
            self._permits.append(at)
            if at > now:
                await self._sleep(at - now)
            # A busy event loop wakes many evenly spaced permits together.
            while (wait_s := self.full_for_s()) > CLOCK_STEP_S:
                await self._sleep(wait_s)
            # A pause that began while this request slept holds it too; it takes a new permit then.
            if self._paused_until_s <= self._monotonic():
                self.count()
                return 0.0

    def full_for_s(self, number: int | None = None) -> float:
        """Seconds until the last second, and the provider's, has room for one more request; 0 when they have
        now. Whoever goes then, says so by `count` before anything else happens. The number is the permit's
        among those of all processes."""
        now, cap_s = self._monotonic(), self.windows.cap_s
        while self._gone and self._gone[0] <= now - cap_s + CLOCK_STEP_S:
            self._gone.popleft()
        left = self.windows.cap - len(self._gone)
        # Of those that are too many, the one that must have left the window first.
        own_s = 0.0 if left > 0 else self._gone[-left] + cap_s - now
        return max(own_s, self.window.full_for_s(number))

    def count(self, number: int | None = None) -> None:
        """One request goes now."""
        self._gone.append(self._monotonic())
        self.window.sent(number)

    def answered(self, took_s: float, limit: int | None = None, remaining: int | None = None) -> None:
        """One request is answered, so long after its permit, or given up; with what its headers say of the
        limit (C-D.2). One below the configured limit is taken over."""
        self.window.answered(took_s, limit, remaining)
        self.lower(limit)

    def lower(self, limit: float | None = None) -> None:
        """Keep to this limit when it is below the configured one; without one, to the last one."""
        limit = limit if limit is not None and limit > 0 else self._reported[0]
        is_exact = self.window.is_known and self.window.processes == 1
        headroom = KNOWN_HEADROOM if is_exact else HEADROOM
        if self._reported != (limit, headroom):
            self._reported = (limit, headroom)
            self.windows = replace(self._configured.lowered(limit), headroom=headroom)

    def pause(self, wait_s: float) -> None:
        """Send nothing for a while: the provider said so."""
        self._paused_until_s = max(self._paused_until_s, self._monotonic() + wait_s)

    async def close(self) -> None:
        """Nothing to give back."""

    def _next_permit(self, now: float) -> float:
        at = max(now - BURST_S, self._paused_until_s)
        windows, permits = self.windows, self._permits
        if permits:
            is_under_way = len(permits) >= windows.cap and at - permits[-windows.cap] < RECENT_S
            at = max(at, permits[-1] + (windows.catch_up_s if is_under_way else windows.spacing_s))
        for count, seconds in ((windows.cap, windows.cap_s), (windows.per_hour, HOUR_S)):
            if count is not None and len(permits) >= count:
                at = max(at, permits[-count] + seconds)
        return at
