"""Drift: our ledger against the provider's balance, in intervals and never in instants (C-E.4, C-E.6, P11).

A balance from `/v1/credits` may be a minute old, and when the provider charged a task is known only to lie
between our sending it and the arrival of its report. So each snapshot is true at some time in a
window, each post falls into an interval for certain or perhaps, and what is judged are the lowest and highest
sums that fit. Credits that went beyond the highest are the account's other users'; credits that did not go
although they must have are unexplained. May not do I/O, read a clock or log.

All times are UTC milliseconds of our own clock, all credits Decimal.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from app.domain.accounting.balances import (
    LAG_MS,
    SLACK_MS,
    Allocation,
    Balance,
    Point,
    choose_points,
    find_steps,
)
from app.domain.accounting.movements import ZERO, Movement, Movements

__all__ = ["Allocation", "Balance", "Drift", "Interval", "Movement", "Reset", "audit"]


@dataclass(frozen=True, slots=True)
class Interval:
    """What happened between two snapshots, or between a reset and the first snapshot after it."""

    from_ms: int
    to_ms: int
    before: Decimal
    """Balance at its beginning."""
    after: Decimal
    granted: Decimal
    """Credits added by a change of plan within it; negative when taken away."""
    ours_lowest: Decimal
    """Posts that the provider must have charged in it."""
    ours_highest: Decimal
    """Posts that it may have charged in it."""
    exposure: Decimal
    """Highest sum of open attempts that it may have charged in it: not reported yet."""
    external: Decimal
    """Spent by others for certain: whatever of ours fell into it, so much more is gone."""
    unexplained: Decimal
    """Credits that should be gone and are not."""
    overdrawn: Decimal = ZERO
    """Credits that must be gone although the balance shows 0: work done in parallel can take it lower, and
    only a contract shows that (C-L8). They are no drift."""

    @property
    def actual(self) -> Decimal:
        """What the balance fell by, grants put back."""
        return self.before + self.granted - self.after


@dataclass(frozen=True, slots=True)
class Reset:
    """A cycle's end: what was left expired, and the next allocation came (C-F)."""

    at_ms: int
    allocation: Decimal
    expired_lowest: Decimal
    """Never below 0; spending of others after the last snapshot would lower it unseen."""
    expired_highest: Decimal
    overdrawn: Decimal
    """Below zero at the end, which only a contract allows (C-B41); 0 otherwise."""


@dataclass(frozen=True, slots=True)
class Drift:
    """An account's balance over time, explained or not."""

    intervals: tuple[Interval, ...]
    resets: tuple[Reset, ...]
    external_lowest: Decimal
    """Spent by others for certain."""
    external_highest: Decimal
    """Spent by others at most; the same once nothing is in flight."""
    exposure: Decimal
    """Unknown exposure: credits of attempts that are accepted without a known charge."""
    unexplained: Decimal
    unjudged: int
    """Snapshots that could mean two things: within a lag of another, of a reset or of a change of plan."""

    @property
    def explained(self) -> bool:
        """Nothing is left that nobody can explain."""
        return self.unexplained == 0


