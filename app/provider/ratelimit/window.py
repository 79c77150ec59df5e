"""What the provider's present second still has room for, by what its own headers say."""

import math
from collections import deque
from collections.abc import Callable

WINDOW_S = 1.0
CLOCK_STEP_S = 1e-6
"""Sleeping for less than this might not move the clock at all."""
RESERVE = 0.006
"""Share of a limit of hundreds that is never used, for a call that is not paced here. Where several processes
share the key, twice as much, for what one cannot know of the others."""
LEAP = 0.05
"""Share of the limit by which, besides those on their way, the requests left leap up when a second begins."""
SURE_S = 0.1
"""A second that was to end so long ago is over, whatever is left."""
DRIFT_S = 0.001
"""By how much the provider's clock may be slower than ours in a second, or its windows longer than one."""
LOOK_S = 0.01
"""How often to look again when all that there is room for may be on its way."""
FORGET_S = 1e-6
"""By how much the shortest way that was seen grows with every answer: half a millisecond in a second."""
KNOWN_FOR_S = 10.0
"""The last answer that reported what is left counts for so long."""


class RateWindow:
    """Requests that one API key may still send in the provider's present second (C-D.2, C-D.4).

    Every response says how many were left when its request was counted. Whatever is on its way may be counted
    at any time, so it counts as used up already; what it was counted as then, its answer says. So nothing
    that one process sends is one too many, however long anything stands still. Every request is `sent` once
    and `answered` once. Without headers there is room for everything: then the pace alone must do.

    A second begins, seen from here, at the time at which a request must leave to be the first one in it.
    That lies as far before the first answer from it as the fastest answer takes.

    Where several processes share the key, their turns are numbered: what lies between the turn that was
    answered last and the next one may all be on its way. That is an estimate, which stalls of one of them can
    make too low.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.processes = 1
        """Who use the same key. Without numbers each is thought to have as much on its way as this one."""
        self._monotonic = monotonic
        self._limit: int | None = None
        self._left = 0
        self._left_after: int | None = None
        """The number of the turn after which so many were left."""
        self._numbered: deque[tuple[float, int]] = deque()
        """When turns went after the last one that is answered, and their numbers."""
        self._number = 0
        self._answered_number: int | None = None
        self._ends_s = -math.inf
        self._due_s = -math.inf  # when it was to end, before it turned out to go on
        self._is_sure = False
        self._on_way = 0
        self._newest_s = -math.inf  # when the newest request that is answered went
        self._fastest_s = math.inf

    @property
    def is_known(self) -> bool:
        """Whether the provider says what is left."""
        return self._limit is not None and self._monotonic() - self._newest_s < KNOWN_FOR_S

    def sent(self, number: int | None = None) -> None:
        """One request goes now; the number of its turn among those of all processes."""
        self._on_way += 1
        if number is not None:
            self._number = number
            self._numbered.append((self._monotonic(), number))

    def answered(self, took_s: float, limit: int | None, remaining: int | None) -> None:
        """It is answered, so long after it went, or given up. None: its headers do not say."""
        self._on_way = max(self._on_way - 1, 0)
        now = self._monotonic()
        went_s = now - took_s
        number = self._number_of(went_s)
        if limit is None or limit <= 0 or remaining is None:
            # The provider may have counted it all the same.
            self._left = max(self._left - 1, 0)
            return
        self._limit = limit
        self._fastest_s = min(self._fastest_s + FORGET_S, took_s)
        # Answers overtake each other, so only what went after everything that is answered can begin a second.
        # By how much they leap up then: those that overtook this one were on their way with it.
        has_leapt = remaining > self._left + self._on_way * self.processes + limit * LEAP
        is_over = went_s >= self._ends_s
        is_due = is_over and (remaining >= self._left or went_s >= self._due_s + SURE_S)
        if went_s > self._newest_s and (has_leapt or is_due):
            self._begin(now)
            self._left, self._left_after = remaining, number
        else:
            if remaining <= self._left and not self._is_of_one_before(went_s, remaining, limit):
                self._left, self._left_after = remaining, number
            if is_over:  # so it had not ended
                self._ends_s, self._is_sure = went_s + WINDOW_S / limit, False
        self._newest_s = max(self._newest_s, went_s)

    def full_for_s(self, number: int | None = None) -> float:
        """Seconds until there may be room for one more, the permit of that number; 0 when there is now."""
        if self._limit is None:
            return 0.0
        over_in_s = self._ends_s - self._monotonic()
        left = self._left if over_in_s > 0 else self._limit
        on_way = self._on_way * self.processes
        if self.processes > 1 and number is not None and self._left_after is not None:
            newer = max(max(number, self._number) - self._left_after - 1, len(self._numbered))
            numbered = max(self._on_way - len(self._numbered), 0) + newer
            # In a new second, what the numbers say may be long over.
            on_way = numbered if over_in_s > 0 else min(on_way, numbered)
        reserve = RESERVE if self.processes == 1 else 2 * RESERVE
        if left - on_way > int(self._limit * reserve):
            return 0.0
        # What others are thought to have on their way is known better with the next answers.
        return over_in_s if over_in_s > 0 and self.processes == 1 else LOOK_S

    def _is_of_one_before(self, went_s: float, remaining: int, limit: int) -> bool:
        """Whether an answer was overtaken by the one that began the present second: less is left by it than
        what was on its way can have used since."""
        used_max = self._on_way * self.processes + limit * LEAP
        return went_s < self._ends_s - WINDOW_S and remaining < self._left - used_max

    def _number_of(self, went_s: float) -> int | None:
        while self._numbered and self._numbered[0][0] <= went_s + CLOCK_STEP_S:
            self._answered_number = self._numbered.popleft()[1]
        return self._answered_number

    def _begin(self, now: float) -> None:
        began_s = now - self._fastest_s
        if self._is_sure and began_s > self._ends_s:
            # Seconds follow each other, so an answer that came late does not make this one begin late: not
            # even by most of a second, when this process had no turn for so long.
            whole, late_s = divmod(began_s - self._ends_s, WINDOW_S)
            late_s -= (whole + 1) * DRIFT_S
            if late_s > 0:
                # Unless something that went since then was counted in the one before.
                began_s = max(began_s - late_s, min(began_s, self._newest_s))
        self._ends_s = self._due_s = began_s + WINDOW_S
        self._is_sure = True
