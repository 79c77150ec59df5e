"""Settling deliveries: once, whatever is delivered, redelivered, polled, reordered or raced."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from app.domain.delivery import ParsedDelivery
from app.domain.send_outcome import Answer
from app.domain.settlement import Attempt, Settlement, Source
from app.provider.wire import read_answer
from app.store import Database, Store
from app.store.write.settlement import ASK_AGAIN_MS
from tests.integration.store.scenes import (
    NOW,
    apply,
    check_books,
    claim,
    count,
    decide,
    ended,
    failed_on,
    receive,
    report_on,
    rows,
    settle_all,
    start_run,
    submit_all,
    task_row,
)
from tests.statements import OWNERS, before_each


@pytest.fixture
async def other(store: Store) -> AsyncIterator[Store]:
    """A second process's view of the same database."""
    opened = Store(Database(store.db.url), read_answer)
    yield opened
    await opened.close()


async def effects(store: Store) -> list[str]:
    return [row["effect"] for row in await rows(store, "SELECT effect FROM deliveries ORDER BY id")]


async def verdicts(store: Store, run_id: str) -> list[str]:
    return [finding["verdict"] for finding in await store.reports.findings_of(run_id)]


async def test_a_completed_report(store: Store) -> None:
    run_id, ids = await start_run(store)
    (task,) = await submit_all(store)
    done = await settle_all(store, report_on(task))
    assert (done.effects, done.verdicts, done.lost_updates) == ({"settled": 1}, {"matched": 1}, 0)
    row = await task_row(store, ids[0])
    assert (row["state"], row["reported"], row["money"], row["verdict"]) == (
        "completed",
        "completed",
        "posted",
        "matched",
    )
    assert (row["credits_charged"], row["settled_at_ms"], row["settled_by"]) == (
        5_000_000,
        NOW + 3_000,
        "delivery",
    )
    assert (row["next_poll_at_ms"], row["claim"]) == (None, None)
    (result,) = await rows(store, "SELECT status, answer_bytes, answer_sha256, seq FROM results")
    sha256 = hashlib.sha256(b'{"text":"yes"}').digest()
    assert result == {"status": "completed", "answer_bytes": 14, "answer_sha256": sha256, "seq": 1}
    assert await verdicts(store, run_id) == []
    progress = await store.queries.progress(run_id)
    assert (progress.tasks, progress.open, progress.charged, progress.held) == (1, 0, 5, 0)
    await check_books(store)


async def test_a_failed_report_voids_the_hold(store: Store) -> None:
    run_id, ids = await start_run(store)
    (task,) = await submit_all(store)
    await settle_all(store, failed_on(task, error_message="it\x00failed\ud800" + "x" * 5_000))
    row = await task_row(store, ids[0])
    assert (row["state"], row["money"], row["verdict"], row["credits_charged"]) == (
        "failed",
        "voided",
        "free_failure",
        0,
    )
    assert (row["error_code"], row["error_message"][:21], len(row["error_message"])) == (
        "FAILED",
        "it\\0failed\\ud800xxxxx",
        1_000,
    )
    assert (await store.reports.report((await store.queries.find_runs(run_id))[0])).voided == 5
    await check_books(store)


@pytest.mark.parametrize(
    ("charged", "completed", "verdict"),
    [
        (7, True, "overcharged"),
        (4, True, "undercharged"),
        (5, False, "charged_failure"),
        (None, True, "unknown"),
    ],
)
async def test_a_verdict_that_needs_explaining_keeps_its_evidence(
    store: Store, charged: int | None, completed: bool, verdict: str
) -> None:
    run_id, _ = await start_run(store)
    (task,) = await submit_all(store)
    make = report_on if completed else failed_on
    (delivery,) = await receive(store, make(task, charged))
    await apply(store, [delivery])
    (finding,) = await store.reports.findings_of(run_id)
    assert (finding["verdict"], finding["actual"]) == (verdict, charged)
    assert finding["delivery_id"] == delivery.id
    assert finding["expected"] == (5 if completed else 0)
    await check_books(store)


@pytest.mark.parametrize("how", ["one batch", "one after the other", "again by poll"])
async def test_an_equal_report_changes_nothing(store: Store, how: str) -> None:
    run_id, ids = await start_run(store)
    (task,) = await submit_all(store)
    if how == "one batch":
        done = await settle_all(store, report_on(task), report_on(task), report_on(task))
        assert done.effects == {"settled": 1, "duplicate": 2}
    else:
        await settle_all(store, report_on(task))
        before = await task_row(store, ids[0])
        source = Source.POLL if how == "again by poll" else Source.DELIVERY
        done = await settle_all(
            store, report_on(task), report_on(task, None), source=source, now_ms=NOW + 9_000
        )
        assert done.effects == {"duplicate": 2}
        assert await task_row(store, ids[0]) == before
    assert await effects(store) == ["settled", "duplicate", "duplicate"]
    assert await verdicts(store, run_id) == []
    report = await store.reports.report((await store.queries.find_runs(run_id))[0])
    assert report.duplicates == (0 if how == "again by poll" else 2)
    await check_books(store)


