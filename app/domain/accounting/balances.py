"""Balances as the provider reports them, and where they were set anew: cycles, changes of plan (C-E.6, C-F).

May not do I/O, read a clock or log. Times are UTC milliseconds of our own clock, credits Decimal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise

from app.domain.accounting.movements import ZERO, Span

LAG_MS = 60_000
"""`/v1/credits` is cached for up to this long (P11); `X-Credits-Remaining` is not."""
SLACK_MS = 5_000
"""A request's own time, and what the two clocks may differ, on either side of a snapshot."""
CYCLE_MS_MAX = 32 * 24 * 3_600_000
"""No billing month is longer; a gap that is hides more than one reset."""
HEADER = "header"
"""Source of a balance that came with a sync call."""
_NEVER = 1 << 62


@dataclass(frozen=True, slots=True)
class Balance:
    """What the provider reported that an account has (C-E.6)."""

    at_ms: int
    remaining: Decimal
    """Negative under a contract."""
    per_cycle: Decimal | None = None
    """None: no subscription, or a header, which does not say."""
    resets_at_ms: int | None = None
    source: str = "credits"
    """`credits`: of `/v1/credits`, up to a minute old. `header`: of a sync answer, fresh, the
    balance alone."""

    @property
    def is_fresh(self) -> bool:
        """It came with an answer, hence is not older than that."""
        return self.source == HEADER


@dataclass(frozen=True, slots=True)
class Allocation:
    """A billing cycle that is known to have begun, with its credits."""

    at_ms: int
    credits: Decimal


@dataclass(frozen=True, slots=True)
class Point:
    """A balance that was right at some time in a span."""

    at_ms: int
    when: Span
    remaining: Decimal


@dataclass(frozen=True, slots=True)
class Step:
    """A time at which the balance changed without spending."""

    unclear: Span
    """A snapshot that may be of this time could lie on either side, and says nothing."""
    before: Balance | None = None
    """The last one that is known to lie before it, though it may be of that time."""
    cycle: Point | None = None
    """A cycle that began, with its allocation."""
    granted: Decimal = ZERO
    """By a change of plan; of a step with a cycle, perhaps still in the cycle before."""
    blind: bool = False
    """Something happened that the snapshots do not show; judging begins anew after it."""


def find_steps(
    snapshots: Sequence[Balance], allocations: Sequence[Allocation], slack_ms: int = SLACK_MS
) -> list[Step]:
    """Every step between the first snapshot and the last, in order of time: the cycles that are known, and
    what two neighbouring answers of `/v1/credits` say. Headers say nothing of cycles."""
    ordered = sorted(snapshots, key=lambda s: s.at_ms)
    known = [a for a in allocations if ordered and ordered[0].at_ms < a.at_ms <= ordered[-1].at_ms]
    known.sort(key=lambda a: a.at_ms)
    reported = [s for s in ordered if not s.is_fresh]
    edges = [reported[0].at_ms, reported[-1].at_ms] if reported else [_NEVER, _NEVER]
    steps = [_cycle(a, slack_ms) for a in known if not edges[0] < a.at_ms <= edges[1]]
    for p, q in pairwise(reported):
        steps += _between(p, q, [a for a in known if p.at_ms < a.at_ms <= q.at_ms], slack_ms)
    if reported and reported[-1].resets_at_ms is not None:
        # Nobody has reported yet what the next cycle begins with.
        steps.append(Step(Span(reported[-1].resets_at_ms - slack_ms, _NEVER), blind=True))
    return sorted(steps, key=lambda step: step.unclear)


def _cycle(cycle: Allocation, slack_ms: int) -> Step:
    when = Span(cycle.at_ms - slack_ms, cycle.at_ms + slack_ms)
    return Step(when, cycle=Point(cycle.at_ms, when, cycle.credits))


def _between(p: Balance, q: Balance, known: Sequence[Allocation], slack_ms: int) -> list[Step]:
    """The steps that two neighbouring answers show, or that are known to lie between them."""
    # The answer before is older than a change, whatever the clocks say, but nothing else near it need be; the
    # first one after it may show the new plan with a cached balance.
    gap, grown = Span(p.at_ms - slack_ms, q.at_ms), _growth(p, q)
    if not known and p.resets_at_ms != q.resets_at_ms:
        known = _reset_between(p, q, slack_ms)
        if not known:
            return [Step(gap, p, blind=True)]
    if grown is None:
        return [Step(gap, p, blind=True), *(_cycle(a, slack_ms) for a in known)]
    if not grown:
        return [_cycle(a, slack_ms) for a in known]
    if not known:
        return [Step(gap, p, granted=grown)]
    # How much of the growth came before a reset nobody knows; the rest is what a cycle began without.
    steps = [Step(gap, p, _cycle(a, slack_ms).cycle, max(ZERO, grown)) for a in known]
    return [*steps, Step(gap, p, granted=(q.per_cycle or ZERO) - known[-1].credits)]


def _reset_between(p: Balance, q: Balance, slack_ms: int) -> list[Allocation]:
    """The one cycle that began between two answers, if that is what they say."""
    ended, ends = p.resets_at_ms, q.resets_at_ms
    if ended is None or ends is None or q.per_cycle is None:
        return []
    one_month = 0 < ends - ended <= CYCLE_MS_MAX
    return [Allocation(ended, q.per_cycle)] if one_month and ended <= q.at_ms + slack_ms else []


def _growth(p: Balance, q: Balance) -> Decimal | None:
    if p.per_cycle == q.per_cycle:
        return ZERO
    return None if p.per_cycle is None or q.per_cycle is None else q.per_cycle - p.per_cycle


def choose_points(
    snapshots: Sequence[Balance], steps: Sequence[Step], lag_ms: int = LAG_MS, slack_ms: int = SLACK_MS
) -> list[Point]:
    """As many snapshots as possible that mean one thing and whose spans do not touch, in order of time."""
    points = []
    for s in snapshots:
        lag = 0 if s.is_fresh else lag_ms
        when = Span(s.at_ms - lag - slack_ms, s.at_ms + slack_ms)
        if not any(_unclear(step, s, when) for step in steps):
            points.append(Point(s.at_ms, when, s.remaining))
    chosen: list[Point] = []
    for point in sorted(points, key=lambda p: p.when.end):
        if not chosen or chosen[-1].when.end <= point.when.begin:
            chosen.append(point)
    return chosen


def _unclear(step: Step, snapshot: Balance, when: Span) -> bool:
    overlaps = step.unclear.begin < when.end and when.begin < step.unclear.end
    return overlaps and snapshot is not step.before
