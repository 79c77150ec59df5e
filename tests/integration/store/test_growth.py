"""What is done at each turn costs the same beside a long history: kept sums, and plans that scan nothing."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest

from app.domain.notices.failing_engines import EngineBounds
from app.domain.run_reason import ReasonCode, RunReason
from app.domain.send_outcome import Answer
from app.domain.task import RunState, TaskSpec, new_id
from app.provider.wire import read_answer
from app.services.engine_pauses import EnginePauses
from app.services.notice_triggers import Watcher
from app.store import Database, Store
from app.store.tables import balances, notices, runs
from benchmarks.old_tasks import add_history
from tests.integration.store.scenes import (
    FIVE,
    LEASE_MS,
    NOW,
    apply,
    check_books,
    claim,
    count,
    ended,
    execute,
    failed_on,
    receive,
    report_on,
    settle_all,
    spending_kept,
    spending_of_rows,
    start_run,
    submit_all,
)
from tests.statements import held_before, statements_of


async def test_sums_are_right_whoever_writes(store: Store) -> None:
    """Processes of the version before know nothing of them, and neither do people."""
    _, ids = await start_run(store, 6)
    await start_run(store, 1)
    await submit_all(store)
    change = "UPDATE tasks SET state = {}, credits_charged = {} WHERE ordinal = {}"
    await execute(
        store,
        change.format("'completed'", 7_500_000, 1),
        change.format("'failed'", 0, 2),
        "UPDATE tasks SET state = 'rejected', credits_held = NULL WHERE ordinal = 3",
        "UPDATE tasks SET sends = 1, credits_held = NULL WHERE ordinal = 4",
        "DELETE FROM ledger WHERE task_id IN (SELECT id FROM tasks WHERE ordinal = 5)",
        "DELETE FROM tasks WHERE ordinal = 5",
    )
    assert await spending_kept(store) == await spending_of_rows(store)
    assert await store.retries.retry_tasks_if_closed(ids[1:3], NOW) == 2
    await execute(store, "UPDATE attempts SET credits_charged = 3000000")
    assert await spending_kept(store) == await spending_of_rows(store)
    assert sum((await spending_kept(store)).values()) == 31_000_000
    await execute(store, "DELETE FROM attempts")
    assert await spending_kept(store) == await spending_of_rows(store)


async def test_changes_are_added_up(store: Store) -> None:
    run_id, _ = await start_run(store, 4, budget=Decimal(15))
    tasks = await submit_all(store)
    assert len(tasks) == 3, "the budget"
    before = await spending_kept(store)
    folded = await store.spending.fold_spending()
    assert folded == (0 if store.db.is_sqlite else await count(store, "SELECT 1"))
    assert (
        await count(store, "SELECT count(*) FROM spending_changes")
        == await store.spending.fold_spending()
        == 0
    )
    assert await spending_kept(store) == before == await spending_of_rows(store)
    await settle_all(store, failed_on(tasks[0]))
    await store.runs.resume_run_if_halted(run_id)
    assert len(await claim(store)) == 1, "what is free again may be spent"
    assert await store.accounts.spent_since("default", 0) == 15
    await check_books(store)


async def test_claims_of_one_run_at_once_keep_to_its_budget(store_url: str) -> None:
    stores = [Store(Database(store_url), read_answer) for _ in range(4)]
    try:
        await start_run(stores[0], 60, budget=Decimal(100))

        async def send(store: Store, token: str) -> int:
            sent = 0
            while tasks := await claim(store, 7, token=token):
                sent += len(tasks)
                await store.submissions.record_submissions([ended(task) for task in tasks])
                await store.spending.fold_spending()
            return sent

        assert sum(await asyncio.gather(*(send(s, f"{n}") for n, s in enumerate(stores)))) == 20
        await check_books(stores[0])
    finally:
        for store in stores:
            await store.close()


async def test_a_second_sender_finds_what_the_first_does_not_hold(postgres_url: str) -> None:
    """The first rows of every run are held by a claim that is not committed yet."""
    one, other = Store(Database(postgres_url), read_answer), Store(Database(postgres_url), read_answer)
    try:
        await start_run(one, 8)
        with held_before(one.db, "SELECT runs.id, runs.budget") as hold:
            first = asyncio.create_task(claim(one, 4))
            await hold.reached.wait()
            second = asyncio.create_task(claim(other, 4))
            await hold.until_waited_for(one, second)
            hold.go_on.set()
            claimed = [*(await first), *(await second)]
        assert sorted(task.ordinal for task in claimed) == list(range(1, 9))
    finally:
        await one.close()
        await other.close()


async def test_the_order_is_that_of_priority_run_and_source_whatever_the_limit(store: Store) -> None:
    expected = []
    for n, priorities in enumerate(((1, 5, 1), (3, 5, 9), (1, 1, 1, 9))):
        run_id = await store.runs.create_run(name="r", source="-", budget=None, now_ms=NOW + n)
        specs = [TaskSpec(i, "GROK", {"prompt": "x"}, p) for i, p in enumerate(priorities, 1)]
        await store.runs.add_tasks(run_id, [(spec, FIVE) for spec in specs], NOW)
        await store.runs.start_run_if_loading(run_id, sha256="", bad_lines=0)
        expected += [(-p, run_id, i) for i, p in enumerate(priorities, 1)]
    for limit in (1, 2, 3, 4):
        claimed = [(-t.priority, t.run_id, t.ordinal) for t in await claim(store, limit)]
        assert claimed == sorted(expected)[:limit], limit
        expected = sorted(expected)[limit:]
    assert expected == []


OLD_TASKS, OLD_RUNS, PAUSED = 6_000, 60, 300

# Scans whose length is that of what is open or under way, or that end at their limit: never of the history.
SHORT = (
    "ix_runs_created_at_ms",
    "ix_runs_open",
    "ix_runs_cancelled_open",
    "ix_tasks_lease",
    "ix_tasks_next_poll",
    "ix_deliveries_due",
    "ix_spending_changes",
    "spending_changes",
    "rollup_changes",
)
LONG = ("tasks", "runs", "deliveries", "ledger", "submissions", "results", "notices", "balances")


SELDOM = (
    "SCAN tasks USING INDEX ix_tasks_pending",
    "Index Scan tasks ix_tasks_pending",
    "Seq Scan runs",
    "pk_ledger",
)
"""Of a forecast: all that is open, which it is about; whose the entries of two days are; ends of an index."""


async def _look_ahead(store: Store) -> None:
    await store.forecasts.forecast_input("default", NOW)
    await store.accounts.charged_since("default", NOW)


async def _turn(store: Store) -> None:
    """Everything that is done over and over, once."""
    (task, *_) = tasks = await claim(store, 5)
    await store.submissions.record_submissions(
        [ended(t) for t in tasks[:3]] + [ended(t, Answer.LOST) for t in tasks[3:]]
    )
    await apply(store, await receive(store, report_on(task)))
    await store.submissions.release_overdue_claims(NOW + LEASE_MS)
    await store.spending.fold_spending()
    await store.rollup.fold_rollup()
    await store.run_ends.finish_runs(NOW)
    await store.inbox.quarantine_unended(tries_max=5)
    await store.inbox.claim_overdue_deliveries(limit=9, now_ms=NOW, next_due_at_ms=NOW + 1)
    await store.submissions.expire_unidentified(sent_before_ms=NOW - 1, reason="too old")
    await store.polls.claim_due_polls(limit=9, now_ms=NOW, interval_ms=1)
    await store.queries.accounts_with_due(NOW)
    await store.accounts.paused_accounts(ReasonCode.NO_CREDITS)
    await store.accounts.resume_account_if_paused_for("default", ReasonCode.NO_CREDITS)
    await store.accounts.note_waiting("default", None)
    await store.accounts.outstanding("default")
    await store.polls.oldest_waiting_poll()
    await store.queries.waiting_count()
    await Watcher(store, clock=lambda: NOW).look()
    await EnginePauses(
        store, clock=lambda: NOW, jitter=lambda: 0.0, bounds=EngineBounds(), probe_every_ms=1
    ).look()
    await store.notices.claim_due_notices(limit=9, now_ms=NOW, lease_until_ms=NOW + 1)
    await store.accounts.spent_since("default", NOW)


@pytest.fixture(params=["sqlite", "postgres"])
def unmeasured(request: pytest.FixtureRequest) -> Store:
    """A store of each kind, of whose tables nobody has made statistics: not one that other tests had."""
    opened: Store = request.getfixturevalue("sqlite_store" if request.param == "sqlite" else "own_store")
    return opened


@pytest.mark.parametrize("statistics", ["fresh", "stale"])
async def test_nothing_that_is_done_over_and_over_scans_the_history(
    unmeasured: Store, statistics: str
) -> None:
    store = unmeasured
    if store.db.is_sqlite and statistics == "stale":
        pytest.skip("SQLite keeps none")
    await add_history(store, tasks=OLD_TASKS, runs=OLD_RUNS, paused=PAUSED)
    await add_ended_runs(store, 5_000)
    if statistics == "stale":
        await execute(store, "ANALYZE")
    await start_run(store, 50, budget=Decimal(10_000), now_ms=NOW)
    if statistics == "fresh" and not store.db.is_sqlite:
        await execute(store, "ANALYZE")
    scans = await scans_of(store, lambda: _turn(store))
    assert len(scans) > 20
    long = {scan for scan in scans if scan != "-" and not any(name in scan for name in SHORT)}
    seldom = await scans_of(store, lambda: _look_ahead(store))
    long |= {scan for scan in seldom if scan != "-" and not any(name in scan for name in (*SHORT, *SELDOM))}
    if statistics == "stale":
        # It expects more tasks to be out than there are runs; then going through these is shorter.
        long = {scan for scan in long if not scan.startswith("Seq Scan runs  in SELECT count(*)")}
    assert long == set(), "\n".join(sorted(long))


async def test_a_group_is_looked_up_by_its_ids_before_there_are_statistics(own_store: Store) -> None:
    """Right after a large file was loaded, the open tasks seem to be few: going through all of them for each
    group of ids, or for each id, would seem to be shorter."""
    store = own_store

    async def send() -> None:
        answers = (Answer.ACCEPTED, Answer.REJECTED)
        sent = [ended(task, answers[task.ordinal % 2]) for task in await claim(store, 50)]
        await store.submissions.record_submissions(sent)

    await start_run(store, 4_000)
    plans = await plans_of(store, send)
    moved = [_root(plan) for statement, plan in plans.items() if statement.startswith("UPDATE tasks")]
    assert len(moved) == 2
    for plan in moved:
        by_id = "pk_tasks" in str(plan) or "Hash Cond" in str(plan)
        assert by_id and "ix_tasks_" not in str(plan), json.dumps(plan, indent=1)


async def add_ended_runs(store: Store, many: int) -> None:
    """Runs without tasks that were told of, and balances: so many that going through all of them is not the
    shortest way."""
    row = {"name": "old", "source": "-", "state": "finished", "finished_at_ms": 2, "created_at_ms": 1}
    found = [row | {"id": new_id(1)} for _ in range(many)]
    notices_of_runs = [
        {
            "id": new_id(1),
            "at_ms": 1,
            "kind": "run.finished",
            "account": "default",
            "run_id": run["id"],
            "occasion": f"run:{run['id']}:1",
            "body": "{}",
            "state": "sent",
            "tries": 1,
            "due_at_ms": 1,
        }
        for run in found
    ]
    seen = [{"account": "default", "at_ms": n, "remaining": FIVE} for n in range(many)]
    for table, some in ((runs, found), (notices, notices_of_runs), (balances, seen)):
        await store.db.write(lambda connection, t=table, s=some: store.db.insert(connection, t, s))  # type: ignore[misc]


async def scans_of(store: Store, work: Callable[[], Awaitable[object]]) -> list[str]:
    """Of the plan of each statement: what goes through a table or an index from end to end, or `-` for each
    step that does not."""
    found: list[str] = []
    for statement, plan in (await plans_of(store, work)).items():
        steps = _sqlite_scans(plan) if store.db.is_sqlite else _postgres_scans(plan)
        found += [f"{step} in {statement[:400]}" if step != "-" else step for step in steps]
    return found


async def plans_of(store: Store, work: Callable[[], Awaitable[object]]) -> dict[str, Any]:
    """Each statement that `work` runs, and its plan as the database tells it."""
    ran = await statements_of(store.db, work)
    seen = {statement: values for statement, values in ran.items() if "pg_catalog" not in statement}
    engine = store.db.engine
    explain = "EXPLAIN QUERY PLAN " if store.db.is_sqlite else "EXPLAIN (FORMAT JSON) "
    async with engine.connect() as connection:
        return {
            statement: (await connection.exec_driver_sql(explain + statement, parameters)).all()
            for statement, parameters in seen.items()
        }


def _sqlite_scans(plan: Any) -> list[str]:
    return [
        row[3] if re.match(rf"SCAN ({'|'.join(LONG)})\b", row[3]) else "-"
        for row in plan
        if row[3].startswith(("SCAN", "SEARCH"))
    ]


def _postgres_scans(plan: Any) -> list[str]:
    return list(_walk(_root(plan)))


def _root(plan: Any) -> dict[str, Any]:
    (document,) = json.loads(plan[0][0]) if isinstance(plan[0][0], str) else plan[0][0]
    return dict(document["Plan"])


def _walk(node: dict[str, Any]) -> Any:
    name = f"{node.get('Relation Name', '')} {node.get('Index Name', '')}"
    if "Scan" in node["Node Type"] and set(name.split()) & set(LONG):
        whole = "Index Cond" not in node and "TID Cond" not in node
        bitmap = node["Node Type"] == "Bitmap Heap Scan"
        yield f"{node['Node Type']} {name}" if whole and not bitmap else "-"
    for child in node.get("Plans", ()):
        yield from _walk(child)


async def test_a_claim_follows_its_index_while_statistics_are_of_before_the_run(own_store: Store) -> None:
    """Few tasks are thought to be pending then: to fetch and sort all of them would seem to be shorter."""
    store = own_store
    await add_history(store, tasks=OLD_TASKS, runs=6, paused=60)
    await execute(store, "ANALYZE")
    await start_run(store, 1_000, now_ms=NOW)
    plans = await plans_of(store, lambda: claim(store, 50))
    (due,) = [str(_root(plan)) for statement, plan in plans.items() if "LATERAL" in statement]
    assert "ix_tasks_open" in due and "Bitmap" not in due, due


async def test_a_paused_run_stands_before_nobody(store: Store) -> None:
    run_id, _ = await start_run(store, 3_000)
    await store.runs.halt_run_if_running(run_id, RunState.PAUSED, RunReason(ReasonCode.BY_HAND, "by hand"))
    other, ids = await start_run(store, 2, now_ms=NOW + 1)
    assert [task.id for task in await claim(store)] == ids
    assert await store.queries.accounts_with_due(NOW) == []
    assert other != run_id
