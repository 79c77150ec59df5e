"""The forecast: worked examples, a simulation by small steps as its oracle, what must hold for any input."""

import math
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.domain.accounting.balances import HEADER, Balance
from app.domain.accounting.forecast import Forecast, _Course, forecast
from app.domain.accounting.rates import (
    HOUR_MS,
    MINUTE_MS,
    Finished,
    ForecastInput,
    OpenRun,
    OpenWork,
    Range,
    cost_of,
    finish_rate,
    usual_burn,
)
from app.domain.accounting.warnings import LimitUsage, warnings_of
from app.domain.notices.notice import NoticeKind
from app.domain.run_reason import NO_CREDITS

NOW = 1_790_812_800_000
"""2026-10-01T00:00:00Z."""
DAY_MS = 24 * HOUR_MS
RESET = int(datetime(2026, 10, 10, 17, 35, tzinfo=UTC).timestamp() * 1000)
RUN = OpenRun("run-1", "monday", "running", None)


def minutes(count: int, tasks: int, *, ago: int = 0, charged: int = 5, **changes: Any) -> list[Finished]:
    """So many minutes in a row with so many tasks each, of 5 credits by our estimate; the last one just over,
    or `ago` minutes ago."""
    return [
        Finished(
            NOW - (ago + n) * MINUTE_MS, "CHATGPT", "US", tasks, Decimal(tasks * charged), Decimal(tasks * 5)
        )
        for n in range(1, count + 1)
    ]


def work(tasks: int, *, out: int = 0, run: OpenRun = RUN, engine: str = "CHATGPT") -> OpenWork:
    return OpenWork(run.id, engine, "US", tasks, out, Decimal(5 * tasks), Decimal(5 * out))


def balance(remaining: int, *, at_ms: int = NOW, **changes: Any) -> Balance:
    return replace(Balance(at_ms, Decimal(remaining), Decimal(250_000), RESET), **changes)


def forecast_input(**changes: Any) -> ForecastInput:
    base = ForecastInput("default", NOW, minutes(60, 100), [work(6_000)], [RUN], [balance(100_000)])
    return replace(base, **changes)


def warned(found: Forecast, use: LimitUsage | None = None) -> list[tuple[NoticeKind, bool]]:
    return [(one.kind, one.is_sure) for one in warnings_of(found, use or LimitUsage())]


def test_a_steady_hour() -> None:
    found = forecast(forecast_input())
    assert found.is_measured and found.tasks_per_hour.likely == pytest.approx(6_000)
    (run,) = found.runs
    assert run.ends.likely == pytest.approx(NOW + HOUR_MS, abs=1_000)
    assert NOW + 0.9 * HOUR_MS < (run.ends.low or 0) < (run.ends.likely or 0) < (run.ends.high or 0)
    assert (run.ends.high or 0) < NOW + 1.2 * HOUR_MS
    assert run.cost.likely == 30_000 and run.cost.low < 30_000 < run.cost.high < 31_000
    assert found.runs_out == Range(None, None, None) and warned(found) == []


def test_tasks_of_a_paused_engine_are_not_ahead_of_anybody() -> None:
    waiting = replace(work(900, engine="GROK"), waits=900, waits_credits=Decimal(4_500))
    later = OpenRun("run-2", "tuesday", "running", None)
    found = forecast(forecast_input(work=[work(600), waiting, work(600, run=later)], runs=[RUN, later]))
    alone = forecast(forecast_input(work=[work(600), work(600, run=later)], runs=[RUN, later]))
    assert (found.queued, found.queued_cost) == (1_200, alone.queued_cost)
    assert found.runs[0].ends == Range(None, None, None) and found.runs[0].open == 1_500
    assert found.runs[0].why_not == "900 tasks wait until answers of GROK can be used again"
    assert found.runs[0].cost.likely > alone.runs[0].cost.likely
    assert found.runs[1] == alone.runs[1]


def test_credits_run_out_within_the_queue() -> None:
    found = forecast(forecast_input(balances=[balance(15_000)]))
    assert found.runs_out.likely == pytest.approx(NOW + HOUR_MS / 2, abs=1_000)
    assert (found.runs_out.low or 0) < (found.runs_out.likely or 0) < (found.runs_out.high or 0)
    # The rest waits for the reset, and is done half an hour after it.
    assert found.runs[0].ends.likely == pytest.approx(RESET + HOUR_MS / 2, abs=1_000)
    assert warned(found) == [(NoticeKind.CREDITS_SHORT, True), (NoticeKind.RUN_LATE, True)]


