"""With 90 days of deliveries, a statement touches the days that it is about: held by the plans that ran."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.delivery import RawDelivery
from app.domain.settlement import Source
from app.domain.task import new_id
from app.domain.time_format import DAY_MS
from app.limits import Limits
from app.provider.wire import read_answer
from app.services.sweep import sweep
from app.store import Database, Store
from app.store.days import day_of
from app.store.migrate import migrate
from app.store.read.disputes import DisputeScope
from app.store.read.verification import open_snapshot
from app.store.write.partitions import AHEAD_DAYS, attach_day
from tests.integration.store.scenes import apply, receive, report_on, start_run, submit_all
from tests.integration.store.test_growth import plans_of
from tests.servers.postgres import PostgresServer, run_apart
from tests.statements import statements_of

DAYS = 90
OPEN_DAYS = AHEAD_DAYS + 4
"""The days ahead, today, the two before it, and DEFAULT."""


@pytest.fixture(scope="module")
def history_url(postgres: PostgresServer) -> Iterator[str]:
    """90 days before today, each with some deliveries that are done."""
    url = postgres.create_database()
    run_apart(_add_history(url))
    yield url
    postgres.drop_database(url)


@pytest.fixture
async def history(history_url: str) -> AsyncIterator[Any]:
    """Its store, and the time."""
    store = Store(Database(history_url), read_answer)
    try:
        yield SimpleNamespace(store=store, now=await store.health.database_ms())
    finally:
        await store.close()


async def _add_history(url: str) -> None:
    store = Store(Database(url), read_answer)
    try:
        await migrate(store.db)
        now = await store.health.database_ms()
        (before, *_) = await store.partitions.partitions()
        # The past is to be days as well.
        assert await store.partitions.drop_partition(before)
        days = [day_of(now) - (n + 2) * DAY_MS for n in range(DAYS)]

        async def attach(connection: AsyncConnection) -> None:
            for day in days:
                await attach_day(connection, day)

        await store.db.write(attach, long=True)
        raw = [RawDelivery(new_id(day + n), Source.DELIVERY, day, b"{}") for day in days for n in range(20)]
        await store.inbox.store_deliveries(raw, due_at_ms=now)

        async def settle(connection: AsyncConnection) -> None:
            done = "state = 'done', effect = 'settled', task_id = gen_random_uuid(), attempt = 1"
            await connection.execute(sa.text(f"UPDATE deliveries SET {done}"))
            await connection.execute(sa.text("ANALYZE deliveries"))

        await store.db.write(settle)
    finally:
        await store.close()


async def touched(store: Store, work: Callable[[], Awaitable[object]]) -> dict[str, set[str]]:
    """Each statement of `work` that names deliveries, and the partitions that it went into when it ran."""
    ran = await statements_of(store.db, work)
    seen = {statement: values for statement, values in ran.items() if "deliveries" in statement}
    engine = store.db.engine
    found = {}
    async with engine.connect() as connection:
        for statement, parameters in seen.items():
            explain = f"EXPLAIN (ANALYZE, TIMING OFF, COSTS OFF) {statement}"
            lines = (await connection.exec_driver_sql(explain, parameters)).scalars().all()
            plan = "\n".join(lines)
            assert "deliveries" in plan, statement
            nodes = re.findall(r"on (deliveries_\w+).*\((?:actual|never)([^)]*)\)", plan)
            found[statement] = {name for name, how in nodes if "executed" not in how}
            await connection.rollback()
    return found


async def test_a_statement_goes_into_the_days_that_it_is_about(history: Any) -> None:
    store, now = history.store, history.now
    run_id, _ = await start_run(store, 8, now_ms=now)
    tasks = await submit_all(store, now_ms=now)

    async def settle() -> None:
        reports = await receive(store, *(report_on(task) for task in tasks), now_ms=now)
        ids = [report.id for report in reports]
        await store.inbox.waiting_deliveries(ids)
        await store.inbox.hold_up_deliveries([(ids[0], "x")], now_ms=now)
        await store.inbox.release_deliveries(ids)
        await apply(store, reports, now_ms=now)

    async def unmatched() -> None:
        strays = await receive(
            store, report_on(tasks[0], idempotency_key=None, provider_task_id="of nobody"), now_ms=now
        )
        await apply(store, strays, now_ms=now)

    async def look() -> None:
        (run,) = [run for run in await store.queries.list_runs() if run.id == run_id]
        await store.reports.report(run)
        scope = DisputeScope(run_id=run_id, account="default", since_ms=now, until_ms=None, last=1 << 40)
        await store.disputes.discrepancies(scope, after=0, limit=10)

    async def verify() -> None:
        async with open_snapshot(store.db) as snapshot:
            (run,) = await snapshot.runs(None, [run_id])
            assert [len(page) async for page in snapshot.books(run, 0, 1)] == [8]

    # Of a span of ids its days; by task, also those that were made ahead, which are empty.
    for work, most in ((settle, 2), (unmatched, 2), (look, OPEN_DAYS), (verify, OPEN_DAYS)):
        plans = await touched(store, work)
        assert plans
        for statement, partitions in plans.items():
            assert len(partitions) <= most, f"{sorted(partitions)} in {statement}"


async def test_the_sweep_looks_into_one_small_index_of_each_day(history: Any) -> None:
    """What is due may be of any day; the days themselves are not read."""
    store, now = history.store, history.now
    await start_run(store, 1, now_ms=now)
    (task,) = await submit_all(store, now_ms=now)
    await receive(store, report_on(task), now_ms=now)

    async def sweep() -> None:
        assert await store.inbox.is_any_overdue(now_ms=now + DAY_MS, tries_max=5)
        await store.inbox.quarantine_unended(tries_max=5)
        await store.inbox.claim_overdue_deliveries(limit=9, now_ms=now + DAY_MS, next_due_at_ms=now)
        await store.polls.oldest_waiting_poll()
        await store.queries.waiting_count()
        await store.set_aside.set_aside_count()

    plans = await plans_of(store, sweep)
    assert len(plans) >= 5
    for statement, plan in plans.items():
        assert re.search(r"'Seq Scan'[^}]*deliveries_p", str(plan)) is None, statement


async def test_a_sweep_that_finds_nothing_overdue_looks_into_the_days_once(history: Any) -> None:
    """An update makes ready to write to each of them, whatever it finds."""
    store, before = history.store, history.now - DAY_MS

    async def nothing(_ids: Sequence[str]) -> None:
        raise AssertionError("nothing is overdue")

    async def sweep_once() -> None:
        limits = Limits(settle_size=9, deliveries_tries_max=5, poll_size=9, submit_in_flight=4)
        await sweep(store, {}, nothing, limits=limits, clock=lambda: before, unreleased=set())

    ran = await statements_of(store.db, sweep_once)
    about = [statement for statement in ran if "deliveries" in statement]
    assert len(about) == 1, about
