"""Runs, leases, and what is read of a run."""

import asyncio
import json
from dataclasses import replace
from decimal import Decimal
from uuid import UUID

import pytest
import sqlalchemy as sa

from app.domain.delivery import RawDelivery
from app.domain.run_reason import MONTH_BUDGET, NO_CREDITS, ReasonCode, RunReason
from app.domain.settlement import Source
from app.domain.task import RunState, TaskSpec
from app.ports import RowsRefused
from app.provider.wire import read_answer
from app.store import Database, Store
from app.store.read.exports import EXPORT_CHUNK
from app.store.tables import runs
from tests.integration.store.scenes import (
    FIVE,
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
    task_row,
)


async def test_a_run_and_its_tasks_are_stored_as_given(store: Store) -> None:
    run_id = await store.runs.create_run(name="n", source="f.csv", budget=Decimal("9.5"), now_ms=NOW)
    payload = {"prompt": 'Ünï "quoted"\n\x00\U0001f600', "country": "US", "include": {"markdown": True}}
    (task_id,) = await store.runs.add_tasks(
        run_id, [(TaskSpec(7, "GEMINI", payload, 3), Decimal("4.25"))], NOW
    )
    await store.runs.start_run_if_loading(run_id, sha256="ab" * 32, bad_lines=2)
    (run,) = await store.queries.list_runs()
    assert (run.id, run.name, run.source, run.state, run.reason) == (run_id, "n", "f.csv", "running", None)
    assert (run.budget, run.bad_lines, run.created_at_ms) == (Decimal("9.5"), 2, NOW)
    row = await task_row(store, task_id)
    assert (row["ordinal"], row["task_type"], row["priority"], row["attempt"]) == (7, "GEMINI", 3, 1)
    assert (row["state"], row["money"], row["credits_estimate"]) == ("pending", "none", 4_250_000)
    assert json.loads(row["payload"]) == payload
    assert await rows(store, "SELECT source_sha256 FROM runs") == [{"source_sha256": "ab" * 32}]


async def test_odd_characters_in_names_and_reasons(store: Store) -> None:
    run_id = await store.runs.create_run(name="a\x00b", source="caf\udce9.csv", budget=None, now_ms=NOW)
    await store.runs.start_run_if_loading(run_id, sha256="", bad_lines=0)
    await store.runs.halt_run_if_running(
        run_id, RunState.PAUSED, RunReason(ReasonCode.BY_HAND, "half \ud800")
    )
    (run,) = await store.queries.list_runs()
    assert (run.name, run.source, run.reason) == ("a\\0b", "caf\\udce9.csv", "half \\ud800")


async def test_the_reason_of_a_run_has_a_code_for_programs(store: Store) -> None:
    run_id, _ = await start_run(store)
    await store.runs.halt_run_if_running(run_id, RunState.PAUSED, replace(NO_CREDITS, text="in other words"))
    (run,) = await store.queries.list_runs()
    assert (run.reason, run.reason_code) == ("in other words", "no_credits")
    assert await store.accounts.paused_accounts(ReasonCode.BY_HAND) == []
    assert await store.accounts.paused_accounts(ReasonCode.NO_CREDITS) == ["default"]
    assert await store.accounts.resume_account_if_paused_for("default", ReasonCode.NO_CREDITS) == 1
    await store.accounts.note_waiting("default", MONTH_BUDGET)
    assert await store.notice_triggers.accounts_waiting(ReasonCode.MONTH_BUDGET) == ["default"]
    await store.accounts.note_waiting("default", None)
    (run,) = await store.queries.list_runs()
    assert (run.reason, run.reason_code) == (None, None)


async def test_a_reason_without_a_code_is_one_of_the_version_before(store: Store) -> None:
    run_id, _ = await start_run(store)
    async with store.db.engine.begin() as connection:
        old = {"state": "paused", "reason": "out of credits at the provider"}
        await connection.execute(sa.update(runs).values(**old))
    (run,) = await store.queries.list_runs()
    assert (run.id, run.reason_code) == (run_id, "no_credits")
    assert await store.accounts.resume_account_if_paused_for("default", ReasonCode.NO_CREDITS) == 1


async def test_an_ordinal_is_used_once_in_a_run(store: Store) -> None:
    run_id, _ = await start_run(store)
    with pytest.raises(RowsRefused):
        await store.runs.add_tasks(run_id, [(TaskSpec(1, "GROK", {"prompt": "x"}), FIVE)], NOW)
    assert (await store.queries.progress(run_id)).tasks == 1


async def test_adding_nothing(store: Store) -> None:
    run_id, _ = await start_run(store)
    assert await store.runs.add_tasks(run_id, [], NOW) == []


async def test_cancelling(store: Store) -> None:
    run_id, ids = await start_run(store, 3)
    (task,) = await claim(store, 1)
    await store.submissions.record_submissions([ended(task)])
    assert await store.runs.cancel_run(run_id, "enough") == 2
    assert await store.runs.cancel_run(run_id, "again") == 0
    (run,) = await store.queries.list_runs()
    assert (run.state, run.reason) == ("cancelled", "enough")
    assert not await store.runs.resume_run_if_halted(run_id)
    # What is with the provider goes on.
    await settle_all(store, report_on(task))
    assert [(await task_row(store, i))["state"] for i in ids] == ["completed", "cancelled", "cancelled"]
    await check_books(store)


