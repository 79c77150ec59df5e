"""What the forecast reads from the books, on both databases."""

from dataclasses import replace
from decimal import Decimal

from app.domain.accounting.balances import HEADER, Balance
from app.domain.accounting.forecast import forecast
from app.domain.accounting.rates import HOUR_MS, MINUTE_MS, Finished, OpenRun, OpenWork
from app.domain.notices.notice import NoticeKind
from app.domain.run_reason import BY_HAND
from app.domain.task import RunState, TaskSpec
from app.ports import Slots
from app.services.forecast import look_ahead
from app.store import Store
from tests.clock import SteppedClock
from tests.integration.services.pipeline import Pipeline

RESET = 1_791_000_000_000


async def store_balance(
    store: Store, at_ms: int, remaining: int, *, source: str = "credits", account: str = "default"
) -> None:
    plan = (Decimal(37_500), RESET) if source == "credits" else (None, None)
    await store.accounts.store_balance(account, Balance(at_ms, Decimal(remaining), *plan, source=source))


def plain(work: OpenWork) -> OpenWork:
    return replace(work, run_id="")


async def test_the_picture_is_that_of_the_books(store: Store, clock: SteppedClock) -> None:
    start = clock()
    pipeline = Pipeline(store, clock)
    await pipeline.start(4)
    await pipeline.submit(claim_size=3)
    await store.runs.add_tasks(
        pipeline.run_id, [(TaskSpec(9, "GOOGLE", {"query": "q"}), Decimal(3))], clock()
    )
    clock.advance(10 * MINUTE_MS)
    ids = pipeline.task_ids
    await pipeline.deliver(
        pipeline.provider.finish(f"{ids[0]}.1", charged=Decimal(7)),
        pipeline.provider.finish(f"{ids[1]}.1", "FAILED"),
    )
    inputs = await store.forecasts.forecast_input("default", clock(), slots=8)
    assert inputs.finished == [Finished(start + 10 * MINUTE_MS, "CHATGPT", "DE", 2, Decimal(7), Decimal(10))]
    work = sorted(inputs.work, key=lambda one: one.task_type)
    assert {one.run_id for one in work} == {pipeline.run_id}
    assert sum(one.tasks for one in work) == 3
    assert [plain(one) for one in work] == [
        OpenWork("", "CHATGPT", "DE", 2, 2, Decimal(10), Decimal(10)),
        OpenWork("", "GOOGLE", None, 1, 0, Decimal(3), Decimal(0)),
    ]
    assert inputs.runs == [OpenRun(pipeline.run_id, "run", "running", None)]
    assert (inputs.balances, inputs.charged_since, inputs.slots) == ([], 0, 8)
    other = await store.forecasts.forecast_input("eu", clock())
    assert (other.finished, other.work, other.runs, other.balances) == ([], [], [], [])


async def test_balances_are_thinned_and_charges_since_counted(store: Store, clock: SteppedClock) -> None:
    start = clock()
    pipeline = Pipeline(store, clock)
    await pipeline.start(3)
    await pipeline.submit()
    for n, after_ms in enumerate((0, 30_000, 61_000)):
        clock.now_ms = start + HOUR_MS + after_ms
        await pipeline.deliver(pipeline.provider.finish(f"{pipeline.task_ids[n]}.1"))
    for minute in range(0, 60, 10):
        await store_balance(store, start + minute * MINUTE_MS, 1_000 - minute)
    await store_balance(store, start - 8 * 24 * HOUR_MS, 30_000)
    await store_balance(store, start + HOUR_MS + 30_500, 900)
    await store_balance(store, start, 5, account="eu")
    inputs = await store.forecasts.forecast_input("default", clock())
    assert inputs.balances == [
        Balance(start + 50 * MINUTE_MS, Decimal(950), Decimal(37_500), RESET),
        Balance(start + HOUR_MS + 30_500, Decimal(900), Decimal(37_500), RESET),
    ]
    assert (inputs.charged_since, inputs.charged_perhaps) == (5, 10)
    assert forecast(inputs).available is not None
    await store_balance(store, start + HOUR_MS + 40_000, 890, source="header")
    last = (await store.forecasts.forecast_input("default", clock())).balances[-1]
    assert last == Balance(start + HOUR_MS + 40_000, Decimal(890), None, None, HEADER)


async def test_the_busiest_second(store: Store, clock: SteppedClock) -> None:
    pipeline = Pipeline(store, clock)
    assert await store.forecasts.busiest_second("default", clock()) == 0
    await pipeline.start(12)
    await pipeline.submit()
    clock.advance(1_000)
    await pipeline.start(5)
    await pipeline.submit()
    assert await store.forecasts.busiest_second("default", clock()) == 12
    assert await store.forecasts.busiest_second("eu", clock()) == 0
    clock.advance(60_000)
    assert await store.forecasts.busiest_second("default", clock()) == 0


class ReportedBalance:
    """A provider that tells its slots."""

    async def slots(self) -> Slots | None:
        return Slots(10, 9)


async def test_an_outlook(store: Store, clock: SteppedClock) -> None:
    pipeline = Pipeline(store, clock)
    await pipeline.start(40)
    await pipeline.submit(claim_size=12)
    clock.advance(MINUTE_MS)
    done = [pipeline.provider.finish(f"{i}.1") for i in pipeline.task_ids[:10]]
    await pipeline.deliver(*done)
    await store_balance(store, clock(), 90)
    seen = await look_ahead(store, "default", provider=ReportedBalance(), rate_per_s=500, now_ms=clock())
    kinds = [one.kind for one in seen.warnings]
    assert kinds[:2] == [NoticeKind.CREDITS_LOW, NoticeKind.CREDITS_SHORT] and NoticeKind.SLOTS_HIGH in kinds
    assert seen.forecast.queued == 30 and seen.forecast.queued_cost.likely == 150
    assert seen.forecast.runs_out.likely is not None
    await store.runs.add_tasks(pipeline.run_id, [(TaskSpec(99, "CHATGPT", {}), Decimal(5))], clock())
    await store.runs.halt_run_if_running(pipeline.run_id, RunState.PAUSED, BY_HAND)
    halted = await look_ahead(store, "default", provider=None, rate_per_s=None, now_ms=clock())
    (run,) = halted.forecast.runs
    assert (run.open, run.why_not) == (31, "paused: paused by hand")
    assert (halted.use.slots, halted.forecast.queued) == (None, 30), "what is out costs all the same"