@pytest.mark.parametrize("together", [True, False])
async def test_a_different_report_never_overwrites(store: Store, together: bool) -> None:
    run_id, ids = await start_run(store)
    (task,) = await submit_all(store)
    others = [report_on(task, 6), failed_on(task), report_on(task, response=b'{"text":"no"}')]
    if together:
        await settle_all(store, report_on(task), *others)
    else:
        await settle_all(store, report_on(task))
        for one in others:
            await settle_all(store, one, now_ms=NOW + 9_000)
    row = await task_row(store, ids[0])
    assert (row["state"], row["credits_charged"], row["verdict"], row["settled_at_ms"]) == (
        "completed",
        5_000_000,
        "matched",
        NOW + 3_000,
    )
    sha256 = hashlib.sha256(b'{"text":"yes"}').digest()
    assert await rows(store, "SELECT answer_sha256 FROM results") == [{"answer_sha256": sha256}]
    assert await effects(store) == ["settled", "conflict", "conflict", "conflict"]
    assert await verdicts(store, run_id) == ["conflict"] * 3
    assert (await store.reports.report((await store.queries.find_runs(run_id))[0])).verdicts == {
        "matched": 1,
        "conflict": 3,
    }
    await check_books(store)


@pytest.mark.parametrize("together", [True, False])
async def test_a_charge_that_comes_later_is_filled_in(store: Store, together: bool) -> None:
    run_id, ids = await start_run(store)
    (task,) = await submit_all(store)
    if together:
        await settle_all(store, report_on(task, None), report_on(task, 5))
    else:
        await settle_all(store, report_on(task, None))
        row = await task_row(store, ids[0])
        assert (row["state"], row["money"], row["credits_charged"]) == ("completed", "held", None)
        assert row["next_poll_at_ms"] == NOW + 3_000 + ASK_AGAIN_MS
        assert (await store.reports.report((await store.queries.find_runs(run_id))[0])).unknown == 1
        await check_books(store)
        await settle_all(store, report_on(task, 5), source=Source.POLL, now_ms=NOW + 9_000)
    row = await task_row(store, ids[0])
    assert (row["state"], row["money"], row["verdict"], row["next_poll_at_ms"]) == (
        "completed",
        "posted",
        "matched",
        None,
    )
    # Its work was settled by the delivery; the poll only told the price.
    assert (row["settled_by"], row["settled_at_ms"]) == ("delivery", NOW + 3_000)
    assert await effects(store) == ["settled", "filled"]
    await check_books(store)


async def test_a_report_overtakes_the_submit_response(store: Store) -> None:
    _, ids = await start_run(store, 3)
    tasks = await claim(store)
    await store.submissions.record_submissions([ended(tasks[1], Answer.LOST)])
    await store.submissions.release_overdue_claims(NOW + 10**6)
    # One is pending after a lost response, two after their lease; none is sent again.
    await settle_all(store, *(report_on(task) for task in tasks))
    for task_id in ids:
        row = await task_row(store, task_id)
        assert (row["state"], row["money"], row["credits_held"]) == ("completed", "posted", 5_000_000)
    assert await claim(store, now_ms=NOW + 10**7) == []
    await check_books(store)


async def test_a_report_finds_its_task_by_the_providers_id(store: Store) -> None:
    _, ids = await start_run(store, 2)
    tasks = await submit_all(store)
    await settle_all(
        store, report_on(tasks[0], idempotency_key=None), report_on(tasks[1], idempotency_key="somebody-else")
    )
    assert [(await task_row(store, i))["state"] for i in ids] == ["completed", "completed"]
    await check_books(store)


async def test_the_key_of_one_task_with_the_id_of_another_settles_neither(store: Store) -> None:
    _, ids = await start_run(store, 2)
    tasks = await submit_all(store)
    await settle_all(store, report_on(tasks[0], provider_task_id=f"p-{ids[1]}-1"))
    assert [(await task_row(store, i))["state"] for i in ids] == ["submitted", "submitted"]
    [found] = await rows(store, "SELECT verdict, detail FROM findings")
    assert found == {"verdict": "conflict", "detail": "its id is another task's"}
    await settle_all(store, *map(report_on, tasks))
    assert [(await task_row(store, i))["state"] for i in ids] == ["completed", "completed"]
    await check_books(store)


