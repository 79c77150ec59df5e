"""Beside large tables a page of any list reads about as many rows as it has: held by the plans that ran."""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from app.domain.bulk_change import Aim, Place, Verb
from app.domain.task import new_id
from app.domain.task_filter import TaskFilter
from app.page.run import voided
from app.page.table import PAGES
from app.provider.wire import read_answer
from app.store import Database, Store
from app.store.migrate import migrate
from app.store.read import books_pages, relay, run_samples, task_pages
from app.store.write import bulk_changes, bulk_matching
from benchmarks.old_tasks import add_history
from benchmarks.page_paths import FILTERS, Shown, shown_paths
from tests.integration.page.conftest import StartPage, start_page
from tests.plans import large_relations, plans_of, scanned
from tests.servers.postgres import PostgresServer, run_apart
from tests.statements import statements_of

__all__ = ["start_page"]
_LARGE = re.compile(r"\b(tasks|deliveries|ledger|results|submissions|findings)\b")

_LONG = re.compile(r"\b(tasks|deliveries|ledger|results|submissions)\b")
"""Findings are few; a run that has a part of them may be read by their own ids."""

TASKS, RUNS, LIMIT, RANGE = 20_000, 2, 50, 500
READ_MAX = 3 * RANGE
"""A page of a filter looks through RANGE tasks, with two look-ups of each."""
OTHER_RUNS = 5_000
SCANNED_NEVER = {"tasks", "deliveries", "ledger"}
USUAL = (200, 404, 409)
"""409: a task that cannot be cancelled any more."""
MIDDLE = "80000000-0000-4000-8000-000000000000"
"""Of random ids."""


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
            for which, count in (("min", 3_000), ("max", OTHER_RUNS - 3_000)):
                await connection.execute(
                    sa.text(
                        "INSERT INTO findings (at_ms, run_id, task_id, attempt, verdict, detail)"
                        " SELECT 1, run_id, id, 1, 'x', 'x' FROM tasks WHERE run_id ="
                        f" (SELECT {which}(run_id::text)::uuid FROM tasks) LIMIT {count}"
                    )
                )
            rows = ", ".join(
                f"('{new_id(n, n)}', 'r', '-', 'finished', {n}, '{'eu' if n % 50 == 0 else 'default'}')"
                for n in range(1, OTHER_RUNS)
            )
            await connection.execute(
                sa.text(f"INSERT INTO runs (id, name, source, state, created_at_ms, account) VALUES {rows}")
            )
            for statement in _ENDPOINTS:
                await connection.execute(sa.text(statement))
            await connection.execute(sa.text(_SET_ASIDE))
            await connection.execute(sa.text("ANALYZE"))

        await store.db.write(more, long=True)
    finally:
        await store.close()


_ACCOUNT = "CASE WHEN n % 50 = 0 THEN 'eu' ELSE 'default' END"
_ENDPOINTS = (
    # One of them has every run, and more messages than are counted.
    "INSERT INTO relay_endpoints (id, account, token_id, url, scheme, secret, state, created_at_ms, from_seq,"
    f" rests, taken) SELECT gen_random_uuid(), {_ACCOUNT}, '', n::text, 'standard', 's', 'active', n, 0, 0, 0"
    f" FROM generate_series(1, {OTHER_RUNS}) n",
    "INSERT INTO relay_runs (run_id, endpoint_id)"
    " SELECT runs.id, e.id FROM runs, (SELECT max(id::text)::uuid AS id FROM relay_endpoints) e",
    "INSERT INTO relay_messages (endpoint_id, run_id, attempt, kind, at_ms, due_at_ms, tries)"
    f" SELECT e.endpoint_id, e.run_id, 1, 'completed', n, n, 0 FROM generate_series(1, {4 * RANGE}) n,"
    " (SELECT endpoint_id, run_id FROM relay_runs LIMIT 1) e",
    "INSERT INTO batch_files (id, account, created_at_ms, expires_at_ms, filename, body_bytes, sha256)"
    f" SELECT gen_random_uuid(), {_ACCOUNT}, n, n, 'f', 1, 's' FROM generate_series(1, {OTHER_RUNS}) n",
    "INSERT INTO batches (run_id, token_id, account, request_sha256, input_file_id, endpoint,"
    " completion_window, created_at_ms, expires_at_ms)"
    " SELECT id, gen_random_uuid(), account, 's', id, 'e', '24h', 1, 1 FROM runs",
)
_SET_ASIDE = (
    "INSERT INTO deliveries (id, source, account, received_at_ms, encoding, body, state, error, tries,"
    " due_at_ms) VALUES (gen_random_uuid(), 'delivery', 'default', 1, 'identity', '{}', 'quarantined', 'x',"
    " 1, 1)"
)