def test_without_a_reset_the_rest_waits_for_ever() -> None:
    free = balance(15_000, per_cycle=None, resets_at_ms=None)
    found = forecast(forecast_input(balances=[free]))
    assert found.runs[0].ends == Range(None, None, None)
    assert found.runs_out.likely is not None and warned(found) == [(NoticeKind.CREDITS_SHORT, True)]


def test_a_queue_longer_than_the_cycle() -> None:
    slow = forecast_input(finished=minutes(60, 1), work=[work(40_000)], balances=[balance(240_000)])
    found = forecast(slow)
    assert found.runs[0].ends.likely == pytest.approx(NOW + 40_000 * MINUTE_MS, rel=1e-6)
    assert warned(found) == [(NoticeKind.RUN_LATE, True)]
    (late,) = warnings_of(found, LimitUsage())
    assert late.message == "Run monday will not finish before the reset on 2026-10-10: 40,000 tasks are open."
    # Nothing is measured: nobody is called for a guess.
    assert (NoticeKind.RUN_LATE, False) in warned(forecast(replace(slow, finished=[])))


def test_the_usual_burn_goes_on_after_the_queue() -> None:
    history = [balance(100_000 - 100 * n, at_ms=NOW - (48 - n) * HOUR_MS) for n in range(49)]
    found = forecast(forecast_input(work=[], runs=[], finished=[], balances=history))
    assert found.usual_per_hour == Range(Decimal(50), Decimal(100), Decimal(200))
    left = 95_200
    assert found.runs_out == Range(None, None, None), "the reset on the 10th comes first"
    near = [replace(point, remaining=point.remaining - 85_200) for point in history]
    found = forecast(forecast_input(work=[], runs=[], finished=[], balances=near))
    assert (left - 85_200, found.runs_out.likely) == (10_000, NOW + 100 * HOUR_MS)
    assert (found.runs_out.low, found.runs_out.high) == (NOW + 50 * HOUR_MS, NOW + 200 * HOUR_MS)


def test_what_is_available() -> None:
    since = {"charged_since": Decimal(40), "charged_perhaps": Decimal(10)}
    available = forecast(forecast_input(**since)).available
    assert available == Range(Decimal(99_950), Decimal(99_960), Decimal(100_000))
    fresh = forecast(forecast_input(balances=[balance(9), balance(1_000, source=HEADER)], **since))
    assert fresh.available == Range(Decimal(960), Decimal(960), Decimal(1_000))
    assert fresh.resets_at_ms == RESET, "a header tells the credits alone"
    before = balance(7, at_ms=NOW - 2 * DAY_MS, resets_at_ms=NOW - DAY_MS)
    after = forecast(forecast_input(balances=[before], **since))
    assert after.available == Range(Decimal(249_960), Decimal(249_960), Decimal(250_000))
    assert after.resets_at_ms == int(datetime(2026, 10, 30, tzinfo=UTC).timestamp() * 1000)
    assert forecast(forecast_input(balances=[])).available is None


def test_below_zero_credits_stop_nothing() -> None:
    found = forecast(forecast_input(balances=[balance(-500)]))
    assert found.runs[0].ends.likely == pytest.approx(NOW + HOUR_MS, abs=1_000)
    assert found.runs_out == Range(None, None, None)


def test_runs_end_one_after_the_other_and_paused_ones_do_not() -> None:
    second = OpenRun("run-2", "tuesday", "running", None)
    paused = OpenRun("run-3", "paused", "paused", "paused by hand")
    funds = OpenRun("run-4", "funds", "paused", NO_CREDITS.text, NO_CREDITS.code)
    open_work = [work(3_000), work(3_000, run=second), work(500, run=paused, out=200), work(100, run=funds)]
    found = forecast(forecast_input(runs=[RUN, second, paused, funds], work=open_work))
    one, two, three, four = found.runs
    assert one.ends.likely == pytest.approx(NOW + HOUR_MS / 2, abs=1_000)
    assert two.ends.likely == pytest.approx(NOW + HOUR_MS, abs=1_000)
    assert two.ends.low is not None and two.ends.low < NOW + HOUR_MS / 2, "perhaps it goes first"
    assert one.ends.high == four.ends.high, "perhaps it goes last"
    assert (three.ends, three.why_not) == (Range(None, None, None), "paused: paused by hand")
    assert found.queued == 3_000 + 3_000 + 200 + 100