async def test_runs_are_found_by_name_and_by_either_end_of_the_id(store: Store) -> None:
    old = await store.runs.create_run(name="weekly", source="-", budget=None, now_ms=NOW)
    new = await store.runs.create_run(name="weekly", source="-", budget=None, now_ms=NOW + 10**9)

    async def found(text: str) -> list[str]:
        return [run.id for run in await store.queries.find_runs(text)]

    assert await found("weekly") == [new, old]
    assert (
        await found(old)
        == await found(old.upper())
        == await found(old[:13])
        == await found(old[-8:])
        == [old]
    )
    assert await found("week") == await found("abc") == await found("%") == []
    assert [run.id for run in await store.queries.list_runs(limit=1)] == [new]


async def test_progress_and_report_of_a_mixed_run(store: Store) -> None:
    run_id, ids = await start_run(store, 8)
    tasks = await claim(store, 6)
    await store.submissions.record_submissions([ended(task) for task in tasks])
    await settle_all(
        store,
        report_on(tasks[0]),
        report_on(tasks[0]),
        report_on(tasks[1], 7),
        failed_on(tasks[2]),
        report_on(tasks[3], None),
        report_on(tasks[4]),
    )
    progress = await store.queries.progress(run_id)
    assert progress.states == {"completed": 4, "failed": 1, "submitted": 1, "pending": 2}
    assert progress.verdicts == {"matched": 2, "overcharged": 1, "free_failure": 1, "unknown": 1}
    assert (progress.tasks, progress.open, progress.held, progress.charged) == (8, 3, 10, 17)
    assert progress.estimate == 40
    report = await store.reports.report((await store.queries.find_runs(run_id))[0])
    assert (report.held, report.posted, report.voided) == (10, 17, 5)
    assert (report.duplicates, report.swept, report.unknown, report.recovered_submits) == (1, 0, 1, 0)
    (again, *_) = await rows(store, "SELECT id FROM deliveries ORDER BY id")
    repeat = RawDelivery(str(UUID(again["id"])), Source.DELIVERY, NOW, b"{}")
    await store.inbox.store_deliveries([repeat, repeat], due_at_ms=NOW)
    report = await store.reports.report((await store.queries.find_runs(run_id))[0])
    assert report.duplicates == 3, "those that are only counted are duplicates too"
    charges = await store.reports.charges(run_id)
    assert charges == {
        f"{ids[0]}.1": 5,
        f"{ids[1]}.1": 7,
        f"{ids[2]}.1": 0,
        f"{ids[3]}.1": None,
        f"{ids[4]}.1": 5,
        f"{ids[5]}.1": None,
    }
    await check_books(store)


async def test_runs_can_be_distinguished(store: Store) -> None:
    one, _ = await start_run(store, 2)
    two, _ = await start_run(store, 3)
    for task in await submit_all(store):
        await settle_all(store, report_on(task, 6))
    for run_id, tasks in ((one, 2), (two, 3)):
        report = await store.reports.report((await store.queries.find_runs(run_id))[0])
        assert (report.progress.tasks, report.posted) == (tasks, 6 * tasks)
        assert len(await store.reports.findings_of(run_id)) == tasks
    assert len(await store.reports.findings_of(two, limit=2)) == 2


@pytest.mark.parametrize("tasks", [0, 1, EXPORT_CHUNK, EXPORT_CHUNK + 1, 2 * EXPORT_CHUNK + 7])
async def test_export_gives_every_task_once_in_order(store: Store, tasks: int) -> None:
    run_id, ids = await start_run(store, tasks)
    claimed = await submit_all(store)
    if claimed:
        await settle_all(store, *(report_on(task) for task in claimed[::2]))
    found = [row async for row in store.exports.export(run_id)]
    assert [row["ordinal"] for row in found] == list(range(1, tasks + 1))
    assert [row["task_id"] for row in found] == ids
    for row in found:
        answered = row["ordinal"] % 2 == 1
        assert row["response"] == ('{"text":"yes"}' if answered else None)
        assert row["credits_charged"] == (5 if answered else None)
        assert row["payload"]["prompt"] == f"p{row['ordinal']}"


async def test_a_lease_belongs_to_one_until_it_is_over(store: Store) -> None:
    async def take(owner: str, now_ms: int) -> bool:
        return await store.runs.acquire_lease("submit", owner, until_ms=now_ms + 100, now_ms=now_ms)

    assert await take("a", NOW)
    assert not await take("b", NOW + 99)
    assert await take("a", NOW + 50)
    assert not await take("b", NOW + 149)
    assert await take("b", NOW + 150)
    assert not await take("a", NOW + 151)
    await store.runs.release_lease("submit", "a")
    assert not await take("a", NOW + 152)
    await store.runs.release_lease("submit", "b")
    assert await take("a", NOW + 153)
    assert await store.runs.acquire_lease("other", "b", until_ms=NOW, now_ms=NOW)


async def test_of_many_only_one_gets_the_lease(store: Store) -> None:
    other = Store(Database(store.db.url), read_answer)
    try:
        got = await asyncio.gather(
            *(
                one.runs.acquire_lease("sweep", f"o{n}", until_ms=NOW + 100, now_ms=NOW)
                for n, one in enumerate([store, other] * 4)
            )
        )
    finally:
        await other.close()
    assert sum(got) == 1
