"""Keeps requests below the provider's rate limits: spaced, counted, and lowered by what its headers say."""

import asyncio
import bisect
import math
import statistics
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

HEADROOM = 0.978
"""Share of the limit that goes in any second. The limit counts arrivals in one-second windows (C-D.4);
requests shift between windows by what the network and the event loop delay them: 2.2 % are 22 ms. For what
is later than that, `Pacer.answered` and RESERVE hold others back."""
CATCH_UP = 1.15
"""How much denser than the limit turns may be after a stall in the midst of sending: 0.15 s are made up for
within a second. The limit's own spacing makes up for 22 ms, less than two busy cores lose in some seconds."""
RECENT_S = 2.0
"""Whoever sent a second's worth of turns within this time is in the midst of sending."""
BURST_S = 0.008
"""How far behind schedule sending may be made up for at once: 4 requests at 500/s, inside the headroom."""
WINDOW_S = 1.0
HOUR_S = 3_600.0
RESERVE = 0.006
"""Share of the limit that is left alone when so little of the provider's second remains for what is not on
its way yet: what other processes have on theirs needs it. Between it and HEADROOM nothing is held."""
STALL_S = 0.015
"""An answer that comes so much later than usual, and twice as late, was held up by something."""
USUAL_OF = 64
"""Answers whose median is what is usual."""
CLOCK_STEP_S = 1e-6
"""Sleeping for less than this might not move the clock at all."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Limits that hold at once (C-D.1): so many in any second, and so many in any hour."""

    rate_per_s: float
    per_hour: int | None = None

    @property
    def spacing_s(self) -> float:
        """Between two turns: the limit's own. One by the hour wants its requests spread over it (C-D.1)."""
        return self._spacing_s(1.0)

    @property
    def catch_up_s(self) -> float:
        """Between two turns while a stall is being made up for, below the cap all the same."""
        return self._spacing_s(CATCH_UP)

    def _spacing_s(self, denser: float) -> float:
        return max(1 / (self.rate_per_s * denser), HOUR_S / self.per_hour if self.per_hour else 0.0)

    @property
    def cap(self) -> int:
        """Turns in any second, at most."""
        return max(int(self.rate_per_s * HEADROOM * WINDOW_S), 1)

    def lowered(self, limit: int | None) -> "Windows":
        """As these, but with a limit that a response names when it is lower."""
        if limit is None or not 0 < limit < self.rate_per_s:
            return self
        return replace(self, rate_per_s=float(limit))


class Pacer:
    """The turns of all requests of one API key in this process.

    Raising the rate above what was configured is left to the one who configures it; headers only lower it.
    """

    def __init__(
        self,
        rate_per_s: float,
        *,
        per_hour: int | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._configured = Windows(rate_per_s, per_hour)
        self.windows = self._configured
        self._monotonic = monotonic
        self._sleep = sleep
        self._paused_until_s = 0.0
        # Turns given, newest last: what the next one must keep its distance from.
        self._turns: deque[float] = deque(maxlen=max(self.windows.cap, per_hour or 0))
        # Turns are spaced, but a busy event loop wakes many of them together; so those of the last second
        # are counted as well when they go. At most one second's worth of entries.
        self._gone: deque[float] = deque()
        self._took: deque[float] = deque(maxlen=USUAL_OF)
        self._usual_s = math.inf
        self._answers = 0
        self._remaining = 0
        self._second_s = 0.0  # when the provider's second was first seen to have begun
        self._held_until_s = 0.0

    async def acquire(self, within_s: float = math.inf) -> float:
        """Wait for this request's turn; 0 once it has come. When it is further away than `within_s`, nothing
        is waited for and no turn is used up: the seconds until then."""
        while True:
            now = self._monotonic()
            at = self._next_turn(now)
            if at - now > within_s:
                return at - now
            self._turns.append(at)
            if at > now:
                await self._sleep(at - now)
            await self.has_room()
            # A pause that began while this request slept holds it too; it takes a new turn then.
            if self._paused_until_s <= self._monotonic():
                self.count()
                return 0.0

    async def has_room(self) -> None:
        """Wait until the last second has room for one more request: a busy event loop wakes many evenly
        spaced turns together. Whoever goes then, says so by `count` before anything else happens."""
        while (wait_s := self._full_for_s()) > 0:
            await self._sleep(wait_s)

    def count(self) -> None:
        """One request goes now."""
        self._gone.append(self._monotonic())

    def answered(self, took_s: float) -> None:
        """One request is answered, or given up, so long after its turn. Somewhere on its way the provider
        counted it: usually soon, but if it took far longer than usual, something stood still, and it may have
        been counted just now. It is then held against the second that begins now; else what stood still
        would come on top of a full second."""
        now = self._monotonic()
        if len(self._took) >= USUAL_OF and took_s > self._usual_s + max(self._usual_s, STALL_S):
            went = bisect.bisect_left(self._gone, now - took_s - CLOCK_STEP_S)
            if went < len(self._gone):
                del self._gone[went]
            self._gone.append(now)
        self._took.append(took_s)
        self._answers += 1
        if self._answers % USUAL_OF == 0:
            self._usual_s = statistics.median(self._took)

    def observe(self, limit: int | None, remaining: int | None = None) -> None:
        """Take over the limit that a response names, when it is below the configured one; and when hardly
        anything `remaining` of the provider's second is left, less what is on its way, send nothing until it
        must be over (C-D.2)."""
        if limit is None or limit <= 0:
            return
        self.windows = self._configured.lowered(limit)
        if remaining is None:
            return
        # Answers overtake each other, so only a leap is a new second.
        if remaining > self._remaining + limit / 4:
            self._second_s = self._monotonic()
        self._remaining = remaining
        if remaining <= limit * RESERVE:
            self._held_until_s = self._second_s + WINDOW_S

    def pause(self, wait_s: float) -> None:
        """Send nothing for a while: the provider said so."""
        self._paused_until_s = max(self._paused_until_s, self._monotonic() + wait_s)

    async def close(self) -> None:
        """Nothing to give back."""

    def _next_turn(self, now: float) -> float:
        at = max(now - BURST_S, self._paused_until_s)
        windows, turns = self.windows, self._turns
        if turns:
            is_under_way = len(turns) >= windows.cap and at - turns[-windows.cap] < RECENT_S
            at = max(at, turns[-1] + (windows.catch_up_s if is_under_way else windows.spacing_s))
        for count, seconds in ((windows.cap, WINDOW_S), (windows.per_hour, HOUR_S)):
            if count is not None and len(turns) >= count:
                at = max(at, turns[-count] + seconds)
        return at

    def _full_for_s(self) -> float:
        """Seconds until the window has room for one more; 0 when it has now."""
        now = self._monotonic()
        if self._held_until_s - now > CLOCK_STEP_S:
            return self._held_until_s - now
        while self._gone and self._gone[0] <= now - WINDOW_S + CLOCK_STEP_S:
            self._gone.popleft()
        room = self.windows.cap - len(self._gone)
        # Of those that are too many, the one that must have left the window first.
        return 0.0 if room > 0 else max(self._gone[-room] + WINDOW_S - now, 0.0)
