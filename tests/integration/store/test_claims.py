"""Claiming tasks for sending: who may be claimed, by whom, in what order, within what budget."""

import asyncio
from decimal import Decimal

import pytest

from app.domain.run_reason import ReasonCode, RunReason
from app.domain.send_outcome import Answer
from app.domain.task import RunState, TaskSpec
from app.provider.wire import read_answer
from app.store import Database, Store
from tests.integration.store.scenes import (
    FIVE,
    LEASE_MS,
    NOW,
    check_books,
    claim,
    count,
    ended,
    failed_on,
    report_on,
    settle_all,
    start_run,
    submit_all,
    task_row,
)


async def test_a_claim_says_all_that_sending_needs(store: Store) -> None:
    run_id, ids = await start_run(store, 2)
    claimed = await claim(store)
    assert [task.id for task in claimed] == ids
    first = claimed[0]
    assert (first.run_id, first.attempt, first.idempotency_key) == (run_id, 1, f"{ids[0]}.1")
    assert (first.task_type, first.payload_json) == ("CHATGPT", '{"prompt":"p1","country":"US"}')
    assert (first.credits_estimate, first.sends, first.first_sent_at_ms) == (5, 1, NOW)
    assert (first.claim, first.ordinal, first.priority) == ("me", 1, 1)
    assert (await store.queries.progress(run_id)).states == {"submitting": 2}
    assert await claim(store) == []


async def test_the_key_is_stored_before_anything_is_sent(store: Store) -> None:
    _, ids = await start_run(store)
    assert (await task_row(store, ids[0]))["idempotency_key"] == f"{ids[0]}.1"


async def test_order_is_priority_then_run_then_source(store: Store) -> None:
    runs = [
        await store.runs.create_run(name=f"{n}", source="-", budget=None, now_ms=NOW + n) for n in range(2)
    ]
    for run_id in runs:
        specs = [TaskSpec(n, "GROK", {"prompt": "x"}, priority) for n, priority in ((1, 1), (2, 9), (3, 1))]
        await store.runs.add_tasks(run_id, [(spec, FIVE) for spec in specs], NOW)
        await store.runs.start_run_if_loading(run_id, sha256="", bad_lines=0)
    claimed = await claim(store, 4) + await claim(store, 4)
    assert [(task.run_id, task.ordinal) for task in claimed] == [
        (runs[0], 2),
        (runs[1], 2),
        (runs[0], 1),
        (runs[0], 3),
        (runs[1], 1),
        (runs[1], 3),
    ]


@pytest.mark.parametrize("state", [RunState.PAUSED, RunState.STOPPED])
async def test_a_halted_run_is_not_claimed_until_it_goes_on(store: Store, state: RunState) -> None:
    run_id, _ = await start_run(store)
    assert await store.runs.halt_run_if_running(run_id, state, RunReason(ReasonCode.BY_HAND, "why"))
    assert not await store.runs.halt_run_if_running(run_id, state, RunReason(ReasonCode.BY_HAND, "too late"))
    assert await store.queries.accounts_with_due(NOW) == []
    assert await claim(store) == []
    assert await store.runs.resume_run_if_halted(run_id)
    assert not await store.runs.resume_run_if_halted(run_id)
    assert await store.queries.accounts_with_due(NOW) == ["default"]
    assert len(await claim(store)) == 1


async def test_a_run_that_is_still_read_in_is_not_claimed(store: Store) -> None:
    run_id = await store.runs.create_run(name="r", source="-", budget=None, now_ms=NOW)
    await store.runs.add_tasks(run_id, [(TaskSpec(1, "GROK", {"prompt": "x"}), FIVE)], NOW)
    assert await claim(store) == []
    assert await store.runs.start_run_if_loading(run_id, sha256="", bad_lines=0)
    assert not await store.runs.start_run_if_loading(run_id, sha256="", bad_lines=0)
    assert len(await claim(store)) == 1


async def test_a_cancelled_run_sends_nothing_more(store: Store) -> None:
    run_id, _ = await start_run(store, 3)
    await claim(store, 1)
    assert await store.runs.cancel_run(run_id, "enough") == 2
    assert await claim(store) == []
    assert (await store.queries.progress(run_id)).states == {"cancelled": 2, "submitting": 1}


