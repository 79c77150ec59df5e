"""--pause-failing-engines: tasks of an engine whose answers fail wait, others go on, and probes end it."""

from collections import Counter
from typing import Any

import sqlalchemy as sa

from app.domain.accounting.forecast import forecast
from app.domain.notices.failing_engines import EngineBounds
from app.domain.run_reason import ReasonCode, RunReason
from app.domain.task import RunState
from app.limits import Limits
from app.services.engine_pauses import EnginePauses
from app.store import Store
from app.store.tables import engine_pauses, runs, tasks
from tests.integration.services.pipeline import Pipeline

PROBE_MS = 60_000
BOUNDS = EngineBounds(success_min=0.5, tasks=6, usable_chars_min=3)
ENGINES = ("GROK", "CHATGPT")
FEW = Limits(claim_size=8, submit_in_flight=4)


def pauses_of(pipeline: Pipeline) -> EnginePauses:
    """Of a process that was just started."""
    return EnginePauses(
        pipeline.store, clock=pipeline.clock, jitter=lambda: 0.0, bounds=BOUNDS, probe_every_ms=PROBE_MS
    )


async def run_row(pipeline: Pipeline) -> sa.Row[Any]:
    query = sa.select(runs.c.state, runs.c.reason, runs.c.reason_code).where(runs.c.id == pipeline.run_id)

    async def read(connection: Any) -> sa.Row[Any]:
        row: sa.Row[Any] = (await connection.execute(query)).one()
        return row

    return await pipeline.store.db.read(read)


def engine_of(pipeline: Pipeline, key: str) -> str:
    """As `start` gave them out, to tasks of its last run."""
    return ENGINES[(pipeline.task_ids.index(key.rpartition(".")[0]) + 1) % len(ENGINES)]


async def send_some(pipeline: Pipeline, count: int) -> list[str]:
    """The keys of the next tasks that a sender claims and that are sent."""
    before = len(pipeline.provider.sends)
    await pipeline.submit(stopping=lambda: len(pipeline.provider.sends) >= before + count)
    return pipeline.provider.sends[before:]


async def answer(pipeline: Pipeline, keys: list[str], *, failing: str = "") -> None:
    """Deliver reports; those of one engine say that the task failed."""
    ends = {key: "FAILED" if engine_of(pipeline, key) == failing else "COMPLETED" for key in keys}
    await pipeline.deliver(*(pipeline.provider.finish(key, status) for key, status in ends.items()))


async def fail_engine(pipeline: Pipeline, count: int = 40, **how: Any) -> EnginePauses:
    """A run of two engines, the first of which fails and is paused."""
    await pipeline.start(count, engines=ENGINES, **({"pause_failing_engines": True} | how))
    await answer(pipeline, await send_some(pipeline, 16), failing="GROK")
    looker = pauses_of(pipeline)
    await looker.look()
    return looker


async def paused_at_ms(store: Store) -> list[int | None]:
    async def read(connection: Any) -> list[int | None]:
        return list(await connection.scalars(sa.select(engine_pauses.c.paused_at_ms)))

    return await store.db.read(read)


async def test_f38_a_failing_engine_waits_is_probed_and_goes_on(pipeline: Pipeline) -> None:
    pipeline.limits = FEW
    store, clock = pipeline.store, pipeline.clock
    looker = await fail_engine(pipeline)
    assert await paused_at_ms(store) == [clock()]
    row = await run_row(pipeline)
    assert row.reason_code == ReasonCode.ENGINES_FAIL
    assert "GROK fails (0 of its last 6 results usable), next try at 00:01 UTC" in row.reason
    # All others go on, and then nothing is due: neither for a wake, nor for the job that has just ended.
    before = len(pipeline.provider.sends)
    summary = await pipeline.submit()
    sent = pipeline.provider.sends[before:]
    assert Counter(engine_of(pipeline, key) for key in sent) == {"CHATGPT": 20 - 8}
    assert summary.again_in_ms is None
    await answer(pipeline, sent)
    assert await store.queries.accounts_with_due(clock()) == []
    await store.run_ends.finish_runs(clock())
    assert (await run_row(pipeline)).state == RunState.RUNNING
    assert (await store.queries.progress(pipeline.run_id)).states["pending"] == 20 - 8
    # Its probes: one, and no more until the next is due.
    for status in ("FAILED", "COMPLETED", "COMPLETED", "COMPLETED"):
        assert await pauses_of(pipeline).look() == []
        assert await store.queries.accounts_with_due(clock()) == []
        clock.advance(1.5 * PROBE_MS)
        assert await store.queries.accounts_with_due(clock()) == ["default"]
        before = len(pipeline.provider.sends)
        assert (await pipeline.submit()).again_in_ms is None
        (probe,) = pipeline.provider.sends[before:]
        assert engine_of(pipeline, probe) == "GROK"
        await pipeline.deliver(pipeline.provider.finish(probe, status))
    (ended,) = await looker.look()
    assert (ended.task_type, ended.paused_at_ms) == ("GROK", None)
    assert await looker.look() == await pauses_of(pipeline).look() == [], "old failures do not count again"
    row = await run_row(pipeline)
    assert (row.reason, row.reason_code) == (None, None)
    before = len(pipeline.provider.sends)
    await pipeline.submit()
    await answer(pipeline, pipeline.provider.sends[before:])
    assert (await store.queries.progress(pipeline.run_id)).states == {"completed": 40 - 9, "failed": 9}
    await pipeline.books()