def audit(
    snapshots: Sequence[Balance],
    posts: Sequence[Movement],
    *,
    open_attempts: Sequence[Movement] = (),
    adjustments: Sequence[Movement] = (),
    allocations: Sequence[Allocation] = (),
    lag_ms: int = LAG_MS,
    slack_ms: int = SLACK_MS,
) -> Drift:
    """Explain every change between the snapshots of one account.

    `posts`: charges of ours, the void ones (0) may be left out. `open_attempts`: accepted, or perhaps so,
    without a known charge, each with the most that it can cost. `adjustments`: corrections made by hand,
    with the span in which the provider moved the credits; a change of plan is read from `per_cycle` and must
    not come again here. `allocations`: cycles whose start is known otherwise than by a snapshot of the cycle
    before; needed where a gap hides more than one reset.
    """
    steps = find_steps(snapshots, allocations, slack_ms)
    points = choose_points(snapshots, steps, lag_ms, slack_ms)
    spending = Movements([*posts, *adjustments]), Movements(open_attempts)
    intervals: list[Interval] = []
    resets: list[Reset] = []
    closed: list[_Chain] = []
    chain: _Chain | None = None
    waiting = deque(steps)
    for point in points:
        granted = ZERO
        while waiting and waiting[0].unclear.end <= point.when.begin:
            step = waiting.popleft()
            granted += step.granted
            if chain is not None and (step.cycle or step.blind):
                closed.append(chain)
                resets += [chain.end(step.cycle, granted)] if step.cycle else []
                chain = None
            if step.cycle:
                chain, granted = _Chain(step.cycle, *spending), ZERO
        if chain is None:
            chain = _Chain(point, *spending)
        else:
            intervals.append(chain.go_on(point, granted))
    if chain is not None:
        closed.append(chain)
    return Drift(
        tuple(intervals),
        tuple(resets),
        external_lowest=sum((part.external_lowest for part in closed), ZERO),
        external_highest=sum((part.external_highest for part in closed), ZERO),
        exposure=sum((part.credits for part in open_attempts), ZERO),
        unexplained=sum((part.unexplained for part in intervals), ZERO),
        unjudged=len(snapshots) - len(points),
    )


class _Chain:
    """Snapshots of one cycle, from the first one or the cycle's start. External usage since then lies
    between two bounds, which every further snapshot narrows: a post that may fall into either of two
    neighbouring intervals is never counted in both."""

    def __init__(self, base: Point, posts: Movements, open_attempts: Movements) -> None:
        self._base = self._last = base
        self._posts = posts
        self._open = open_attempts
        self._gone = self._sure = ZERO
        self.external_lowest = self.external_highest = ZERO

    def go_on(self, point: Point, granted: Decimal) -> Interval:
        """Judge the time since the last snapshot."""
        last, when = self._last, self._last.when
        gone = last.remaining + granted - point.remaining
        lowest, highest = self._posts.lowest(when, point.when), self._posts.highest(when, point.when)
        exposure = self._open.highest(when, point.when)
        missing = max(ZERO, lowest - gone)
        low, high = self._bounds(point, gone + missing)
        low = max(low, self.external_lowest + max(ZERO, gone + missing - highest - exposure))
        high = min(high, self.external_highest + gone + missing - lowest)
        if low > high:
            # Credits that were taken for external usage have come back.
            missing += low - high
            self._gone += low - high
            high = low
        overdrawn = missing if point.remaining == 0 else ZERO
        interval = Interval(
            last.at_ms,
            point.at_ms,
            last.remaining,
            point.remaining,
            granted,
            lowest,
            highest,
            exposure,
            external=low - self.external_lowest,
            unexplained=missing - overdrawn,
            overdrawn=overdrawn,
        )
        self.external_lowest, self.external_highest = low, high
        self._last = replace(point, remaining=point.remaining - overdrawn)
        return interval

    def _bounds(self, point: Point, gone: Decimal) -> tuple[Decimal, Decimal]:
        """External usage since the chain's base, from the sums over all of it."""
        since = self._base.when
        self._gone += gone
        self._sure += self._posts.sure(since, self._last.when.begin, point.when.begin)
        lowest = self._sure + self._posts.came_back(since, point.when)
        highest = self._posts.highest(since, point.when) + self._open.highest(since, point.when)
        return self._gone - highest, self._gone - lowest

    def end(self, cycle: Point, granted: Decimal) -> Reset:
        """A new cycle began: what was spent since the last snapshot is ours as far as anybody can see.
        `granted`: by a change of plan that may have come before it."""
        when, left = self._last.when, self._last.remaining
        lowest = self._posts.lowest(when, cycle.when)
        highest = self._posts.highest(when, cycle.when) + self._open.highest(when, cycle.when)
        return Reset(
            cycle.at_ms,
            cycle.remaining,
            max(ZERO, left - highest),
            max(ZERO, left + granted - lowest),
            overdrawn=max(ZERO, lowest - left - granted),
        )
