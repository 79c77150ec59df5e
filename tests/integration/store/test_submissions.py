"""Recording how sends ended."""

from decimal import Decimal

import pytest

from app.domain.send_outcome import Answer
from app.store import Store
from tests.integration.store.scenes import (
    NOW,
    check_books,
    claim,
    count,
    ended,
    report_on,
    rows,
    settle_all,
    start_run,
    task_row,
)

AGAIN = [
    Answer.RATE_LIMITED,
    Answer.QUEUE_FULL,
    Answer.UNAVAILABLE,
    Answer.GATEWAY,
    Answer.LOST,
    Answer.MISDIRECTED,
    Answer.NO_CREDITS,
    Answer.BAD_KEY,
    Answer.KEY_COLLISION,
    Answer.DEFERRED,
]


async def test_every_answer_has_a_place(store: Store) -> None:
    await start_run(store, len(Answer))
    tasks = await claim(store)
    await store.submissions.record_submissions(
        [ended(task, answer, not_before_ms=NOW + 7) for task, answer in zip(tasks, Answer, strict=True)]
    )
    states = {
        answer: (await task_row(store, task.id))["state"] for task, answer in zip(tasks, Answer, strict=True)
    }
    assert states == {
        Answer.ACCEPTED: "submitted",
        Answer.EXISTS: "submitted",
        Answer.REJECTED: "rejected",
        **dict.fromkeys(AGAIN, "pending"),
    }
    assert await count(store, "SELECT count(*) FROM submissions") == len(Answer) - 1
    await check_books(store)


async def test_accepted_writes_the_hold_and_the_next_poll(store: Store) -> None:
    run_id, ids = await start_run(store)
    task = (await claim(store))[0]
    await store.submissions.record_submissions([ended(task, request_id="r1")])
    row = await task_row(store, ids[0])
    assert (row["state"], row["money"], row["provider_task_id"]) == ("submitted", "held", f"p-{task.id}-1")
    assert (row["credits_held"], row["credits_to_charge"]) == (5_000_000, 5_000_000)
    assert (row["submitted_at_ms"], row["next_poll_at_ms"]) == (NOW + 1_000, NOW + 600_000)
    assert (row["claim"], row["lease_until_ms"]) == (None, None)
    assert await rows(store, "SELECT kind, credits, delivery_id FROM ledger") == [
        {"kind": "hold", "credits": 5_000_000, "delivery_id": None}
    ]
    logged = (await rows(store, "SELECT * FROM submissions"))[0]
    assert (logged["answer"], logged["http_status"], logged["request_id"]) == ("accepted", 200, "r1")
    assert (await store.queries.progress(run_id)).held == 5
    await check_books(store)


async def test_a_conflict_is_accepted_and_holds_the_estimate(store: Store) -> None:
    _, ids = await start_run(store, estimate=Decimal("7.1"))
    task = (await claim(store))[0]
    await store.submissions.record_submissions([ended(task, Answer.EXISTS, http_status=409)])
    row = await task_row(store, ids[0])
    assert (row["state"], row["credits_held"], row["credits_to_charge"]) == ("submitted", 7_100_000, None)
    await check_books(store)


async def test_a_price_that_is_not_ours_is_a_finding_once(store: Store) -> None:
    run_id, _ = await start_run(store)
    task = (await claim(store))[0]
    for _ in range(2):
        await store.submissions.record_submissions([ended(task, credits_to_charge=Decimal(6))])
    findings = await store.reports.findings_of(run_id)
    assert [(f["verdict"], f["expected"], f["actual"]) for f in findings] == [("repriced", 5, 6)]
    await check_books(store)


async def test_accepting_twice_holds_once(store: Store) -> None:
    _, ids = await start_run(store)
    task = (await claim(store))[0]
    await store.submissions.record_submissions([ended(task)])
    await store.submissions.record_submissions([ended(task), ended(task, Answer.EXISTS)])
    assert (await task_row(store, ids[0]))["money"] == "held"
    assert await count(store, "SELECT count(*) FROM ledger") == 1
    await check_books(store)


async def test_rejected_keeps_the_reason(store: Store) -> None:
    _, ids = await start_run(store)
    task = (await claim(store))[0]
    await store.submissions.record_submissions(
        [ended(task, Answer.REJECTED, http_status=400, code="C", message="m")]
    )
    row = await task_row(store, ids[0])
    assert (row["state"], row["money"], row["error_code"], row["error_message"]) == (
        "rejected",
        "none",
        "C",
        "m",
    )
    await check_books(store)