async def test_cancelling_takes_in_what_the_provider_surely_has_not(store: Store) -> None:
    run_id, ids = await start_run(store, 5)
    tasks = await claim(store)
    ends: list[tuple[Answer, int | None]] = [
        (Answer.LOST, None),
        (Answer.RATE_LIMITED, 429),
        (Answer.NO_CREDITS, 403),
        (Answer.UNAVAILABLE, 500),
        (Answer.UNAVAILABLE, None),  # no connection
    ]
    await store.submissions.record_submissions(
        [ended(task, answer, http_status=status) for task, (answer, status) in zip(tasks, ends, strict=True)]
    )
    assert await store.runs.cancel_run(run_id, "enough") == 3
    states = [(await task_row(store, task_id))["state"] for task_id in ids]
    assert states == ["pending", "cancelled", "cancelled", "pending", "cancelled"]


async def test_two_claimers_never_share_a_row(store: Store) -> None:
    _, ids = await start_run(store, 60)
    other = Store(Database(store.db.url), read_answer)
    try:
        batches = await asyncio.gather(
            *(claim(one, 10, token=f"c{n}") for n, one in enumerate([store, other] * 4))
        )
    finally:
        await other.close()
    claimed = [task.id for batch in batches for task in batch]
    assert sorted(claimed) == sorted(ids)
    assert all(len({task.claim for task in batch}) <= 1 for batch in batches)


async def test_not_before_is_kept(store: Store) -> None:
    _, _ = await start_run(store)
    task = (await claim(store))[0]
    await store.submissions.record_submissions([ended(task, Answer.LOST, not_before_ms=NOW + 5_000)])
    assert await claim(store, now_ms=NOW + 4_999) == []
    assert await store.queries.accounts_with_due(NOW + 4_999) == []
    again = (await claim(store, now_ms=NOW + 5_000))[0]
    assert (again.sends, again.first_sent_at_ms, again.idempotency_key) == (2, NOW, task.idempotency_key)


async def test_a_budget_pauses_the_run_before_it_is_exceeded(store: Store) -> None:
    run_id, ids = await start_run(store, 4, budget=Decimal(12))
    assert [task.id for task in await claim(store)] == ids[:2]
    run = (await store.queries.list_runs())[0]
    assert (run.state, run.reason) == ("paused", "budget reached")
    row = await task_row(store, ids[2])
    assert (row["state"], row["sends"], row["first_sent_at_ms"], row["claim"]) == ("pending", 0, None, None)
    assert await store.runs.resume_run_if_halted(run_id)
    assert await claim(store) == []


async def test_a_budget_counts_what_is_on_its_way(store: Store) -> None:
    _, ids = await start_run(store, 5, budget=Decimal(15))
    claimed = [task for _ in range(5) for task in await claim(store, 1)]
    assert [task.id for task in claimed] == ids[:3]


async def test_a_budget_counts_what_was_perhaps_accepted(store: Store) -> None:
    _, ids = await start_run(store, 3, budget=Decimal(10))
    lost = (await claim(store, 1))[0]
    await store.submissions.record_submissions([ended(lost, Answer.LOST, not_before_ms=NOW + 9_000)])
    assert [task.id for task in await claim(store)] == ids[1:2]
    assert (await store.queries.list_runs())[0].state == "paused"


async def test_a_budget_does_not_count_what_costs_nothing(store: Store) -> None:
    _, ids = await start_run(store, 4, budget=Decimal(5))
    rejected = (await claim(store, 1))[0]
    await store.submissions.record_submissions([ended(rejected, Answer.REJECTED)])
    failed = (await claim(store, 1))[0]
    await store.submissions.record_submissions([ended(failed)])
    assert (await store.queries.list_runs())[0].state == "running"
    await settle_all(store, failed_on(failed, 0))
    assert [task.id for task in await claim(store, 1)] == ids[2:3]


async def test_a_budget_counts_the_charges_of_earlier_attempts(store: Store) -> None:
    _, ids = await start_run(store, 2, budget=Decimal(10))
    task = (await submit_first(store))[0]
    await settle_all(store, failed_on(task, 5))
    assert await store.retries.retry_tasks_if_closed([task.id], NOW) == 1
    assert [one.id for one in await claim(store)] == ids[:1]
    assert (await store.queries.list_runs())[0].state == "paused"


