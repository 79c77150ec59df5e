"""Claims by ranges of ordinals: a task's own row is written when its send has ended, and not before."""

import asyncio
from decimal import Decimal

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.send_outcome import Answer
from app.provider.wire import read_answer
from app.store import Database, Store
from app.store.finish_results import drop_response
from app.store.write.claims import spans
from tests.integration.store.scenes import (
    FIVE,
    LEASE_MS,
    NOW,
    check_books,
    claim,
    ended,
    report_on,
    rows,
    settle_all,
    start_run,
    task_row,
)
from tests.statements import held_before

RANGES = "SELECT first_ordinal, last_ordinal FROM claims ORDER BY 1"


async def ranges(store: Store) -> list[tuple[int, int]]:
    """Of all claims, as they are stored."""
    return [(row["first_ordinal"], row["last_ordinal"]) for row in await rows(store, RANGES)]


@pytest.mark.parametrize(
    ("ordinals", "expected"),
    [([], []), ([7], [(7, 7)]), ([3, 1, 2], [(1, 3)]), ([1, 2, 4, 6, 7], [(1, 2), (4, 4), (6, 7)])],
)
def test_spans(ordinals: list[int], expected: list[tuple[int, int]]) -> None:
    assert spans(ordinals) == expected


async def test_a_claim_is_one_row_and_leaves_those_of_its_tasks(store: Store) -> None:
    _, ids = await start_run(store, 9)
    before = [await task_row(store, i) for i in ids]
    tasks = await claim(store, 5)
    assert await ranges(store) == [(1, 5)]
    assert [await task_row(store, i) for i in ids] == before
    assert [task.ordinal for task in await claim(store, 2, token="other")] == [6, 7]
    await store.submissions.record_submissions([ended(task) for task in tasks])
    assert await ranges(store) == [(6, 7)], "forgotten with its last task"
    row = await task_row(store, ids[0])
    assert (row["state"], row["sends"], row["first_sent_at_ms"]) == ("submitted", 1, NOW)


@pytest.mark.parametrize("answer", [Answer.DEFERRED, Answer.NO_CREDITS])
async def test_what_was_given_back_unsent_is_free_at_once(store: Store, answer: Answer) -> None:
    _, ids = await start_run(store, 6)
    tasks = await claim(store)
    await store.submissions.record_submissions([ended(task, answer) for task in tasks[2:4]])
    assert await ranges(store) == [(1, 2), (5, 6)]
    again = await claim(store, token="other")
    assert [(task.id, task.sends) for task in again] == [(ids[2], 1), (ids[3], 1)]
    await store.submissions.record_submissions([ended(task) for task in (*tasks[:2], *tasks[4:])])
    assert await ranges(store) == [(3, 4)]


async def test_a_send_that_is_to_be_repeated_waits_for_its_time_and_not_for_its_range(store: Store) -> None:
    _, ids = await start_run(store, 3)
    tasks = await claim(store)
    await store.submissions.record_submissions([ended(tasks[0], Answer.LOST, not_before_ms=NOW + 5_000)])
    assert await claim(store, now_ms=NOW + 4_999) == []
    again = await claim(store, now_ms=NOW + 5_000, token="other")
    assert [(task.id, task.sends, task.in_range) for task in again] == [(ids[0], 2, False)]
    assert (await task_row(store, ids[0]))["state"] == "submitting"


async def test_the_sweep_counts_a_send_that_nobody_recorded(store: Store) -> None:
    _, ids = await start_run(store, 4)
    tasks = await claim(store)
    await store.submissions.record_submissions([ended(tasks[0])])
    await settle_all(store, report_on(tasks[1]))  # its report overtook the record, which is never made
    assert await store.submissions.release_overdue_claims(NOW + LEASE_MS) == 3
    assert await ranges(store) == []
    found = [await task_row(store, i) for i in ids]
    assert [(row["state"], row["sends"], row["first_sent_at_ms"]) for row in found] == [
        ("submitted", 1, NOW),
        ("completed", 1, NOW),
        ("pending", 1, NOW),
        ("pending", 1, NOW),
    ]
    again = await claim(store, token="other")
    assert [(task.idempotency_key, task.sends) for task in again] == [(f"{i}.1", 2) for i in ids[2:]]
    await check_books(store)


