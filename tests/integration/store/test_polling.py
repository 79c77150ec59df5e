"""Asking for reports that never came, and giving up on those that never will."""

import asyncio

from app.domain.task import TaskState
from app.provider.wire import read_answer
from app.store import Database, Store
from app.store.write.polls import POLL_BACKOFF_STEPS
from tests.integration.store.scenes import (
    NOW,
    check_books,
    claim,
    ended,
    failed_on,
    report_on,
    settle_all,
    start_run,
    submit_all,
    task_row,
)

DUE = NOW + 600_000
EVERY = 60_000


async def due(store: Store, now_ms: int, *, limit: int = 10) -> list:  # type: ignore[type-arg]
    return await store.polls.claim_due_polls(limit=limit, now_ms=now_ms, interval_ms=EVERY)


async def test_a_task_without_a_report_is_asked_for_when_it_is_due(store: Store) -> None:
    _, ids = await start_run(store)
    (task,) = await submit_all(store)
    assert await due(store, DUE - 1) == []
    (poll,) = await due(store, DUE)
    assert (poll.task_id, poll.attempt, poll.state) == (ids[0], 1, TaskState.SUBMITTED)
    assert (poll.provider_task_id, poll.idempotency_key) == (f"p-{task.id}-1", task.idempotency_key)
    assert (poll.first_sent_at_ms, poll.polls, poll.account) == (NOW, 1, "default")
    assert await due(store, DUE) == []


async def test_the_interval_grows_to_a_bound(store: Store) -> None:
    await start_run(store)
    await submit_all(store)
    now, waits = DUE, []
    for _ in range(POLL_BACKOFF_STEPS + 3):
        (poll,) = await due(store, now)
        row = await task_row(store, poll.task_id)
        waits.append((row["next_poll_at_ms"] - now) // EVERY)
        now = row["next_poll_at_ms"]
    assert waits == [*range(1, POLL_BACKOFF_STEPS + 1), 8, 8, 8]


async def test_the_longest_overdue_is_asked_first(store: Store) -> None:
    await start_run(store, 3)
    tasks = await claim(store)
    order = [2, 0, 1]
    await store.submissions.record_submissions(
        [ended(tasks[n], next_poll_at_ms=DUE + place) for place, n in enumerate(order)]
    )
    asked = [(await due(store, DUE + 10, limit=1))[0].task_id for _ in order]
    assert asked == [tasks[n].id for n in order]


async def test_two_sweeps_ask_for_different_tasks(store: Store) -> None:
    _, ids = await start_run(store, 40)
    await submit_all(store)
    other = Store(Database(store.db.url), read_answer)
    try:
        found = await asyncio.gather(*(due(one, DUE, limit=10) for one in [store, other] * 4))
    finally:
        await other.close()
    assert sorted(poll.task_id for batch in found for poll in batch) == sorted(ids)


async def test_only_what_is_open_is_asked_for(store: Store) -> None:
    _, ids = await start_run(store, 5)
    tasks = await claim(store, 4)
    await store.submissions.record_submissions([ended(task) for task in tasks[:3]])
    await settle_all(store, report_on(tasks[0]), report_on(tasks[1], None))
    asked = {poll.task_id for poll in await due(store, DUE)}
    # The one whose charge is unknown, and the one without a report; not what is settled, claimed or pending.
    assert asked == {ids[1], ids[2]}


async def test_expiry_closes_the_work_and_not_the_money(store: Store) -> None:
    run_id, ids = await start_run(store)
    (task,) = await submit_all(store)
    assert await store.polls.expire_if_unreported([(ids[0], 1)], code="expired", reason="forgotten") == 1
    assert await store.polls.expire_if_unreported([(ids[0], 1)], code="expired", reason="forgotten") == 0
    assert await store.polls.expire_if_unreported([], code="", reason="") == 0
    row = await task_row(store, ids[0])
    assert (row["state"], row["money"], row["next_poll_at_ms"]) == ("expired", "held", None)
    assert (row["error_code"], row["error_message"]) == ("expired", "forgotten")
    assert await due(store, DUE * 2) == []
    report = await store.reports.report((await store.queries.find_runs(run_id))[0])
    assert (report.held, report.unknown) == (5, 1)
    await check_books(store)
    await settle_all(store, failed_on(task))
    row = await task_row(store, ids[0])
    assert (row["state"], row["money"], row["reported"]) == ("expired", "voided", "failed")
    assert (row["error_code"], row["error_message"]) == ("expired", "forgotten")
    await check_books(store)


async def test_a_report_that_was_faster_is_not_expired(store: Store) -> None:
    _, ids = await start_run(store, 2)
    tasks = await submit_all(store)
    await settle_all(store, report_on(tasks[0]), report_on(tasks[1], None))
    expired = [(task_id, 1) for task_id in ids]
    assert await store.polls.expire_if_unreported(expired, code="expired", reason="forgotten") == 0
    assert [(await task_row(store, i))["state"] for i in ids] == ["completed", "completed"]
    # There is nobody left to ask for the charge, and its money stays open for a person to see.
    row = await task_row(store, ids[1])
    assert (row["money"], row["next_poll_at_ms"]) == ("held", None)
    await check_books(store)


async def test_another_attempt_is_not_expired(store: Store) -> None:
    _, ids = await start_run(store)
    (task,) = await submit_all(store)
    await settle_all(store, failed_on(task))
    await store.retries.retry_tasks_if_closed(ids, NOW)
    await submit_all(store)
    assert await store.polls.expire_if_unreported([(ids[0], 1)], code="expired", reason="forgotten") == 0
    assert (await task_row(store, ids[0]))["state"] == "submitted"
