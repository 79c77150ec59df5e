"""Retrying tasks of a run, and cancelling one whose tasks are on their way out."""

import asyncio
from decimal import Decimal

import pytest

from app.domain.send_outcome import Answer
from app.domain.task import RETRYABLE_STATES, RunState, TaskState
from app.provider.wire import read_answer
from app.services.retry import Retried, retry_run
from app.store import Database, Store
from app.store.write.retries import RetriedChunk
from tests.integration.store.scenes import (
    NOW,
    check_books,
    claim,
    count,
    ended,
    failed_on,
    report_on,
    rows,
    settle_all,
    start_run,
    submit_all,
)

ALL = sorted(RETRYABLE_STATES)


async def retry(
    store: Store,
    run_id: str,
    *,
    states: list[TaskState] = ALL,
    even_if_held: bool = False,
    after: int = 0,
    limit: int = 100,
) -> RetriedChunk:
    return await store.retries.retry_chunk(
        run_id, states, after=after, limit=limit, even_if_held=even_if_held, now_ms=NOW
    )


async def expired_run(store: Store, tasks: int = 1) -> str:
    """A run whose tasks were accepted and never heard of again: closed, their holds open."""
    run_id, ids = await start_run(store, tasks)
    await submit_all(store)
    await store.polls.expire_if_unreported([(i, 1) for i in ids], code="retention_over", reason="gone")
    return run_id


async def test_failed_tasks_get_new_attempts_under_new_keys(store: Store) -> None:
    run_id, ids = await start_run(store, 3)
    sent = await submit_all(store)
    await settle_all(store, failed_on(sent[0]), report_on(sent[1]), failed_on(sent[2]))
    assert await retry(store, run_id) == RetriedChunk(3, 2, Decimal(10))
    again = await claim(store)
    assert [task.idempotency_key for task in again] == [f"{ids[0]}.2", f"{ids[2]}.2"]
    await check_books(store)


async def test_a_dry_run_says_the_same_and_changes_nothing(store: Store) -> None:
    run_id, _ = await start_run(store, 3)
    sent = await submit_all(store)
    await settle_all(store, failed_on(sent[0]), report_on(sent[1]), failed_on(sent[2]))

    async def retried(*, is_dry_run: bool) -> Retried:
        return await retry_run(store, run_id, ALL, clock=lambda: NOW, is_dry_run=is_dry_run)

    for _ in range(2):
        assert await retried(is_dry_run=True) == Retried(2, Decimal(10), last=3)
    assert await claim(store) == []
    assert await retried(is_dry_run=False) == Retried(2, Decimal(10), last=3)
    assert len(await claim(store)) == 2


async def test_retried_once_however_many_ask(store: Store, store_url: str) -> None:
    run_id, _ = await start_run(store, 40)
    await settle_all(store, *(failed_on(task) for task in await submit_all(store)))
    others = [Store(Database(store_url), read_answer) for _ in range(3)]
    try:
        done = await asyncio.gather(*(retry(one, run_id) for one in (store, *others)))
    finally:
        for other in others:
            await other.close()
    assert sum(stretch.retried for stretch in done) == 40
    assert await count(store, "SELECT count(*) FROM tasks WHERE attempt = 2") == 40
    assert (await retry(store, run_id)).retried == 0
    await check_books(store)


async def test_a_stretch_goes_on_where_the_last_one_ended(store: Store) -> None:
    run_id, _ = await start_run(store, 5)
    await settle_all(store, *(failed_on(task) for task in await submit_all(store)))
    first = await retry(store, run_id, limit=3)
    second = await retry(store, run_id, limit=3, after=first.last)
    assert [(s.last, s.retried) for s in (first, second)] == [(3, 3), (5, 2)]
    assert (await retry(store, run_id, after=5)).last == 0


async def test_only_the_states_that_were_asked_for(store: Store) -> None:
    run_id, _ = await start_run(store, 2)
    tasks = await claim(store)
    await store.submissions.record_submissions([ended(tasks[0]), ended(tasks[1], Answer.REJECTED)])
    await settle_all(store, failed_on(tasks[0]))
    assert (await retry(store, run_id, states=[TaskState.REJECTED])).retried == 1
    assert (await retry(store, run_id, states=[TaskState.FAILED])).retried == 1


async def test_open_money_is_left_alone_unless_asked_for(store: Store) -> None:
    run_id = await expired_run(store, 2)
    assert await retry(store, run_id) == RetriedChunk(2, held=2)
    assert await retry(store, run_id, even_if_held=True) == RetriedChunk(2, 2, Decimal(10))
    await check_books(store)


async def test_an_unidentified_task_may_be_charged_too(store: Store) -> None:
    run_id, _ = await start_run(store)
    (task,) = await claim(store)
    await store.submissions.record_submissions([ended(task, Answer.LOST, not_before_ms=NOW)])
    assert await store.submissions.expire_unidentified(sent_before_ms=NOW, reason="old") == 1
    assert (await retry(store, run_id)).held == 1


async def test_an_answer_that_came_late_is_not_bought_again(store: Store) -> None:
    run_id, ids = await start_run(store)
    (task,) = await submit_all(store)
    await store.polls.expire_if_unreported([(ids[0], 1)], code="retention_over", reason="gone")
    await settle_all(store, report_on(task))
    for even_if_held in (False, True):
        assert await retry(store, run_id, even_if_held=even_if_held) == RetriedChunk(1, answered=1)


@pytest.mark.parametrize("state", ["cancelled", "loading"])
async def test_a_run_that_does_not_send_gets_no_attempts(store: Store, state: str) -> None:
    run_id, _ = await start_run(store)
    await settle_all(store, *(failed_on(task) for task in await submit_all(store)))
    if state == "cancelled":
        await store.runs.cancel_run(run_id, "by hand")
        assert await retry(store, run_id) == RetriedChunk(0)
    else:
        fresh = await store.runs.create_run(name="r", source="-", budget=None, now_ms=NOW)
        assert await retry(store, fresh) == RetriedChunk(0)


async def test_a_cancelled_run_takes_with_it_what_did_not_arrive(store: Store) -> None:
    run_id, _ = await start_run(store, 4)
    tasks = await claim(store)
    assert await store.runs.cancel_run(run_id, "by hand") == 0, "all are on their way"
    answers = [Answer.ACCEPTED, Answer.RATE_LIMITED, Answer.DEFERRED, Answer.LOST]
    await store.submissions.record_submissions([ended(t, a) for t, a in zip(tasks, answers, strict=True)])
    states = await rows(store, "SELECT state FROM tasks ORDER BY ordinal")
    # The lost one may have been accepted: it waits under its key for its report or its age.
    assert [row["state"] for row in states] == ["submitted", "cancelled", "cancelled", "pending"]
    assert (await store.queries.find_runs(run_id))[0].state == RunState.CANCELLED