async def test_the_key_of_a_task_whose_answer_was_lost_with_the_id_of_another_settles_neither(
    store: Store,
) -> None:
    """Nobody knows the id of the second task, but that of the first is known to be the first one's."""
    _, ids = await start_run(store, 3)
    tasks = await claim(store)
    await store.submissions.record_submissions(
        [ended(tasks[0]), *(ended(task, Answer.LOST) for task in tasks[1:])]
    )
    (known, lost, other) = tasks
    await settle_all(store, report_on(lost, provider_task_id=f"p-{known.id}-1"))
    # In one batch as well: the second one takes its id by its own report, and then it is known.
    await settle_all(store, report_on(lost), report_on(other, provider_task_id=f"p-{lost.id}-1"))
    settled = [(await task_row(store, i))["reported"] for i in ids]
    assert settled == [None, "completed", None]
    found = await rows(store, "SELECT verdict, detail FROM findings")
    assert found == [{"verdict": "conflict", "detail": "its id is another task's"}] * 2
    await settle_all(store, report_on(known), report_on(other))
    assert [(await task_row(store, i))["reported"] for i in ids] == ["completed"] * 3
    await check_books(store)


async def test_an_id_that_is_recorded_while_its_report_settles_is_not_another_s(postgres_url: str) -> None:
    """The submit response is committed between the look at the attempt and the look for the id's owner."""
    one, other = Store(Database(postgres_url), read_answer), Store(Database(postgres_url), read_answer)
    try:
        _, ids = await start_run(one)
        [task] = await claim(one)

        async def record() -> None:
            await other.submissions.record_submissions([ended(task)])

        parsed = await receive(one, report_on(task))
        with before_each(one.db, OWNERS, record):
            assert (await apply(one, parsed)).lost_updates == 1
        await apply(one, parsed)
        assert (await task_row(one, ids[0]))["state"] == "completed"
        assert await rows(one, "SELECT verdict FROM findings") == []
        await check_books(one)
    finally:
        await one.close()
        await other.close()


async def test_a_key_of_ours_is_spelled_as_we_sent_it(store: Store) -> None:
    _, ids = await start_run(store, 1)
    (task,) = await submit_all(store)
    await settle_all(store, report_on(task, idempotency_key=f"{ids[0]}.01"))
    assert (await task_row(store, ids[0]))["state"] == "submitted"
    [found] = await rows(store, "SELECT verdict, detail FROM findings")
    assert found == {"verdict": "conflict", "detail": "its key is another task's"}


async def test_what_fits_no_task_is_looked_at_again_and_then_a_finding(store: Store) -> None:
    _, _ = await start_run(store)
    (task,) = await submit_all(store)
    strange = [
        report_on(task, idempotency_key=f"01a0f4c2-c400-7cdb-b405-be7db47c8a0d.{n}", provider_task_id=f"q{n}")
        for n in (1, 2)
    ]
    (early, late) = await receive(store, *strange)
    late = replace(late, received_at_ms=NOW + 60_000)
    done = await apply(store, [early, late], now_ms=NOW + 65_000)
    assert done.effects == {"unmatched": 2}
    states = await rows(store, "SELECT state, effect FROM deliveries ORDER BY id")
    assert states == [{"state": "done", "effect": "unmatched"}, {"state": "unmatched", "effect": None}]
    assert await store.queries.waiting_count() == 1
    waiting = await store.inbox.waiting_deliveries([early.id, late.id])
    assert [d.id for d in waiting.readable] == [late.id]
    (finding,) = await rows(store, "SELECT verdict, run_id, actual, detail FROM findings")
    assert finding == {
        "verdict": "unmatched",
        "run_id": None,
        "actual": 5_000_000,
        "detail": "provider task q1",
    }
    await apply(store, [early, late], now_ms=NOW + 200_000)
    assert await count(store, "SELECT count(*) FROM findings") == 2
    await check_books(store)


async def test_a_report_before_its_task_is_known_settles_later(store: Store) -> None:
    _, ids = await start_run(store)
    (task,) = await claim(store)
    (delivery,) = await receive(store, report_on(task, idempotency_key=None))
    assert (await apply(store, [delivery])).effects == {"unmatched": 1}
    await store.submissions.record_submissions([ended(task)])
    assert (await apply(store, [delivery])).effects == {"settled": 1}
    assert (await task_row(store, ids[0]))["state"] == "completed"
    await check_books(store)