@pytest.fixture
async def large(large_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    """Its store; pages look through less than usual, so that it shows."""
    monkeypatch.setattr(task_pages, "RANGE", RANGE)
    monkeypatch.setattr(task_pages, "RANGES_MAX", 1)
    monkeypatch.setattr(bulk_matching, "RANGE", RANGE)
    monkeypatch.setattr(bulk_changes, "RANGES_MAX", 1)
    monkeypatch.setattr(books_pages, "RANGE", RANGE)
    monkeypatch.setattr(books_pages, "RUN_TASKS", RANGE // 2)
    monkeypatch.setattr(books_pages, "COUNTED_MAX", RANGE)
    monkeypatch.setattr(relay, "COUNTED_MAX", RANGE)
    monkeypatch.setattr(run_samples, "SAMPLED", LIMIT)
    monkeypatch.setattr(voided, "STEP", RANGE)
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
    bulk = large.bulk_changes
    tasks, books, pages, files = large.task_pages, large.books_pages, large.run_pages, large.batch_files.files
    place, failed = Place(run_id, middle), TaskFilter(run=run_id, country="XX")
    cases: dict[str, Callable[[], Awaitable[object]]] = {
        "runs": lambda: pages.runs_before(runs[2_500], LIMIT),
        "runs of an account": lambda: pages.runs_before(runs[2_500], LIMIT, "eu"),
        "a run": lambda: pages.run_with_id(run_id, "default"),
        "tasks": lambda: tasks.tasks_after(run_id, middle, LIMIT, TaskFilter()),
        "tasks by state": lambda: tasks.tasks_after(run_id, middle, LIMIT, TaskFilter(state="failed")),
        "tasks by engine": lambda: tasks.tasks_after(run_id, middle, LIMIT, TaskFilter(task_type="GROK")),
        "tasks by country": lambda: tasks.tasks_after(run_id, middle, LIMIT, TaskFilter(country="XX")),
        "tasks by verdict": lambda: tasks.tasks_after(run_id, middle, LIMIT, TaskFilter(verdict="unknown")),
        "tasks by text": lambda: tasks.tasks_after(run_id, middle, LIMIT, TaskFilter(text="no such words")),
        "a sample of a run": lambda: large.run_samples.sample(run_id),
        "tasks by custom_id": lambda: tasks.tasks_after(run_id, 0, LIMIT, TaskFilter(custom_id="x")),
        "a retry of all that match": lambda: bulk.figures_after(Aim(Verb.RETRY, failed), place),
        "a cancel of all that match": lambda: bulk.figures_after(Aim(Verb.CANCEL, failed), place),
        "bulk changes": lambda: bulk.changes_before(MIDDLE, LIMIT),
        "ledger": lambda: books.ledger_after(middle, LIMIT, None),
        "ledger of an account": lambda: books.ledger_after(middle, LIMIT, "eu"),
        "ledger of a run": lambda: books.ledger_of_run(run_id, (middle, 0), LIMIT),
        "findings": lambda: books.findings_after(2_500, LIMIT, None, None),
        "findings of an account": lambda: books.findings_after(2_500, LIMIT, "eu", None),
        "findings of a run": lambda: books.findings_after(0, LIMIT, None, run_id),
        "findings of a run and an account": lambda: books.findings_after(0, LIMIT, "default", run_id),
        "endpoints": lambda: large.relay.endpoints(limit=LIMIT),
        "endpoints behind one": lambda: large.relay.endpoints(before=MIDDLE, limit=LIMIT),
        "endpoints of an account": lambda: large.relay.endpoints(before=MIDDLE, account="eu", limit=LIMIT),
        "files": lambda: files(None, MIDDLE, LIMIT, newest=True),
        "files from the oldest": lambda: files(None, MIDDLE, LIMIT, newest=False),
        "files of an account": lambda: files("eu", MIDDLE, LIMIT, newest=True),
        "files of an account from the oldest": lambda: files("eu", MIDDLE, LIMIT, newest=False),
        "batches": lambda: large.batch_reads.batches(None, runs[2_500], LIMIT),
        "batches of an account": lambda: large.batch_reads.batches("eu", runs[2_500], LIMIT),
    }
    for name, work in cases.items():
        for statement, count in (await rows_read(large, work)).items():
            assert count <= READ_MAX, f"{name} reads {count} rows: {statement[:300]}"


BY_KEY = {"/submit/{upload_id}", "/tasks/{task_id}/reports/{report_id}", "/runs/{run_id}/dispute.zip"}
"""Of what somebody has just sent; downloads, which are what their parts are."""


async def test_no_page_of_the_site_goes_through_a_large_table(large: Store, start_page: StartPage) -> None:
    """Each page, its first part and a deep one, each filter, for all accounts and for one: no statement scans
    tasks, deliveries or the ledger, or reads more than about what is shown."""
    visitor, wrong = await start_page(large), list[str]()
    run_id = (await large.run_pages.runs_before(None, 1))[0].run.id
    sizes = await large_relations(large.db)
    for account in (None, "default"):
        await visitor.sign_in("operate", account)
        made = await visitor.act("/bulk", {"verb": "retry", "q": "country:ZW"})
        assert made.status == 303, made.text
        found = await shown_paths(large, run_id, (1, len(FILTERS)) if account is None else ())
        known: set[object] = set()
        for place in found:

            async def look(place: Shown = place) -> None:
                seen = await visitor.look(place.path)
                assert seen.status in USUAL, (place, seen.body)

            for statement, plan in await plans_of(large.db, look, known=known):
                tables, count = SCANNED_NEVER & set(scanned(plan, sizes)), sum(_read(plan))
                if tables or (count > READ_MAX and _LONG.search(statement)):
                    wrong.append(f"{place.path} reads {count} rows, scans {tables}: {statement}")
            assert "\n".join(wrong) == ""
        assert {place.route for place in found} | BY_KEY == _looked_at()


def _looked_at() -> set[str]:
    is_file = re.compile(r"\{format:")
    pages = [route for route in PAGES if route.method == "GET" and not route.is_listened]
    return {route.path for route in pages if not is_file.search(route.path)}
