"""Further attempts of a task: same row, new key; the old attempt's money may still move."""

import asyncio

import pytest

from app.domain.send_outcome import Answer
from app.provider.wire import read_answer
from app.store import Database, Store
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
    task_row,
)
from tests.statements import held_before

LATER = NOW + 100_000


async def test_a_retry_archives_the_old_attempt(store: Store) -> None:
    _, ids = await start_run(store)
    (task,) = await submit_all(store)
    await settle_all(store, failed_on(task))
    before = await task_row(store, ids[0])
    assert await store.retries.retry_tasks_if_closed(ids, LATER) == 1
    assert await store.retries.retry_tasks_if_closed(ids, LATER) == 0
    row = await task_row(store, ids[0])
    assert (row["state"], row["attempt"], row["idempotency_key"]) == ("pending", 2, f"{ids[0]}.2")
    assert (row["money"], row["sends"], row["polls"], row["not_before_ms"]) == ("none", 0, 0, LATER)
    blank = (
        "credits_held",
        "credits_to_charge",
        "credits_charged",
        "reported",
        "verdict",
        "provider_task_id",
        "error_code",
        "error_message",
        "first_sent_at_ms",
        "submitted_at_ms",
        "settled_at_ms",
        "settled_by",
        "claim",
        "lease_until_ms",
        "next_poll_at_ms",
    )
    assert [row[name] for name in blank] == [None] * len(blank)
    (old,) = await rows(store, "SELECT * FROM attempts")
    assert {name: old[name] for name in old if name != "task_id"} == {
        name: before[name] for name in old if name != "task_id"
    }
    await check_books(store)


@pytest.mark.parametrize("answer", [Answer.ACCEPTED, Answer.LOST])
async def test_open_and_completed_tasks_are_not_retried(store: Store, answer: Answer) -> None:
    _, ids = await start_run(store, 3)
    tasks = await claim(store, 2)
    await store.submissions.record_submissions([ended(tasks[0]), ended(tasks[1], answer)])
    await settle_all(store, report_on(tasks[0]))
    assert await store.retries.retry_tasks_if_closed(ids, LATER) == 0
    assert await store.retries.retry_tasks_if_closed([], LATER) == 0


async def test_the_new_attempt_is_sent_and_settled_by_itself(store: Store) -> None:
    run_id, ids = await start_run(store)
    (first,) = await submit_all(store)
    await settle_all(store, failed_on(first))
    await store.retries.retry_tasks_if_closed(ids, NOW)
    (second,) = await submit_all(store)
    assert (second.attempt, second.sends, second.idempotency_key) == (2, 1, f"{ids[0]}.2")
    # What the provider still says about the first attempt does not touch the second.
    await settle_all(store, failed_on(first))
    assert (await task_row(store, ids[0]))["state"] == "submitted"
    await settle_all(store, report_on(second))
    assert (await task_row(store, ids[0]))["state"] == "completed"
    assert await store.reports.findings_of(run_id) == []
    assert await count(store, "SELECT count(*) FROM results") == 2
    await check_books(store)


async def expired_then_retried(store: Store) -> tuple[str, list]:  # type: ignore[type-arg]
    run_id, ids = await start_run(store)
    (first,) = await submit_all(store)
    await store.polls.expire_if_unreported([(ids[0], 1)], code="expired", reason="forgotten")
    await store.retries.retry_tasks_if_closed(ids, NOW)
    (second,) = await submit_all(store)
    return run_id, [first, second]


@pytest.mark.parametrize("by", ["our key", "the provider's id"])
async def test_a_late_report_for_an_archived_attempt_posts(store: Store, by: str) -> None:
    _, (first, second) = await expired_then_retried(store)
    report = report_on(first) if by == "our key" else report_on(first, idempotency_key="foreign")
    assert (await settle_all(store, report)).effects == {"settled": 1}
    (old,) = await rows(store, "SELECT state, money, credits_charged, reported, error_code FROM attempts")
    assert old == {
        "state": "expired",
        "money": "posted",
        "credits_charged": 5_000_000,
        "reported": "completed",
        "error_code": "expired",
    }
    assert (await task_row(store, second.id))["state"] == "submitted"
    assert (await settle_all(store, report)).effects == {"duplicate": 1}
    await check_books(store)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("order", ["old first", "new first"])
async def test_two_charged_attempts_are_a_finding(store: Store, together: bool, order: str) -> None:
    run_id, tasks = await expired_then_retried(store)
    reports = [report_on(task) for task in (tasks if order == "old first" else tasks[::-1])]
    if together:
        await settle_all(store, *reports)
    else:
        for report in reports:
            await settle_all(store, report)
    findings = await store.reports.findings_of(run_id)
    assert [(f["verdict"], f["attempt"], f["actual"]) for f in findings] == [
        ("double_charged", 2 if order == "old first" else 1, 5)
    ]
    assert (await store.reports.report((await store.queries.find_runs(run_id))[0])).posted == 10
    await check_books(store)


async def test_two_attempts_charged_at_the_same_time_are_a_finding(postgres_url: str) -> None:
    one, other = Store(Database(postgres_url), read_answer), Store(Database(postgres_url), read_answer)
    try:
        run_id, (first, second) = await expired_then_retried(one)
        with held_before(one.db, "UPDATE deliveries") as hold:
            settling = [asyncio.create_task(settle_all(one, report_on(first)))]
            await hold.reached.wait()
            settling.append(asyncio.create_task(settle_all(other, report_on(second))))
            await hold.until_waited_for(one, settling[1])
            hold.go_on.set()
            await asyncio.gather(*settling)
        assert [f["verdict"] for f in await one.reports.findings_of(run_id)] == ["double_charged"]
        await check_books(one)
    finally:
        await one.close()
        await other.close()


async def test_a_free_attempt_is_no_double_charge(store: Store) -> None:
    run_id, tasks = await expired_then_retried(store)
    await settle_all(store, failed_on(tasks[0]), report_on(tasks[1]))
    assert await store.reports.findings_of(run_id) == []
    await check_books(store)


async def test_many_at_once(store: Store) -> None:
    _, ids = await start_run(store, 3_000)
    await store.submissions.record_submissions([ended(t, Answer.REJECTED) for t in await claim(store, 3_000)])
    # More ids than one statement takes as single parameters.
    unknown = [f"01a0f4c2-c400-7cdb-b405-{n:012x}" for n in range(40_000)]
    assert await store.retries.retry_tasks_if_closed(ids + unknown, NOW) == 3_000
    await check_books(store)