async def test_settlers_of_the_same_deliveries_settle_once(store: Store, other: Store) -> None:
    _, _ = await start_run(store, 30)
    tasks = await submit_all(store)
    parsed = await receive(store, *(report_on(task) for task in tasks))
    done = await asyncio.gather(*(apply(one, parsed) for one in (store, other, store, other)))
    assert sum(one.effects.get("settled", 0) for one in done) == 30
    assert await effects(store) == ["settled"] * 30
    assert await store.queries.waiting_count() == 0
    await check_books(store)


async def test_settlers_of_different_deliveries_of_one_task_settle_once(store: Store, other: Store) -> None:
    _, _ = await start_run(store, 20)
    tasks = await submit_all(store)
    batches = [await receive(store, *(report_on(task) for task in tasks)) for _ in range(4)]
    # Opposite orders, so that row locks are wanted in opposite orders too.
    orders = [batch if n % 2 else batch[::-1] for n, batch in enumerate(batches)]
    await asyncio.gather(
        *(settle_to_the_end(one, b) for one, b in zip([store, other] * 2, orders, strict=True))
    )
    found = await effects(store)
    assert (found.count("settled"), found.count("duplicate")) == (20, 60)
    await check_books(store)


async def settle_to_the_end(store: Store, parsed: list[ParsedDelivery]) -> None:
    while (await apply(store, parsed)).lost_updates:
        pass


async def test_a_settler_whose_task_changed_meanwhile_leaves_the_delivery(postgres_url: str) -> None:
    """The conditional update: a decision made on a row that has moved since must not be applied. Only a
    database with several writers can be raced so; the rows are read in one transaction and changed in
    another before the first one writes."""
    async with _opened(postgres_url) as store, _opened(postgres_url) as faster:
        _, _ = await start_run(store)
        (task,) = await submit_all(store)
        (first,) = await receive(store, report_on(task))
        (second,) = await receive(store, report_on(task, 9))
        lost_updates = _Raced(store, lambda: apply(faster, [second]))
        done = await lost_updates.apply([first])
        assert (done.lost_updates, done.effects) == (1, {})
        assert await store.queries.waiting_count() == 1
        assert (await apply(store, [first])).effects == {"conflict": 1}
        await check_books(store)


class _opened:  # noqa: N801 - reads as a function
    def __init__(self, url: str) -> None:
        self._store = Store(Database(url), read_answer)

    async def __aenter__(self) -> Store:
        return self._store

    async def __aexit__(self, *_: object) -> None:
        await self._store.close()


class _Raced:
    """Settles with somebody else acting between the read and the write."""

    def __init__(self, store: Store, meanwhile: Any) -> None:
        self._store = store
        self._meanwhile = meanwhile

    async def apply(self, parsed: list[ParsedDelivery]) -> Any:
        read = self._store.settlements._stored_answers

        async def read_then_wait(*args: Any) -> Any:
            found = await read(*args)
            await self._meanwhile()
            return found

        self._store.settlements._stored_answers = read_then_wait  # type: ignore[method-assign]
        return await apply(self._store, parsed)


async def test_a_failing_decision_changes_nothing(store: Store) -> None:
    _, ids = await start_run(store, 2)
    tasks = await submit_all(store)
    parsed = await receive(store, *(report_on(task) for task in tasks))

    def poisoned(delivery: ParsedDelivery, attempt: Attempt, stored: bytes | None) -> Settlement:
        if delivery.id == parsed[1].id:
            raise ValueError("poison")
        return decide(delivery, attempt, stored)

    with pytest.raises(ValueError, match="poison"):
        await store.settlements.apply(parsed, poisoned, now_ms=NOW, unmatched_until_ms=0)
    assert [(await task_row(store, i))["state"] for i in ids] == ["submitted", "submitted"]
    assert await store.queries.waiting_count() == 2
    await check_books(store)


async def test_settling_nothing(store: Store) -> None:
    done = await store.settlements.apply([], decide, now_ms=NOW, unmatched_until_ms=0)
    assert (done.effects, done.lost_updates) == ({}, 0)


async def test_exact_credits(store: Store) -> None:
    run_id, _ = await start_run(store, 3, estimate=Decimal("0.1"))
    tasks = await claim(store)
    price = Decimal("0.1")
    await store.submissions.record_submissions([ended(task, credits_to_charge=price) for task in tasks])
    await settle_all(store, *(report_on(task, "0.1", to_charge=price) for task in tasks))
    report = await store.reports.report((await store.queries.find_runs(run_id))[0])
    assert report.posted == report.progress.charged == Decimal("0.3")
    await check_books(store)