def test_a_stall_shows_and_a_night_without_work_does_not() -> None:
    quiet = forecast_input(finished=minutes(60, 100, ago=600), work=[work(6_000)])
    assert finish_rate(quiet)[0].likely * HOUR_MS == pytest.approx(6_000)
    stalled = replace(quiet, work=[work(6_000, out=50)])
    rate, is_measured = finish_rate(stalled)
    assert (rate.low, rate.likely, is_measured) == (0, 0, True) and rate.high > 0
    assert forecast(stalled).runs[0].ends.likely is None


def test_a_rate_that_changed_widens_the_range() -> None:
    lately = minutes(15, 10) + [replace(m, minute_ms=m.minute_ms - 15 * MINUTE_MS) for m in minutes(345, 100)]
    rate, _ = finish_rate(forecast_input(finished=lately))
    low, likely, high = (one * HOUR_MS for one in (rate.low, rate.likely, rate.high))
    assert 550 < low < 600 and likely == pytest.approx(15 * 10 + 45 * 100) and 5_700 < high < 6_100


def test_costs_follow_what_such_tasks_were_charged() -> None:
    dear = forecast_input(finished=minutes(60, 100, charged=6))
    assert cost_of(dear, [work(100)]).likely == 600
    assert cost_of(dear, [work(100, engine="GEMINI")]).likely == 500, "another engine"
    failing = forecast_input(finished=minutes(60, 100, charged=4))
    cost = cost_of(failing, [work(100)])
    assert cost.likely == 400 and cost.high == 500, "perhaps nothing fails"
    unknown = cost_of(forecast_input(finished=[]), [work(100)])
    assert unknown == Range(Decimal(250), Decimal(500), Decimal(750))


def test_the_usual_burn_is_counted_within_a_cycle() -> None:
    def at(hours: int, remaining: int, **changes: Any) -> Balance:
        return balance(remaining, at_ms=NOW + hours * HOUR_MS, **changes)

    assert usual_burn([at(0, 100)]) is None
    assert usual_burn([at(0, 100), at(0, 90)]) is None, "over no time"
    later = {"resets_at_ms": RESET + 31 * DAY_MS}
    found = usual_burn([at(0, 100), at(2, 80), at(3, 250_000, **later), at(5, 249_980, **later)])
    assert found is not None and found.likely == 10


@pytest.mark.parametrize(
    ("use", "kinds"),
    [
        (LimitUsage(slots=10, slots_used=8), []),
        (LimitUsage(slots=10, slots_used=9), [NoticeKind.SLOTS_HIGH]),
        (LimitUsage(slots=None, slots_used=9), []),
        (LimitUsage(rate_per_s=500, busiest_second=450), []),
        (LimitUsage(rate_per_s=500, busiest_second=451), [NoticeKind.REQUESTS_HIGH]),
        (LimitUsage(rate_per_s=20, busiest_second=0), []),
        (LimitUsage(rate_per_s=500, busiest_second=None), []),
    ],
)
def test_the_providers_thresholds(use: LimitUsage, kinds: list[NoticeKind]) -> None:
    assert [kind for kind, _ in warned(forecast(forecast_input()), use)] == kinds


def test_few_credits() -> None:
    idle = {"work": [], "runs": [], "finished": []}
    assert warned(forecast(forecast_input(balances=[balance(100)], **idle))) == []
    low = forecast(forecast_input(balances=[balance(99)], **idle))
    assert warned(low) == [(NoticeKind.CREDITS_LOW, True)]
    upgraded = forecast(forecast_input(balances=[balance(99, per_cycle=Decimal(500_000))], **idle))
    assert warnings_of(low, LimitUsage())[0].dedupe_key != warnings_of(upgraded, LimitUsage())[0].dedupe_key


# The oracle: the same world minute by minute.

STEP_MS = MINUTE_MS


