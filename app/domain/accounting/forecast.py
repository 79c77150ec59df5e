"""Forecast: when an account's credits run out and when its runs end, as a range and not as one guess. Pure.

From what was measured (`rates.py`) the course of the next cycles is computed three times: quick, as likely,
slow. A time is computed in floats, because it is one; credits stay Decimal elsewhere. May not do I/O, read
a clock or log.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from app.domain.accounting.balances import Balance
from app.domain.accounting.billing import months_after
from app.domain.accounting.rates import (
    HOUR_MS,
    TASK_S_LONGEST,
    Burn,
    ForecastInput,
    OpenRun,
    OpenWork,
    Range,
    burn_of,
    cost_of,
    finish_rate,
    usual_burn,
)
from app.domain.time_format import utc

CYCLES_MAX = 12
"""How many cycles ahead is looked; what lies beyond has no date."""

Span = Range[int | None]
"""Moments, earliest first; None: never, as far as can be seen."""
NEVER: Span = Range(None, None, None)
NOTHING = Decimal(0)


@dataclass(frozen=True, slots=True)
class RunForecast:
    """When a run ends and what it will still cost."""

    run: OpenRun
    open: int
    cost: Range[Decimal]
    ends: Span
    why_not: str | None = None
    """Set when it does not end by itself."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """An account's near future."""

    account: str
    now_ms: int
    balance: Balance | None
    """The last one reported; None: the edition does not report it, or nobody asked yet."""
    available: Range[Decimal] | None
    resets_at_ms: int | None
    """The next reset; None: no subscription, or not known."""
    tasks_per_hour: Range[float]
    is_measured: bool
    """False: nothing finished lately, so the rate is what the slots should do."""
    burn: Sequence[Burn]
    usual_per_hour: Range[Decimal] | None
    """How the balance fell over recent days, idle hours included, by whomever; None: not known."""
    queued: int
    queued_cost: Range[Decimal]
    runs_out: Span
    """When no credits are left; likely None: not within the queue and the usual burn before a reset."""
    runs: Sequence[RunForecast]


def forecast(inputs: ForecastInput) -> Forecast:
    """The range for one account and each of its open runs."""
    rate, is_measured = finish_rate(inputs)
    going = {run.id for run in inputs.runs if run.goes_on}
    work = [
        _that_ends(open_work) if open_work.run_id in going else _only_out(open_work)
        for open_work in inputs.work
    ]
    tasks, cost = sum(open_work.tasks for open_work in work), cost_of(inputs, work)
    last, plan = next(reversed(inputs.balances), None), _last_plan(inputs.balances)
    course = _Course(
        now_ms=inputs.now_ms,
        rate=rate,
        available=available_now(inputs),
        usual=usual_burn(inputs.balances),
        resets=resets_ahead(plan, inputs.now_ms),
        per_cycle=plan.per_cycle if plan else None,
        is_stopped_by_credits=last is not None and last.remaining >= 0,
    )
    return Forecast(
        account=inputs.account,
        now_ms=inputs.now_ms,
        balance=last,
        available=course.available,
        resets_at_ms=course.resets[0] if course.resets else None,
        tasks_per_hour=Range(*(open_work * HOUR_MS for open_work in (rate.low, rate.likely, rate.high))),
        is_measured=is_measured,
        burn=burn_of(inputs),
        usual_per_hour=course.usual,
        queued=tasks,
        queued_cost=cost,
        runs_out=course.runs_out(tasks, cost),
        runs=_run_forecasts(inputs, course, tasks, cost),
    )


def available_now(inputs: ForecastInput) -> Range[Decimal] | None:
    """Credits left now: the last balance less what we posted since. None: no balance is known."""
    if not inputs.balances:
        return None
    last, plan = inputs.balances[-1], _last_plan(inputs.balances)
    resets_at_ms, per_cycle = (plan.resets_at_ms, plan.per_cycle) if plan else (None, None)
    if resets_at_ms and per_cycle is not None and last.at_ms < resets_at_ms <= inputs.now_ms:
        # Reported before the reset: since then there is a whole allocation, less what was posted after it.
        least = per_cycle - inputs.charged_since
        return Range(least, least, per_cycle)
    likely = last.remaining - inputs.charged_since
    return Range(likely - (NOTHING if last.is_fresh else inputs.charged_perhaps), likely, last.remaining)


def resets_ahead(plan: Balance | None, now_ms: int) -> list[int]:
    """The next resets, soonest first; empty without a subscription."""
    if plan is None or plan.resets_at_ms is None:
        return []
    day = utc(plan.resets_at_ms).day
    found: list[int] = []
    months = 0
    while len(found) < CYCLES_MAX:
        reset = months_after(plan.resets_at_ms, months, day)
        found += [reset] if reset > now_ms else []
        months += 1
    return found


def _last_plan(balances: Sequence[Balance]) -> Balance | None:
    """The last balance with its plan; a header has the credits alone."""
    return next((point for point in reversed(balances) if not point.is_fresh), None)


def _only_out(work: OpenWork) -> OpenWork:
    """What of it ends although its run does not go on."""
    return replace(work, tasks=work.out, credits=work.out_credits)