async def test_an_engine_that_fails_again_is_paused_again(pipeline: Pipeline) -> None:
    pipeline.limits = FEW
    looker = await fail_engine(pipeline, 60)
    for _ in range(3):
        pipeline.clock.advance(1.5 * PROBE_MS)
        await answer(pipeline, await send_some(pipeline, 99))
    assert [pause.paused_at_ms for pause in await looker.look()] == [None]
    pipeline.clock.advance(1)
    await answer(pipeline, await send_some(pipeline, 16), failing="GROK")
    assert [pause.paused_at_ms for pause in await looker.look()] == [pipeline.clock()]


async def test_a_run_without_the_option_goes_on_with_the_engine(pipeline: Pipeline) -> None:
    pipeline.limits = FEW
    await fail_engine(pipeline, 16, pause_failing_engines=False)
    assert await paused_at_ms(pipeline.store) == [], "no run wants it"
    await fail_engine(pipeline)
    with_option = pipeline.run_id
    await pipeline.submit()
    assert (await pipeline.store.queries.progress(with_option)).states["pending"]
    await pipeline.start(8, engines=ENGINES)
    await pipeline.submit()
    assert "pending" not in (await pipeline.store.queries.progress(pipeline.run_id)).states
    assert (await run_row(pipeline)).reason is None


async def test_a_pause_ends_with_the_last_run_that_wants_it(pipeline: Pipeline) -> None:
    pipeline.limits = FEW
    looker = await fail_engine(pipeline)
    assert await pipeline.store.runs.cancel_run(pipeline.run_id, "by hand")
    assert [pause.paused_at_ms for pause in await looker.look()] == [None]
    await pipeline.start(8, engines=ENGINES, pause_failing_engines=True)
    assert await looker.look() == []
    before = len(pipeline.provider.sends)
    await pipeline.submit()
    assert len(pipeline.provider.sends) == before + 8


async def test_an_attempt_that_was_sent_before_goes_on(pipeline: Pipeline) -> None:
    """The provider may have it, and would forget its key within a day."""
    pipeline.limits = FEW
    await fail_engine(pipeline)
    await pipeline.submit()
    pending = [i for i in pipeline.task_ids if f"{i}.1" not in pipeline.provider.accepted]
    sent = sa.update(tasks).where(tasks.c.id == pending[0]).values(sends=1, first_sent_at_ms=pipeline.clock())
    await pipeline.store.db.write(lambda c: c.execute(sent))
    before = len(pipeline.provider.sends)
    await pipeline.submit()
    assert pipeline.provider.sends[before:] == [f"{pending[0]}.1"]


async def test_a_reason_for_which_nothing_is_sent_stands_before_it(pipeline: Pipeline) -> None:
    pipeline.limits = FEW
    looker = await fail_engine(pipeline)
    backlog = RunReason(ReasonCode.BACKLOG, "waiting: the provider is full")
    await pipeline.store.accounts.note_waiting("default", backlog)
    await looker.look()
    assert (await run_row(pipeline)).reason == backlog.text
    await pipeline.store.accounts.note_waiting("default", None)
    await looker.look()
    assert (await run_row(pipeline)).reason_code == ReasonCode.ENGINES_FAIL


async def test_a_probe_is_taken_by_one_claim_and_a_wrong_clock_stops_none(pipeline: Pipeline) -> None:
    pipeline.limits = FEW
    await fail_engine(pipeline)
    await pipeline.submit()
    clock, store = pipeline.clock, pipeline.store
    clock.advance(2 * PROBE_MS)
    claimed = [
        await store.submissions.claim_pending(
            limit=9, claim=token, now_ms=clock(), lease_until_ms=clock() + 1, probe_after_ms=PROBE_MS
        )
        for token in ("one", "two")
    ]
    assert [len(found) for found in claimed] == [1, 0]
    assert await store.queries.accounts_with_due(clock()) == []
    ahead = sa.update(engine_pauses).values(probe_at_ms=clock() + 10 * 3_600_000)
    await store.db.write(lambda c: c.execute(ahead))
    assert await store.queries.accounts_with_due(clock()) == ["default"], "an hour and a half at most"


async def test_a_forecast_knows_who_waits(pipeline: Pipeline) -> None:
    pipeline.limits = FEW
    await fail_engine(pipeline)
    now = pipeline.clock()
    (run,) = forecast(await pipeline.store.forecasts.forecast_input("default", now)).runs
    assert (run.open, run.why_not) == (24, "12 tasks wait until answers of GROK can be used again")
    pipeline.clock.advance(1)
    await pipeline.start(40, engines=ENGINES)
    found = forecast(await pipeline.store.forecasts.forecast_input("default", now))
    assert [it.why_not for it in found.runs] == [run.why_not, None], "the second one does not want it"
    assert found.queued == 12 + 40
