"""Ends of runs: one with no open task is finished, has the moment of its end, and a retry opens it again."""

import asyncio

import pytest

from app.domain.run_reason import ReasonCode, RunReason
from app.domain.send_outcome import Answer
from app.domain.task import RunState
from app.provider.wire import read_answer
from app.services.notice_triggers import Watcher
from app.store import Database, Store
from app.store.read.runs import RunRow
from tests.integration.store.scenes import (
    NOW,
    check_books,
    claim,
    ended,
    failed_on,
    report_on,
    rows,
    settle_all,
    start_run,
    submit_all,
)
from tests.statements import held_before

LATER = NOW + 60_000


async def run_of(store: Store, run_id: str) -> RunRow:
    return next(run for run in await store.queries.list_runs() if run.id == run_id)


async def stands(store: Store, run_id: str) -> tuple[str, int | None]:
    run = await run_of(store, run_id)
    return run.state, run.finished_at_ms


async def test_a_run_ends_with_its_last_task(store: Store) -> None:
    run_id, _ = await start_run(store, 2)
    for_nothing = await store.run_ends.finish_runs(LATER), await stands(store, run_id)
    assert for_nothing == (0, ("running", None))
    first, second = await submit_all(store)
    await settle_all(store, report_on(first))
    assert await store.run_ends.finish_runs(LATER) == 0
    await settle_all(store, failed_on(second), now_ms=NOW + 5_000)
    assert (await store.run_ends.finish_runs(LATER), await store.run_ends.finish_runs(LATER)) == (1, 0)
    assert await stands(store, run_id) == ("finished", NOW + 5_000), "the moment of the last settlement"
    assert await store.queries.accounts_with_due(LATER) == []


async def test_ends_without_a_settlement_have_the_time_of_the_look(store: Store) -> None:
    rejected, _ = await start_run(store)
    await store.submissions.record_submissions([ended(task, Answer.REJECTED) for task in await claim(store)])
    empty, _ = await start_run(store, 0)
    assert await store.run_ends.finish_runs(LATER) == 2
    assert await stands(store, rejected) == await stands(store, empty) == ("finished", LATER)


async def test_a_retried_run_goes_on_and_ends_again(store: Store) -> None:
    run_id, ids = await start_run(store)
    (task,) = await submit_all(store)
    await settle_all(store, failed_on(task))
    await store.run_ends.finish_runs(LATER)
    stretch = await store.retries.retry_chunk(
        run_id, ["failed"], after=0, limit=10, even_if_held=False, now_ms=LATER
    )  # type: ignore[list-item]
    assert (stretch.retried, await stands(store, run_id)) == (1, ("running", None))
    assert await store.queries.accounts_with_due(LATER) == ["default"]
    (again,) = await submit_all(store, now_ms=LATER)
    await settle_all(store, failed_on(again), now_ms=LATER + 1)
    await store.run_ends.finish_runs(LATER + 2)
    assert await stands(store, run_id) == ("finished", LATER + 1)
    assert await store.retries.retry_tasks_if_closed(ids, LATER) == 1
    assert await stands(store, run_id) == ("running", None)
    await check_books(store)


async def test_a_retry_of_nothing_leaves_it_finished(store: Store) -> None:
    run_id, _ = await start_run(store)
    (task,) = await submit_all(store)
    await settle_all(store, report_on(task))
    await store.run_ends.finish_runs(LATER)
    stretch = await store.retries.retry_chunk(
        run_id, ["failed"], after=0, limit=10, even_if_held=False, now_ms=LATER
    )  # type: ignore[list-item]
    assert (stretch.retried, (await stands(store, run_id))[0]) == (0, "finished")


async def test_a_late_report_does_not_open_it(store: Store) -> None:
    run_id, ids = await start_run(store)
    (task,) = await submit_all(store)
    await store.polls.expire_if_unreported([(ids[0], 1)], code="expired", reason="forgotten")
    assert await store.run_ends.finish_runs(LATER) == 1
    await settle_all(store, report_on(task), now_ms=LATER + 1)
    assert (await store.run_ends.finish_runs(LATER + 2), await stands(store, run_id)) == (
        0,
        ("finished", LATER),
    )
    await check_books(store)


async def test_a_cancelled_run_stays_so_and_ends_with_what_is_out(store: Store) -> None:
    run_id, _ = await start_run(store, 2)
    (task,) = await claim(store, 1)
    await store.submissions.record_submissions([ended(task)])
    await store.runs.cancel_run(run_id, "cancelled by hand")
    assert (await store.run_ends.finish_runs(LATER), await stands(store, run_id)) == (0, ("cancelled", None))
    await settle_all(store, report_on(task))
    assert (await store.run_ends.finish_runs(LATER), await store.run_ends.finish_runs(LATER)) == (1, 0)
    assert await stands(store, run_id) == ("cancelled", LATER)
    assert (await run_of(store, run_id)).reason == "cancelled by hand"


@pytest.mark.parametrize("state", [RunState.PAUSED, RunState.STOPPED])
async def test_a_halted_run_whose_tasks_are_closed_is_over(store: Store, state: RunState) -> None:
    run_id, _ = await start_run(store)
    (task,) = await submit_all(store)
    await store.runs.halt_run_if_running(run_id, state, RunReason(ReasonCode.BY_HAND, "why"))
    await settle_all(store, report_on(task))
    await store.run_ends.finish_runs(LATER)
    run = await run_of(store, run_id)
    assert (run.state, run.reason, run.reason_code) == ("finished", None, None)
    assert not await store.runs.resume_run_if_halted(run_id)
    assert await store.runs.resume_restored_run(run_id)
    run = await run_of(store, run_id)
    assert (run.state, run.restored) == ("finished", True), "it goes on when its tasks are retried"


async def test_a_remark_stays_with_the_finished_run(store: Store) -> None:
    run_id, _ = await start_run(store, 0)

    async def remark(connection: object) -> None:
        import sqlalchemy as sa

        await connection.execute(sa.text("UPDATE runs SET reason = '2 slots were skipped'"))  # type: ignore[attr-defined]

    await store.db.write(remark)
    await store.run_ends.finish_runs(LATER)
    assert (await run_of(store, run_id)).reason == "2 slots were skipped"


async def test_a_retry_during_the_look_is_not_lost(postgres_url: str) -> None:
    """The look found the run over; a retry that is not committed yet holds it."""
    one, other = Store(Database(postgres_url), read_answer), Store(Database(postgres_url), read_answer)
    try:
        run_id, ids = await start_run(one)
        (task,) = await submit_all(one)
        await settle_all(one, failed_on(task))
        with held_before(one.db, "UPDATE runs") as hold:
            retrying = asyncio.create_task(one.retries.retry_tasks_if_closed(ids, LATER))
            await hold.reached.wait()
            finishing = asyncio.create_task(other.run_ends.finish_runs(LATER))
            await hold.until_waited_for(other, finishing)
            hold.go_on.set()
            assert (await retrying, await finishing) == (1, 0)
        assert await stands(one, run_id) == ("running", None)
    finally:
        await one.close()
        await other.close()


async def test_many_ends_are_marked_in_several_looks_and_told_once(store: Store) -> None:
    for _ in range(25):
        await start_run(store)
    for task in await submit_all(store):
        await settle_all(store, report_on(task))
    watcher = Watcher(store, clock=lambda: LATER)
    for _ in range(3):
        await watcher.look()
    kinds = await rows(store, "SELECT kind, count(*) AS n FROM notices GROUP BY kind")
    assert kinds == [{"kind": "run.finished", "n": 25}]