async def test_a_late_record_counts_as_the_send_that_it_was(store: Store) -> None:
    """The lease was over, and the sweep had noted that the task may have been sent."""
    _, ids = await start_run(store, 2)
    slow, other = await claim(store)
    await store.submissions.release_overdue_claims(NOW + LEASE_MS)
    await store.submissions.record_submissions([ended(slow), ended(other, Answer.DEFERRED)])
    assert (await task_row(store, ids[0]))["sends"] == 1
    row = await task_row(store, ids[1])
    assert (row["state"], row["sends"]) == ("pending", 1), "what the sweep noted stays"
    await check_books(store)


async def test_what_is_claimed_counts_as_spent_and_as_open(store: Store) -> None:
    await start_run(store, 4, budget=Decimal(100))
    await claim(store, 3)
    assert await store.accounts.spent_since("default", 0) == 3 * FIVE
    exposure = await store.charges.exposure("default")
    assert (exposure.held_tasks, exposure.held) == (3, 3 * FIVE)
    assert await store.charges.working_before("default", NOW + 1) == 3


async def test_what_is_claimed_is_not_due(store: Store) -> None:
    await start_run(store, 2)
    await claim(store)
    assert await store.queries.accounts_with_due(NOW) == []


async def test_a_cancelled_run_takes_what_is_given_back_with_it(store: Store) -> None:
    run_id, ids = await start_run(store, 3)
    tasks = await claim(store)
    assert await store.runs.cancel_run(run_id, "enough") == 0
    await store.submissions.record_submissions([ended(tasks[0]), ended(tasks[1], Answer.DEFERRED)])
    states = [(await task_row(store, task_id))["state"] for task_id in ids]
    assert states == ["submitted", "cancelled", "pending"]


async def test_a_run_is_cancelled_before_or_after_a_claim(postgres_url: str) -> None:
    """Cancelled while a claim of it is not committed: what that claims is on its way, and stays."""
    one, other = Store(Database(postgres_url), read_answer), Store(Database(postgres_url), read_answer)
    try:
        run_id, _ = await start_run(one, 6)
        with held_before(one.db, "INSERT INTO claims") as hold:
            claiming = asyncio.create_task(claim(one, 4))
            await hold.reached.wait()
            cancelling = asyncio.create_task(other.runs.cancel_run(run_id, "enough"))
            await hold.until_waited_for(one, cancelling)
            hold.go_on.set()
            assert len(await claiming) == 4
            assert await cancelling == 2
    finally:
        await one.close()
        await other.close()


async def test_rows_are_claimed_while_the_version_before_may_be_there(store: Store) -> None:
    """It knows no ranges: an upgrade that is not finished goes on with what both understand."""

    async def unfinish(connection: AsyncConnection) -> None:
        await connection.execute(sa.text("ALTER TABLE results ADD COLUMN response TEXT"))

    await store.db.write(unfinish)
    try:
        await _claim_rows(store)
    finally:
        await drop_response(store.db)  # the next test has the same database


async def _claim_rows(store: Store) -> None:
    _, ids = await start_run(store, 3)
    tasks = await claim(store)
    assert await ranges(store) == []
    row = await task_row(store, ids[0])
    assert (row["state"], row["claim"], row["sends"]) == ("submitting", "me", 1)
    await store.submissions.record_submissions(
        [ended(tasks[0]), ended(tasks[1], Answer.DEFERRED), ended(tasks[2], Answer.LOST)]
    )
    found = [await task_row(store, i) for i in ids]
    assert [(row["state"], row["sends"]) for row in found] == [
        ("submitted", 1),
        ("pending", 0),
        ("pending", 1),
    ]
