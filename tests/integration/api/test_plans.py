"""Beside large tables a page of any list reads about as many rows as it has: held by the plans that ran."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from app.domain.task import new_id
from app.provider.wire import read_answer
from app.store import Database, Store
from app.store.migrate import migrate
from app.store.read import books_pages, task_pages
from app.store.read.task_pages import TaskFilter
from benchmarks.old_tasks import add_history
from tests.servers.postgres import PostgresServer, run_apart
from tests.statements import statements_of

TASKS, RUNS, LIMIT, RANGE = 20_000, 2, 50, 500
READ_MAX = 3 * RANGE
"""A page of a filter looks through RANGE tasks, with two look-ups of each."""
OTHER_RUNS = 5_000


@pytest.fixture(scope="module")
def large_url(postgres: PostgresServer) -> Iterator[str]:
    """Two runs of 10,000 tasks with their ledger, 5,000 findings, 5,000 empty runs."""
    url = postgres.create_database()
    run_apart(_fill(url))
    yield url
    postgres.drop_database(url)


async def _fill(url: str) -> None:
    store = Store(Database(url), read_answer)
    try:
        await migrate(store.db)
        await add_history(store, tasks=TASKS, runs=RUNS, paused=0)

        async def more(connection: Any) -> None:
            await connection.execute(
                sa.text(
                    "INSERT INTO findings (at_ms, run_id, task_id, attempt, verdict, detail)"
                    f" SELECT 1, run_id, id, 1, 'x', 'x' FROM tasks ORDER BY ordinal LIMIT {OTHER_RUNS}"
                )
            )
            rows = ", ".join(
                f"('{new_id(n, n)}', 'r', '-', 'finished', {n}, '{'eu' if n % 50 == 0 else 'default'}')"
                for n in range(1, OTHER_RUNS)
            )
            await connection.execute(
                sa.text(f"INSERT INTO runs (id, name, source, state, created_at_ms, account) VALUES {rows}")
            )
            await connection.execute(sa.text("ANALYZE"))

        await store.db.write(more, long=True)
    finally:
        await store.close()


@pytest.fixture
async def large(large_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    """Its store; pages look through less than usual, so that it shows."""
    monkeypatch.setattr(task_pages, "RANGE", RANGE)
    monkeypatch.setattr(task_pages, "RANGES_MAX", 1)
    monkeypatch.setattr(books_pages, "RANGE", RANGE)
    monkeypatch.setattr(books_pages, "RUN_TASKS", RANGE // 2)
    store = Store(Database(large_url), read_answer)
    try:
        yield store
    finally:
        await store.close()


async def rows_read(store: Store, work: Callable[[], Awaitable[object]]) -> dict[str, int]:
    """Statement -> rows that its scans came across when it ran."""
    found = {}
    async with store.db.engine.connect() as connection:
        for statement, parameters in (await statements_of(store.db, work)).items():
            explain = f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement}"
            answer = (await connection.exec_driver_sql(explain, parameters)).scalar_one()
            document = json.loads(answer) if isinstance(answer, str) else answer
            found[statement] = sum(_read(document[0]["Plan"]))
            await connection.rollback()
    return found


def _read(node: dict[str, Any]) -> Iterator[int]:
    if "Scan" in node["Node Type"] and "CTE" not in node["Node Type"]:
        removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
        yield round((node["Actual Rows"] + removed) * node["Actual Loops"])
    for child in node.get("Plans", ()):
        yield from _read(child)


async def test_a_page_reads_about_what_it_shows(large: Store) -> None:
    runs = [timed.run.id for timed in await large.run_pages.runs_before(None, OTHER_RUNS + 5)]
    run_id = runs[0]
    assert (await large.task_pages.tasks_after(run_id, 0, 1, TaskFilter())).rows
    middle = TASKS // RUNS // 2
    tasks, books, pages = large.task_pages, large.books_pages, large.run_pages
    cases: dict[str, Callable[[], Awaitable[object]]] = {
        "runs": lambda: pages.runs_before(runs[2_500], LIMIT),
        "runs of an account": lambda: pages.runs_before(runs[2_500], LIMIT, "eu"),
        "a run": lambda: pages.run_with_id(run_id, "default"),
        "tasks": lambda: tasks.tasks_after(run_id, middle, LIMIT, TaskFilter()),
        "tasks by state": lambda: tasks.tasks_after(run_id, middle, LIMIT, TaskFilter(state="failed")),
        "tasks by engine": lambda: tasks.tasks_after(run_id, middle, LIMIT, TaskFilter(task_type="GROK")),
        "tasks by country": lambda: tasks.tasks_after(run_id, middle, LIMIT, TaskFilter(country="XX")),
        "tasks by verdict": lambda: tasks.tasks_after(run_id, middle, LIMIT, TaskFilter(verdict="unknown")),
        "tasks by custom_id": lambda: tasks.tasks_after(run_id, 0, LIMIT, TaskFilter(custom_id="x")),
        "ledger": lambda: books.ledger_after(middle, LIMIT, None),
        "ledger of an account": lambda: books.ledger_after(middle, LIMIT, "eu"),
        "ledger of a run": lambda: books.ledger_of_run(run_id, (middle, 0), LIMIT),
        "findings": lambda: books.findings_after(2_500, LIMIT, None, None),
        "findings of an account": lambda: books.findings_after(2_500, LIMIT, "eu", None),
    }
    for name, work in cases.items():
        for statement, count in (await rows_read(large, work)).items():
            assert count <= READ_MAX, f"{name} reads {count} rows: {statement[:300]}"