async def submit_first(store: Store) -> list:  # type: ignore[type-arg]
    claimed = await claim(store, 1)
    await store.submissions.record_submissions([ended(task) for task in claimed])
    return claimed


async def test_a_known_charge_replaces_its_hold_in_the_budget(store: Store) -> None:
    _, ids = await start_run(store, 4, budget=Decimal(12))
    for task in await claim(store, 2):
        await store.submissions.record_submissions([ended(task)])
        await settle_all(store, report_on(task, 1))
    await store.runs.resume_run_if_halted((await store.queries.list_runs())[0].id)
    assert [task.id for task in await claim(store)] == ids[2:4]


async def test_a_resend_is_claimed_whatever_the_budget_says(store: Store) -> None:
    run_id, ids = await start_run(store, 3, budget=Decimal(10))
    first, second = await claim(store, 2)
    await store.submissions.record_submissions([ended(first, Answer.LOST), ended(second)])
    await store.runs.resume_run_if_halted(run_id)
    assert [task.id for task in await claim(store)] == [ids[0]]


async def test_two_claimers_together_keep_within_the_budget(store: Store) -> None:
    _, _ = await start_run(store, 40, budget=Decimal(50))
    other = Store(Database(store.db.url), read_answer)
    try:
        batches = await asyncio.gather(
            *(claim(one, 4, token=f"c{n}") for n, one in enumerate([store, other] * 4))
        )
    finally:
        await other.close()
    assert sum(len(batch) for batch in batches) <= 10


async def test_overdue_claims_go_back_under_the_same_key(store: Store) -> None:
    _, ids = await start_run(store)
    first = (await claim(store))[0]
    assert await store.submissions.release_overdue_claims(NOW + LEASE_MS - 1) == 0
    assert await store.submissions.release_overdue_claims(NOW + LEASE_MS) == 1
    again = (await claim(store, token="other"))[0]
    assert (again.id, again.idempotency_key, again.sends) == (ids[0], first.idempotency_key, 2)


async def test_a_lost_claim_cannot_give_back_what_another_holds(store: Store) -> None:
    _, ids = await start_run(store)
    slow = (await claim(store, token="slow"))[0]
    await store.submissions.release_overdue_claims(NOW + LEASE_MS)
    await claim(store, token="fast")
    for answer in (Answer.LOST, Answer.DEFERRED, Answer.RATE_LIMITED, Answer.NO_CREDITS):
        await store.submissions.record_submissions([ended(slow, answer)])
    row = await task_row(store, ids[0])
    assert (row["state"], row["claim"], row["sends"]) == ("submitting", "fast", 2)


async def test_an_unidentified_attempt_expires_once_its_key_may_be_forgotten(store: Store) -> None:
    _, ids = await start_run(store, 2)
    task = (await claim(store, 1))[0]
    await store.submissions.record_submissions([ended(task, Answer.LOST)])
    assert await store.submissions.expire_unidentified(sent_before_ms=NOW - 1, reason="too old") == 0
    assert await store.submissions.expire_unidentified(sent_before_ms=NOW, reason="too old") == 1
    row = await task_row(store, ids[0])
    assert (row["state"], row["error_code"], row["error_message"]) == ("expired", "unidentified", "too old")
    assert (await task_row(store, ids[1]))["state"] == "pending"
    # A report may still come: the money moves, the work stays closed.
    await settle_all(store, report_on(task))
    row = await task_row(store, ids[0])
    assert (row["state"], row["money"], row["error_code"]) == ("expired", "posted", "unidentified")
    await check_books(store)


async def test_what_was_surely_refused_does_not_expire(store: Store) -> None:
    _, _ = await start_run(store, 2)
    tasks = await claim(store)
    await store.submissions.record_submissions(
        [ended(tasks[0], Answer.QUEUE_FULL), ended(tasks[1], Answer.NO_CREDITS)]
    )
    assert await store.submissions.expire_unidentified(sent_before_ms=NOW + 10**9, reason="too old") == 0
    assert len(await claim(store, now_ms=NOW + 10**9)) == 2


async def test_claiming_much_at_once(store: Store) -> None:
    await start_run(store, 5_000)
    assert len(await submit_all(store)) == 5_000
    assert await count(store, "SELECT count(*) FROM ledger WHERE kind = 'hold'") == 5_000
    await check_books(store)