def _that_ends(work: OpenWork) -> OpenWork:
    """What of it ends although its engine is paused."""
    return replace(work, tasks=work.tasks - work.waits, credits=work.credits - work.waits_credits)


def _why_it_waits(work: Sequence[OpenWork]) -> str | None:
    """Why a running run does not end by itself; None: it does."""
    waiting = [group for group in work if group.waits]
    if not waiting:
        return None
    count, engines = sum(group.waits for group in waiting), sorted({group.task_type for group in waiting})
    what = "1 task waits" if count == 1 else f"{count} tasks wait"
    return f"{what} until answers of {', '.join(engines)} can be used again"


def _run_forecasts(
    inputs: ForecastInput, course: "_Course", tasks: int, cost: Range[Decimal]
) -> list[RunForecast]:
    """Each open run, oldest first: that is the order in which tasks of one priority are sent."""
    found = []
    before_tasks, before_cost = 0, NOTHING
    for run in inputs.runs:
        work = [open_work for open_work in inputs.work if open_work.run_id == run.id]
        own_tasks, own_cost = sum(open_work.tasks for open_work in work), cost_of(inputs, work)
        if not run.goes_on:
            why = f"{run.state}: {run.reason}" if run.reason else run.state
            found.append(RunForecast(run, own_tasks, own_cost, NEVER, why))
            continue
        before_tasks += own_tasks - sum(open_work.waits for open_work in work)
        before_cost += cost_of(inputs, [_that_ends(open_work) for open_work in work]).likely
        if why_it_waits := _why_it_waits(work):
            found.append(RunForecast(run, own_tasks, own_cost, NEVER, why_it_waits))
            continue
        # Alone at best, behind all others at worst.
        ends = course.ends(Range(own_tasks, before_tasks, tasks), Range(own_cost.low, before_cost, cost.high))
        found.append(RunForecast(run, own_tasks, own_cost, ends))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Course:
    """The next cycles: tasks are done at a rate, paid from an allocation that comes anew at each reset."""

    now_ms: int
    rate: Range[float]
    available: Range[Decimal] | None
    usual: Range[Decimal] | None
    resets: Sequence[int]
    per_cycle: Decimal | None
    is_stopped_by_credits: bool
    """False: no balance is known, or it is below zero, which only a contract allows (C-B41)."""

    def runs_out(self, tasks: int, cost: Range[Decimal]) -> Span:
        """Earliest: quick and dear on little credit; latest the other way round."""
        if self.available is None:
            return NEVER
        funds, usual = self.available, self.usual or Range(NOTHING, NOTHING, NOTHING)
        return Range(
            self._run(tasks, cost.high, self.rate.high, funds.low, usual.high)[1],
            self._run(tasks, cost.likely, self.rate.likely, funds.likely, usual.likely)[1],
            self._run(tasks, cost.low, self.rate.low, funds.high, usual.low)[1],
        )

    def ends(self, tasks: Range[int], cost: Range[Decimal]) -> Span:
        """When so many tasks, those before them counted in, are done; the last one may take its longest."""
        funds = self.available or Range(NOTHING, NOTHING, NOTHING)
        latest = self._run(tasks.high, cost.high, self.rate.low, funds.low)[0]
        return Range(
            self._run(tasks.low, cost.low, self.rate.high, funds.high)[0],
            self._run(tasks.likely, cost.likely, self.rate.likely, funds.likely)[0],
            None if latest is None else latest + round(TASK_S_LONGEST * 1000),
        )

    def _run(
        self, tasks: int, cost: Decimal, rate: float, funds: Decimal, usual: Decimal = NOTHING
    ) -> tuple[int | None, int | None]:
        """(when the tasks are done, when the credits first run out); None: not within the cycles ahead.
        After the tasks the usual burn goes on."""
        left, cost_each = float(tasks), float(cost) / max(tasks, 1)
        has = max(float(funds), 0.0) if self.is_stopped_by_credits else math.inf
        at, done, dry = float(self.now_ms), None if tasks else float(self.now_ms), None
        for until in [float(reset) for reset in self.resets] or [math.inf]:
            if left:
                ready, empty = _after(at, left, rate), _after(at, has, rate * cost_each)
                if ready <= min(empty, until):
                    done, at, has, left = ready, ready, max(has - cost_each * left, 0.0), 0.0
                elif empty < until:
                    # The rest waits for the reset.
                    dry, left = dry or empty, left - rate * (empty - at)
                else:
                    left -= rate * (until - at)
            if not left:
                emptied = _after(at, has, float(usual) / HOUR_MS)
                dry = dry or (emptied if emptied < until else None)
            at, has = until, float(self.per_cycle or 0) if self.is_stopped_by_credits else math.inf
        return _whole_ms(done), _whole_ms(dry)


def _after(at: float, amount: float, speed: float) -> float:
    """When an amount is used up. In whole milliseconds: what lasts exactly until a reset must not seem to end
    a rounding error before it."""
    spent_at = at + amount / speed if speed > 0 else math.inf
    return spent_at if math.isinf(spent_at) else float(round(spent_at))


def _whole_ms(at: float | None) -> int | None:
    return None if at is None or math.isinf(at) else round(at)
