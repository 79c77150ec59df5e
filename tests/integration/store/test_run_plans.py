"""What is asked of one run reads that run's rows, whatever the statistics of the moment say."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.store import Store
from app.store.read.disputes import DisputeScope
from app.store.read.verification import open_snapshot
from app.store.tables import metadata
from benchmarks.old_tasks import add_history
from tests.integration.store.scenes import NOW, report_on, settle_all, start_run, submit_all
from tests.integration.store.test_growth import execute, scans_of
from tests.statements import statements_of

OLD_TASKS, OLD_RUNS = 4_000, 8
TASKS = 60
ROWS_MAX = 3 * TASKS
"""Of a table, read by one statement: two ledger entries a task, and a few more."""
SMALL = {"runs", "receipts", "pruned_findings", "task_repeats", "claims", "attempts", "findings"}
"""Of these there are few here; how they are read says nothing."""


async def _run(store: Store) -> str:
    """Most of its tasks are settled, and some of their deliveries came again."""
    run_id, _ = await start_run(store, TASKS, now_ms=NOW)
    tasks = [task for task in await submit_all(store, now_ms=NOW) if task.run_id == run_id]
    await settle_all(store, *(report_on(task) for task in tasks[:-4]))
    await settle_all(store, *(report_on(task) for task in tasks[:4]))
    return run_id


async def _look(store: Store, run_id: str) -> None:
    """At a run, in every way there is."""
    (run,) = await store.queries.find_runs(run_id)
    await store.queries.progress_of_runs([run_id])
    assert (await store.reports.report(run)).duplicates == 4
    await store.reports.full_report(run, 100)
    await store.certificates.total_run(run_id)
    await store.pruned.disputed_bodies(run_id)
    scope = DisputeScope(run_id, "default", since_ms=0, until_ms=None, last=1 << 40)
    await store.disputes.discrepancies(scope, after=0, limit=10)
    async with open_snapshot(store.db) as snapshot:
        (verified,) = await snapshot.runs(None, [run_id])
        await snapshot.spending([run_id])
        assert sum([len(page) async for page in snapshot.books(verified, 0, 1)]) == TASKS


@pytest.mark.parametrize("statistics", ["none", "of before it"])
async def test_a_run_is_read_by_itself_whatever_the_statistics_say(own_store: Store, statistics: str) -> None:
    store = own_store
    if statistics == "of before it":
        await start_run(store, 3)
        await execute(store, "ANALYZE")
    await add_history(store, tasks=OLD_TASKS, runs=OLD_RUNS, paused=200)
    run_id = await _run(store)
    assert await _most_read(store, run_id) == {}
    await execute(store, "ANALYZE")
    assert await _most_read(store, run_id) == {}


async def test_a_run_is_read_by_itself_on_sqlite(sqlite_store: Store) -> None:
    await add_history(sqlite_store, tasks=OLD_TASKS // 10, runs=OLD_RUNS, paused=20)
    run_id = await _run(sqlite_store)
    scans = await scans_of(sqlite_store, lambda: _look(sqlite_store, run_id))
    assert len(scans) > 20
    # Whether an id or a name was meant is asked of all runs.
    assert {scan for scan in scans if not scan.startswith(("-", "SCAN runs"))} == set()


async def _most_read(store: Store, run_id: str) -> dict[str, dict[str, int]]:
    """The statements that read more of a table than is the run's, each with these tables and rows."""
    return await most_read(store, lambda: _look(store, run_id), rows_max=ROWS_MAX)


async def most_read(
    store: Store, work: Callable[[], Awaitable[object]], *, rows_max: int
) -> dict[str, dict[str, int]]:
    """The statements of `work` that read more rows of a table, each with these tables and rows."""
    found = {}
    ran = await statements_of(store.db, work)
    async with store.db.engine.connect() as connection:
        settings = [(s, p) for s, p in ran.items() if "set_config" in s]
        assert settings
        for statement, parameters in ran.items():
            for setting in settings:
                await connection.exec_driver_sql(*setting)
            explain = "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) "
            plan = (await connection.exec_driver_sql(explain + statement, parameters)).scalar_one()
            (document,) = json.loads(plan) if isinstance(plan, str) else plan
            read: dict[str, int] = {}
            _add_read(document["Plan"], read)
            if many := {name: rows for name, rows in read.items() if rows > rows_max and name not in SMALL}:
                found[statement] = many
            await connection.rollback()
    return found


def _add_read(node: dict[str, Any], read: dict[str, int]) -> None:
    """Rows by table, those that a filter then left out among them."""
    name = str(node.get("Relation Name", "")).split("_p2")[0]
    if name in metadata.tables:
        a_loop = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        read[name] = max(read.get(name, 0), round(a_loop * node["Actual Loops"]))
    for child in node.get("Plans", ()):
        _add_read(child, read)