@pytest.mark.parametrize("answer", AGAIN)
async def test_again_under_the_same_key(store: Store, answer: Answer) -> None:
    _, ids = await start_run(store)
    task = (await claim(store))[0]
    await store.submissions.record_submissions([ended(task, answer, not_before_ms=NOW + 9)])
    row = await task_row(store, ids[0])
    assert (row["state"], row["idempotency_key"], row["not_before_ms"]) == (
        "pending",
        task.idempotency_key,
        NOW + 9,
    )
    assert (row["claim"], row["lease_until_ms"]) == (None, None)
    # Only an attempt that the provider may have counts as sent.
    surely_not = answer in (
        Answer.DEFERRED,
        Answer.NO_CREDITS,
        Answer.BAD_KEY,
        Answer.KEY_COLLISION,
        Answer.MISDIRECTED,
    )
    assert (row["sends"], row["first_sent_at_ms"]) == ((0, None) if surely_not else (1, NOW))


async def test_the_late_answer_of_a_settled_task_only_fills_blanks(store: Store) -> None:
    run_id, ids = await start_run(store, 2)
    tasks = await claim(store)
    await settle_all(store, *(report_on(task, to_charge=None) for task in tasks))
    before = await task_row(store, ids[0])
    assert (before["state"], before["money"], before["submitted_at_ms"]) == ("completed", "posted", None)
    await store.submissions.record_submissions(
        [ended(tasks[0], provider_task_id="other"), ended(tasks[1], Answer.EXISTS)]
    )
    after = await task_row(store, ids[0])
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"submitted_at_ms", "credits_to_charge", "sends", "first_sent_at_ms"}
    assert after["provider_task_id"] == f"p-{ids[0]}-1"
    assert (await store.reports.report((await store.queries.find_runs(run_id))[0])).recovered_submits == 1
    await check_books(store)


@pytest.mark.parametrize("answer", [Answer.ACCEPTED, Answer.EXISTS])
async def test_a_late_answer_takes_nothing_away(store: Store, answer: Answer) -> None:
    _, ids = await start_run(store)
    task = (await claim(store))[0]
    await settle_all(store, report_on(task))
    before = await task_row(store, ids[0])
    price = Decimal(6) if answer is Answer.ACCEPTED else None
    await store.submissions.record_submissions(
        [ended(task, answer, credits_to_charge=price, provider_task_id=None)]
    )
    after = await task_row(store, ids[0])
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"submitted_at_ms", "sends", "first_sent_at_ms"}
    assert (after["sends"], after["first_sent_at_ms"]) == (1, NOW)
    await check_books(store)


@pytest.mark.parametrize("answer", [Answer.REJECTED, Answer.LOST, Answer.DEFERRED, Answer.NO_CREDITS])
async def test_other_late_answers_change_nothing(store: Store, answer: Answer) -> None:
    _, ids = await start_run(store)
    task = (await claim(store))[0]
    await settle_all(store, report_on(task))
    before = await task_row(store, ids[0])
    await store.submissions.record_submissions([ended(task, answer, code="C", message="m")])
    assert await task_row(store, ids[0]) == before
    await check_books(store)


async def test_the_answer_of_an_attempt_that_was_replaced_is_logged_only(store: Store) -> None:
    _, ids = await start_run(store)
    task = (await claim(store))[0]
    await store.submissions.record_submissions([ended(task, Answer.REJECTED)])
    await store.retries.retry_tasks_if_closed(ids, NOW)
    before = await task_row(store, ids[0])
    await store.submissions.record_submissions(
        [ended(task), ended(task, Answer.REJECTED), ended(task, Answer.LOST)]
    )
    assert await task_row(store, ids[0]) == before
    assert await count(store, "SELECT count(*) FROM submissions") == 4
    await check_books(store)


async def test_odd_characters_in_what_the_provider_says(store: Store) -> None:
    _, ids = await start_run(store, 2)
    tasks = await claim(store)
    odd = "nul \x00, half \ud800, whole \U0001f600" + "x" * 5_000
    texts = {"code": odd, "message": odd, "request_id": odd}
    await store.submissions.record_submissions(
        [ended(tasks[0], Answer.REJECTED, **texts), ended(tasks[1], provider_task_id="p\x00\ud800", **texts)]
    )
    row = await task_row(store, ids[0])
    assert row["error_message"].startswith("nul \\0, half \\ud800, whole \U0001f600xxx")
    assert len(row["error_message"]) <= 2_000
    assert (await task_row(store, ids[1]))["provider_task_id"] == "p\\0\\ud800"


async def test_recording_nothing(store: Store) -> None:
    await store.submissions.record_submissions([])