def stepped(course: _Course, tasks: int, cost: int, per_minute: float, funds: int, usual: int) -> Any:
    """(minute in which the tasks are done, minute in which the credits run out), by small steps. What is left
    of the minute in which the tasks are done has the usual burn already."""
    left, has, each = float(tasks), float(funds), cost / max(tasks, 1)
    done, dry, at, resets = (None if tasks else NOW), None, NOW, list(course.resets)
    while at < course.resets[-1] and (done is None or dry is None):
        if at >= resets[0]:
            resets.pop(0)
            has = float(course.per_cycle or 0)
        idle = 1.0
        if left > 0:
            count = min(left, per_minute, has / each if each else math.inf)
            left, has = left - count, has - count * each
            if left <= 1e-9:
                left, done, idle = 0.0, at, 1 - count / per_minute
            elif count < per_minute - 1e-9:
                dry, has = dry or at, 0.0
        if not left:
            spent = min(usual / 60 * idle, has)
            has -= spent
            if spent < usual / 60 * idle - 1e-9:
                dry = dry or at
        at += STEP_MS
    return done, dry


@given(
    st.integers(0, 400),
    st.integers(0, 30),
    st.integers(1, 40),
    st.integers(0, 3_000),
    st.integers(0, 300),
    st.integers(0, 4_000),
    st.lists(st.integers(5, 200), min_size=1, max_size=3),
)
@example(tasks=36, price=0, per_minute=7, funds=34, usual=33, per_cycle=2, gaps=[67, 5])
@example(tasks=8, price=1, per_minute=1, funds=5, usual=1, per_cycle=3, gaps=[5, 5])
def test_the_course_is_that_of_a_simulation(
    tasks: int, price: int, per_minute: int, funds: int, usual: int, per_cycle: int, gaps: list[int]
) -> None:
    resets = [NOW + sum(gaps[: n + 1]) * MINUTE_MS for n in range(len(gaps))]
    course = _Course(
        now_ms=NOW,
        rate=Range(0.0, 0.0, 0.0),
        available=None,
        usual=None,
        resets=resets,
        per_cycle=Decimal(per_cycle),
        is_stopped_by_credits=True,
    )
    done, dry = course._run(
        tasks, Decimal(tasks * price), per_minute / MINUTE_MS, Decimal(funds), Decimal(usual)
    )
    wanted = stepped(course, tasks, tasks * price, per_minute, funds, usual)
    for got, seen in ((done, wanted[0]), (dry, wanted[1])):
        if got is None or seen is None:
            edges = [*resets, NOW]
            near = got if got is not None else seen
            assert near is None or any(abs(near - edge) <= 2 * STEP_MS for edge in edges), (got, seen)
        else:
            assert abs(got - seen) <= 2 * STEP_MS, (got, seen)


COUNTS = st.integers(0, 3_000)


@given(
    st.lists(st.tuples(st.integers(0, 2_000), st.integers(1, 500), st.integers(0, 9)), max_size=20),
    st.lists(st.tuples(COUNTS, st.booleans()), max_size=4),
    st.none() | st.integers(-100, 40_000),
    st.booleans(),
)
def test_low_is_never_above_high(
    seen: list[tuple[int, int, int]], queued: list[tuple[int, bool]], has: int | None, resets: bool
) -> None:
    runs = [
        OpenRun(f"run-{n}", "r", "running" if going else "stopped", None)
        for n, (_, going) in enumerate(queued)
    ]
    plan = {} if resets else {"per_cycle": None, "resets_at_ms": None}
    found = forecast(
        forecast_input(
            finished=[f for ago, n, charged in seen for f in minutes(1, n, ago=ago, charged=charged)],
            runs=runs,
            work=[work(n, run=run, out=n // 2) for (n, _), run in zip(queued, runs, strict=True)],
            balances=[] if has is None else [balance(has, **plan)],
        )
    )
    for span in [found.runs_out, *(run.ends for run in found.runs)]:
        low, likely, high = (math.inf if at is None else at for at in (span.low, span.likely, span.high))
        assert low <= likely <= high and low >= NOW
    for figures in (found.tasks_per_hour, found.queued_cost, *(run.cost for run in found.runs)):
        assert 0 <= figures.low <= figures.likely <= figures.high
    warnings_of(found, LimitUsage())
