"""What the database keeps of each run's counts and credits is what its rows come to, whoever writes them."""

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from app.domain.send_outcome import Answer
from app.domain.task import TaskSpec, TaskState
from app.provider.wire import read_answer
from app.store import Database, Store
from app.store.read.progress import RunProgress
from app.store.tables import rollup_changes, run_rollup, runs
from app.store.write.rollup import RollupWrites
from tests.books import checked_books, read_books, rollup_kept
from tests.integration.store.scenes import (
    FIVE,
    LEASE_MS,
    NOW,
    apply,
    claim,
    count,
    ended,
    execute,
    failed_on,
    receive,
    report_on,
    settle_all,
    start_run,
    submit_all,
)


async def forget_rollup(store: Store) -> None:
    """As of a run that was there before the triggers."""
    await execute(
        store, sa.delete(run_rollup), sa.delete(rollup_changes), sa.update(runs).values(has_rollup=False)
    )


async def counted_progress(store: Store, run_id: str) -> RunProgress:
    """The same from the rows, of a run of which all is kept."""
    of_run = sa.update(runs).where(runs.c.id == run_id)
    await execute(store, of_run.values(has_rollup=False))
    found = await store.queries.progress(run_id)
    await execute(store, of_run.values(has_rollup=True))
    return found


async def test_every_step_of_a_run_is_kept(store: Store) -> None:
    """Each of ours, a person's, and those of the version before, which knows nothing of it."""
    run_id, ids = await start_run(store, 12)
    versions: list[str | None] = []

    async def look() -> RunProgress:
        await checked_books(store)
        kept = await store.queries.progress(run_id)
        assert replace(kept, version=None) == await counted_progress(store, run_id)
        versions.append(kept.version)
        return kept

    assert (await look()).states == {"pending": 12}
    tasks = await claim(store, 10)
    assert (await look()).states == {"submitting": 10, "pending": 2}, "ranges, of which no row is written"
    answers = [Answer.ACCEPTED] * 7 + [Answer.REJECTED, Answer.LOST, Answer.DEFERRED]
    await store.submissions.record_submissions(
        [ended(task, answer) for task, answer in zip(tasks, answers, strict=True)]
    )
    assert (await look()).states == {"submitted": 7, "rejected": 1, "pending": 4}
    await settle_all(store, report_on(tasks[0]), report_on(tasks[1], 7), failed_on(tasks[2]))
    await settle_all(store, report_on(tasks[3], None), report_on(tasks[1], 7, response=b'{"text":"no"}'))
    seen = await look()
    assert (seen.held, seen.charged) == (4 * FIVE, Decimal(12))
    await store.polls.expire_if_unreported([(ids[4], 1)], code="x", reason="too old")
    assert await store.retries.retry_tasks_if_closed([ids[2], ids[4], ids[7]], NOW) == 3
    seen = await look()
    assert (seen.tasks, seen.verdicts) == (
        12,
        {"matched": 1, "overcharged": 1, "free_failure": 1, "unknown": 1},
    )
    assert {cell.state for cell in seen.cells if not cell.is_current} == {"failed", "expired", "rejected"}
    await settle_all(store, report_on(tasks[4], 6), report_on(tasks[3]))
    await look()
    await store.rollup.fold_rollup()
    assert (await store.queries.progress(run_id)).version == versions[-1], "it says the same"
    await execute(
        store,
        "UPDATE tasks SET credits_charged = 3000000, task_type = 'GROK' WHERE ordinal = 6",
        "DELETE FROM tasks WHERE ordinal = 12",
        "DELETE FROM attempts WHERE state = 'rejected'",
    )
    assert rollup_kept(books := await read_books(store), {run_id}), books
    await execute(store, "UPDATE tasks SET credits_charged = NULL WHERE ordinal = 6")
    assert await store.runs.cancel_run(run_id, "by hand") > 0
    await look()
    assert None not in versions and len(set(versions)) == len(versions)


