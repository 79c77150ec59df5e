"""What a forecast is made of, and what is measured of it: how fast tasks finish, what they are charged
against our estimate, how the balance falls. Pure.

`low` and `high` are the least and the most that was seen over windows of several lengths, widened while
little was. Times are UTC milliseconds, rates of tasks are floats, credits are Decimal. May not do I/O, read a
clock or log.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal
from typing import Generic, TypeVar

from app.domain.accounting.balances import Balance
from app.domain.admission import CONCURRENCY_UNKNOWN, SECONDS_PER_TASK
from app.domain.run_reason import PASSING
from app.domain.task import RunState

T = TypeVar("T")

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
PAUSE_MS = 10 * MINUTE_MS
"""Minutes without a finished task count as working time up to here; a longer gap was no work."""
WINDOWS_MS = (15 * MINUTE_MS, HOUR_MS, 6 * HOUR_MS, 24 * HOUR_MS)
"""Working time that rates are measured over."""
LIKELY_MS = HOUR_MS
SETTLED_MIN = 30
"""Settled tasks of one engine and country before its own charges say more than those of the whole engine."""
TASK_S_SHORTEST, TASK_S_LONGEST = 10.0, 300.0
"""What a task may take: a search answers in seconds, an attempt is given up after five minutes (C-H)."""
USUAL_MIN_MS = HOUR_MS
"""Balances over less than this say nothing about the usual burn."""


@dataclass(frozen=True, slots=True)
class Range(Generic[T]):
    """The least, the likely and the most."""

    low: T
    likely: T
    high: T


@dataclass(frozen=True, slots=True)
class Finished:
    """Tasks of one engine and country whose money closed within one minute."""

    minute_ms: int
    task_type: str
    country: str | None
    tasks: int
    credits: Decimal
    """Charged."""
    estimate: Decimal
    """Ours, of the same tasks."""


@dataclass(frozen=True, slots=True)
class OpenWork:
    """Open tasks of one run, engine and country."""

    run_id: str
    task_type: str
    country: str | None
    tasks: int
    out: int
    """Of them at the provider, or on their way: these end and cost whatever the run's state."""
    credits: Decimal
    """Held, or our estimate while nothing is."""
    out_credits: Decimal
    waits: int = 0
    """Of them not sent while their engine is paused, because its answers fail."""
    waits_credits: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run with open tasks. Oldest first in ForecastInput."""

    id: str
    name: str
    state: str
    reason: str | None
    reason_code: str | None = None

    @property
    def goes_on(self) -> bool:
        """By itself: it is running, or waits for what comes back by itself."""
        return self.state == RunState.RUNNING or (
            self.state == RunState.PAUSED and self.reason_code in PASSING
        )


@dataclass(frozen=True, slots=True)
class ForecastInput:
    """All that a forecast is made of."""

    account: str
    now_ms: int
    finished: Sequence[Finished]
    work: Sequence[OpenWork]
    runs: Sequence[OpenRun]
    balances: Sequence[Balance]
    """Of recent days, oldest first."""
    charged_since: Decimal = Decimal(0)
    """Posted by us since the last balance."""
    charged_perhaps: Decimal = Decimal(0)
    """Posted within the lag before it: it may hold them already, or not."""
    slots: int | None = None


@dataclass(frozen=True, slots=True)
class Burn:
    """What one engine in one country cost lately."""

    task_type: str
    country: str | None
    tasks: int
    credits: Decimal
    credits_per_hour: Decimal
    """Of working time."""
    per_estimate: Decimal | None
    """Charged for each credit of our estimate; None: nothing was estimated."""


def finish_rate(inputs: ForecastInput) -> tuple[Range[float], bool]:
    """Tasks finished in a millisecond of working time, and whether that was measured."""
    spans = _working_spans(inputs)
    if not spans:
        slots = inputs.slots or CONCURRENCY_UNKNOWN
        slow, usual, quick = (slots / (s * 1000) for s in (TASK_S_LONGEST, SECONDS_PER_TASK, TASK_S_SHORTEST))
        return Range(slow, usual, quick), False
    rates: list[float] = []
    likely = 0.0
    for window_ms in WINDOWS_MS:
        tasks, worked_ms = _within(spans, window_ms)
        rates.append(tasks / worked_ms)
        likely = rates[-1] if window_ms <= LIKELY_MS else likely
        if worked_ms < window_ms:
            break  # there is no more to see
    # A count is certain to about its root.
    unsure = min(1 / math.sqrt(sum(tasks for _, tasks in spans)), 0.9)
    return Range(min(rates) * (1 - unsure), likely, max(rates) * (1 + unsure)), True


def _working_spans(inputs: ForecastInput) -> list[tuple[int, int]]:
    """Working time as (duration, tasks finished in it), newest first: minutes in which something finished,
    short gaps between them, and the time since the last one while something is at the provider, however long
    that is: a stall shows."""
    minutes: dict[int, int] = {}
    for group in inputs.finished:
        minutes[group.minute_ms] = minutes.get(group.minute_ms, 0) + group.tasks
    found: list[tuple[int, int]] = []
    is_stall, later = any(work.out for work in inputs.work), inputs.now_ms
    for minute in sorted(minutes, reverse=True):
        gap = later - (minute + MINUTE_MS)
        if gap > 0 and (is_stall or gap <= PAUSE_MS):
            found.append((gap, 0))
        found.append((max(min(later - minute, MINUTE_MS), 1_000), minutes[minute]))
        is_stall, later = False, minute
    return found


def _within(spans: Sequence[tuple[int, int]], window_ms: int) -> tuple[float, float]:
    """(tasks, working time) of the newest so much of it; of a minute that is cut, its share."""
    tasks = worked = 0.0
    for duration, count in spans:
        share = min((window_ms - worked) / duration, 1.0)
        tasks, worked = tasks + count * share, worked + duration * share
        if worked >= window_ms:
            break
    return tasks, worked


def burn_of(inputs: ForecastInput) -> list[Burn]:
    """What each engine in each country cost, by the working time of all, dearest first."""
    worked_ms = sum(duration for duration, _ in _working_spans(inputs)) or MINUTE_MS
    groups: dict[tuple[str, str | None], tuple[int, Decimal, Decimal]] = {}
    for group in inputs.finished:
        tasks, credits, estimate = groups.get((group.task_type, group.country), (0, Decimal(0), Decimal(0)))
        groups[group.task_type, group.country] = (
            tasks + group.tasks,
            credits + group.credits,
            estimate + group.estimate,
        )
    found = [
        Burn(
            task_type,
            country,
            tasks,
            credits,
            round_up(credits * HOUR_MS / worked_ms),
            round(credits / estimate, 4) if estimate else None,
        )
        for (task_type, country), (tasks, credits, estimate) in groups.items()
    ]
    return sorted(found, key=lambda burn: (-burn.credits, burn.task_type, burn.country or ""))


def cost_of(inputs: ForecastInput, work: Iterable[OpenWork]) -> Range[Decimal]:
    """What open tasks will be charged: our estimates, corrected by what such tasks were charged lately.

    The correction is unsure by 1/√(n+4) after n settled tasks: by half before the first, by a tenth after a
    hundred. The most is never below the estimate: perhaps nothing fails.
    """
    by_group: dict[tuple[str, str | None], tuple[int, Decimal]] = {}
    by_engine: dict[str, tuple[int, Decimal]] = {}
    for burn in burn_of(inputs):
        if burn.per_estimate is not None:
            by_group[burn.task_type, burn.country] = (burn.tasks, burn.per_estimate)
    for engine in {group.task_type for group in inputs.finished}:
        rows = [group for group in inputs.finished if group.task_type == engine and group.estimate]
        if estimate := sum((group.estimate for group in rows), Decimal(0)):
            charged = sum((group.credits for group in rows), Decimal(0))
            by_engine[engine] = (sum(group.tasks for group in rows), charged / estimate)
    low = likely = high = Decimal(0)
    for group in work:
        settled, ratio = by_group.get((group.task_type, group.country), (0, Decimal(1)))
        if settled < SETTLED_MIN:
            settled, ratio = by_engine.get(group.task_type, (0, Decimal(1)))
        unsure = 1 / Decimal(settled + 4).sqrt()
        likely += group.credits * ratio
        low += group.credits * ratio * (1 - unsure)
        high += group.credits * max(ratio * (1 + unsure), Decimal(1))
    return Range(round_up(low), round_up(likely), round_up(high))


def usual_burn(balances: Sequence[Balance]) -> Range[Decimal] | None:
    """Credits an hour by which the balance fell, over the last day and over all that is known; None: too
    little is. Between two cycles, and when the plan changes, nothing is counted."""
    spans = [
        (after.at_ms, after.at_ms - before.at_ms, before.remaining - after.remaining)
        for before, after in itertools.pairwise(balances)
        if after.remaining <= before.remaining
        and (after.is_fresh or before.is_fresh or _cycle(after) == _cycle(before))
    ]
    rates = []
    for window_ms in (24 * HOUR_MS, None):
        seen = [s for s in spans if window_ms is None or s[0] > balances[-1].at_ms - window_ms]
        if (covered := sum(ms for _, ms, _ in seen)) >= USUAL_MIN_MS:
            rates.append(sum((fell for _, _, fell in seen), Decimal(0)) * HOUR_MS / covered)
    if not rates:
        return None
    return Range(round_up(min(rates) / 2), round_up(rates[-1]), round_up(max(rates) * 2))


def _cycle(point: Balance) -> tuple[int | None, Decimal | None]:
    return point.resets_at_ms, point.per_cycle


def round_up(credits: Decimal) -> Decimal:
    """Whole credits, rounded up: a forecast of millionths would only pretend."""
    return credits.quantize(Decimal(1), rounding=ROUND_UP)