async def test_a_call_and_what_is_reused_are_kept(store: Store) -> None:
    spec = TaskSpec(1, "CHATGPT", {"prompt": "p"})
    run_id, task_id = await store.sync_calls.open_call(
        spec, FIVE, name="ask", account="default", next_poll_at_ms=NOW, now_ms=NOW
    )
    assert (await store.queries.progress(run_id)).held == FIVE
    assert await store.sync_calls.void_call(task_id, code=None, message=None, now_ms=NOW)
    assert (await store.queries.progress(run_id)).states == {"rejected": 1}
    await settle_all(store, report_on((await start_one(store))[0]))
    again = await store.runs.create_run(
        name="r", source="-", budget=None, now_ms=NOW, reuse_within_ms=LEASE_MS
    )
    await store.loading.store_chunk(again, [(spec, FIVE)], after=0, known_to=0, merge=False, now_ms=NOW)
    assert (await store.queries.progress(again)).states == {"completed": 1}
    assert await store.runs.discard_run(again)
    await checked_books(store)
    assert not rollup_kept(await read_books(store), {again})


async def start_one(store: Store) -> list[Any]:
    run_id = await store.runs.create_run(name="one", source="-", budget=None, now_ms=NOW)
    await store.runs.add_tasks(run_id, [(TaskSpec(1, "CHATGPT", {"prompt": "p"}), FIVE)], NOW)
    await store.runs.start_run_if_loading(run_id, sha256="", bad_lines=0)
    return await submit_all(store)


async def test_a_run_of_before_is_counted_beside_its_writers(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, _ = await start_run(store, 6)
    tasks = await submit_all(store)
    await settle_all(store, report_on(tasks[0]))
    await forget_rollup(store)
    await settle_all(store, report_on(tasks[1]))
    seen = await store.queries.progress(run_id)
    assert (seen.states, seen.version) == ({"completed": 2, "submitted": 4}, None), "not by what is kept"
    late = iter(tasks[2:])
    unkept = RollupWrites._unkept
    both_count = asyncio.Barrier(2)

    async def count_and_settle(self: RollupWrites, run_id: str) -> Any:
        await both_count.wait()  # or one may be done before the other looks
        found = await unkept(self, run_id)
        await settle_all(store, report_on(next(late)))
        await store.rollup.fold_rollup()
        return found

    monkeypatch.setattr(RollupWrites, "_unkept", count_and_settle)
    both = await asyncio.gather(store.rollup.count_runs(), store.rollup.count_runs())
    assert sum(both) == 1, "one of them adds it"
    assert await store.rollup.count_runs() == 0
    await checked_books(store)
    seen = await store.queries.progress(run_id)
    assert seen.version is not None and seen.states == {"completed": 4, "submitted": 2}


async def test_what_is_wrong_is_made_right_by_counting_again(store: Store) -> None:
    """As docs/operations.md says."""
    run_id, _ = await start_run(store, 3)
    await execute(store, "UPDATE run_rollup SET attempts = 9", "UPDATE rollup_changes SET attempts = 8")
    assert (await store.queries.progress(run_id)).tasks > 3
    await execute(store, "UPDATE runs SET has_rollup = false")
    assert await store.rollup.count_runs() == 1
    assert (await store.queries.progress(run_id)).tasks == 3
    await checked_books(store)


async def test_settlements_of_one_run_at_once_are_all_kept(store_url: str) -> None:
    """While changes are added up, and somebody looks, to whom nothing is counted twice or missing."""
    stores = [Store(Database(store_url), read_answer) for _ in range(3)]
    try:
        run_id, _ = await start_run(stores[0], 60)
        tasks = await submit_all(stores[0])
        waiting = [await receive(stores[0], *map(report_on, tasks[n : n + 5])) for n in range(0, 60, 5)]
        begun = await stores[0].queries.progress(run_id)

        async def settle(store: Store) -> None:
            while waiting:
                await apply(store, waiting.pop())
                await store.rollup.fold_rollup()

        work = asyncio.gather(*map(settle, stores))
        versions = [int(begun.version or 0)]
        while not work.done():
            seen = await stores[0].queries.progress(run_id)
            assert seen.tasks == 60 and seen.held + seen.charged == 60 * FIVE
            versions.append(int(seen.version or 0))
            await asyncio.sleep(0)
        await work
        assert versions == sorted(versions)
        assert (await stores[0].queries.progress(run_id)).states == {TaskState.COMPLETED: 60}
        await checked_books(stores[0])
        if not stores[0].db.is_sqlite:
            await stores[0].rollup.fold_rollup()
            assert await count(stores[0], "SELECT count(*) FROM rollup_changes") == 0
    finally:
        for store in stores:
            await store.close()
