"""Deliveries by the day: an old table becomes partitioned where it stands, days are made ahead and dropped,
and none of it loses a row or keeps anybody waiting.
"""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from sqlalchemy.ext.asyncio import AsyncConnection
from structlog.testing import capture_logs

from app.cli.doctor.stored import check_partitions
from app.domain.delivery import RawDelivery
from app.domain.settlement import Source
from app.domain.task import new_id
from app.domain.time_format import DAY_MS
from app.provider.wire import read_answer
from app.store import Database, Store
from app.store.days import day_of
from app.store.finish import steps_due
from app.store.migrate import alembic_config, migrate
from app.store.partitioning import CHECK, drop_stale_check, partition_deliveries
from app.store.write.partitions import AHEAD_DAYS
from tests.clock import wait_out_midnight
from tests.integration.store.scenes import count, execute, rows
from tests.servers.postgres import PostgresServer
from tests.statements import before_each
from workers.duties.partitions import look_ahead


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine those who write beside it may hold their locks for long."""
    monkeypatch.setattr("app.store.write.partitions.LOCK_TRIES", 100)
    monkeypatch.setattr("app.store.write.partitions.LOCK_PAUSE_S", 0.0)
    wait_out_midnight()  # the days are the database's


def raw(ms: int, body: bytes = b"{}") -> RawDelivery:
    return RawDelivery(new_id(ms), Source.DELIVERY, ms, body)


async def now_of(store: Store) -> int:
    return await store.health.database_ms()


async def keep(store: Store, *moments: int) -> list[RawDelivery]:
    made = [raw(ms) for ms in moments]
    await store.inbox.store_deliveries(made, due_at_ms=0)
    return made


async def place_of(store: Store, delivery: RawDelivery) -> str:
    (row,) = await rows(
        store, f"SELECT tableoid::regclass::text AS t FROM deliveries WHERE id = '{delivery.id}'"
    )
    return str(row["t"])


@pytest.fixture
async def days(postgres: PostgresServer) -> AsyncIterator[Store]:
    """A store whose partitions are the test's own."""
    url = postgres.create_database()
    store = Store(Database(url), read_answer)
    try:
        await migrate(store.db)
        yield store
    finally:
        await store.close()
        postgres.drop_database(url)


@pytest.fixture
async def plain(postgres: PostgresServer) -> AsyncIterator[Store]:
    """As an installation of before is: migrated, and not finished."""
    url = postgres.create_database()
    store = Store(Database(url), read_answer)

    def to_head(connection: sa.Connection) -> None:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    try:
        await store.db.write(lambda connection: connection.run_sync(to_head))
        yield store
    finally:
        await store.close()
        postgres.drop_database(url)


async def test_a_new_database_has_its_days(days: Store) -> None:
    now = await now_of(days)
    state = await days.partitions.partition_state(now)
    assert state is not None
    assert (state.days_ahead, state.has_rows_in_default) == (AHEAD_DAYS, False)
    assert [step for step in await steps_due(days.db) if "day" in step.name] == []
    ancient, today, tomorrow = await keep(days, 1_000, now, now + DAY_MS)
    assert (await place_of(days, ancient)).startswith("deliveries_before_")
    assert await place_of(days, today) != await place_of(days, tomorrow)
    assert await days.partitions.add_partitions(now) == []
    assert len(await days.partitions.add_partitions(now + DAY_MS)) == 1, "one more each day"


async def test_an_old_table_is_attached_and_goes_on_being_written_to(plain: Store) -> None:
    now = await now_of(plain)
    old = await keep(plain, now - 30 * DAY_MS, now)
    await execute(plain, "CREATE ROLE reader_of_days NOLOGIN", "GRANT SELECT ON deliveries TO reader_of_days")
    filenode = await count(plain, "SELECT pg_relation_filenode('deliveries')")
    stop, written = asyncio.Event(), []

    async def write() -> None:
        while not stop.is_set():
            written.extend(await keep(plain, await now_of(plain)))

    writer = asyncio.create_task(write())
    try:
        assert [step.name for step in await steps_due(plain.db)] != []
        await asyncio.gather(partition_deliveries(plain.db), partition_deliveries(plain.db))
        before = len(written)
        while len(written) < before + 5:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    finally:
        stop.set()
        await writer
        granted = await count(
            plain, "SELECT has_table_privilege('reader_of_days', 'deliveries', 'SELECT')::int"
        )
        await execute(plain, "DROP OWNED BY reader_of_days", "DROP ROLE reader_of_days")
    assert granted == 1
    assert await count(plain, "SELECT count(*) FROM deliveries") == len(old) + len(written)
    first = await place_of(plain, old[0])
    assert first == await place_of(plain, written[-1]), "what is new goes there for a week"
    assert await count(plain, f"SELECT pg_relation_filenode('{first}')") == filenode, "not copied"
    assert await count(plain, f"SELECT count(*) FROM pg_constraint WHERE conname = '{CHECK}'") == 0
    (later,) = await keep(plain, now + (AHEAD_DAYS + 2) * DAY_MS)
    assert await place_of(plain, later) == "deliveries_default"
    known = await plain.inbox.store_deliveries([old[0]], due_at_ms=0)
    assert known == {old[0].id}, "a repeat is found where it is"


BOUND = "ALTER TABLE deliveries VALIDATE"
VALIDATED = "ALTER TABLE deliveries RENAME"
"""What comes next then."""


async def partition_until(db: Database, beginning: str) -> None:
    """A call that is killed before its first statement that begins so."""

    async def kill() -> None:
        raise ZeroDivisionError

    with before_each(db, beginning, kill), pytest.raises(ZeroDivisionError):
        await partition_deliveries(db)


@pytest.mark.parametrize("cut", [BOUND, VALIDATED], ids=["bound", "validated"])
async def test_a_call_that_was_killed_is_gone_on_with(plain: Store, cut: str) -> None:
    now = await now_of(plain)
    await keep(plain, now)
    await partition_until(plain.db, cut)
    await keep(plain, now + DAY_MS)
    assert not await drop_stale_check(plain.db, now)
    await partition_deliveries(plain.db)
    assert await steps_due(plain.db) == [s for s in await steps_due(plain.db) if "day" not in s.name]
    assert await count(plain, "SELECT count(*) FROM deliveries") == 2


async def test_the_check_of_a_killed_call_is_taken_away_before_it_refuses(plain: Store) -> None:
    now = await now_of(plain)
    await keep(plain, now)
    await partition_until(plain.db, BOUND)
    assert await drop_stale_check(plain.db, now + AHEAD_DAYS * DAY_MS + 1)
    await keep(plain, now + 400 * DAY_MS)
    await partition_deliveries(plain.db)
    assert await count(plain, "SELECT count(*) FROM deliveries_default") == 0, "younger than it should be"
    assert await count(plain, "SELECT count(*) FROM deliveries") == 2


async def test_rows_in_default_move_to_their_day(days: Store) -> None:
    """Nobody made partitions for a month; or a clock was wrong."""
    now = await now_of(days) + 30 * DAY_MS
    made = await keep(days, now, now - DAY_MS, now - 12 * DAY_MS, now + 900 * DAY_MS)
    assert {await place_of(days, each) for each in made} == {"deliveries_default"}
    state = await days.partitions.partition_state(now)
    assert state is not None
    assert (state.days_ahead, state.has_rows_in_default) == (-1, True)
    several = await asyncio.gather(*(days.partitions.add_partitions(now) for _ in range(2)))
    await days.partitions.add_partitions(now)
    assert several
    assert await count(days, "SELECT count(*) FROM deliveries_default") == 0
    assert await count(days, "SELECT count(*) FROM deliveries") == len(made)
    assert len({await place_of(days, each) for each in made}) == len(made)


async def test_the_kept_statement_finds_a_day_that_is_made_later(days: Store) -> None:
    """The connection that appends keeps its plan."""
    now = await now_of(days)
    for _ in range(8):
        await keep(days, now)
    later = now + (AHEAD_DAYS + 3) * DAY_MS
    await days.partitions.add_partitions(later)
    (there,) = await keep(days, later)
    assert (await place_of(days, there)).startswith("deliveries_p")
    assert await days.inbox.store_deliveries([there], due_at_ms=0) == {there.id}


async def test_a_day_is_dropped_while_others_work(days: Store) -> None:
    now = await now_of(days)
    old = await keep(days, *(now - DAY_MS + n for n in range(500)))
    (day,) = [each for each in await days.partitions.partitions() if each.has(day_of(now) - DAY_MS)]
    stop, done = asyncio.Event(), []

    async def work() -> None:
        while not stop.is_set():
            (one,) = await keep(days, now)
            await days.inbox.waiting_deliveries([one.id])
            await days.inbox.hold_up_deliveries([(one.id, "x")], now_ms=now)
            done.append(one)

    workers = [asyncio.create_task(work()) for _ in range(3)]
    asked: list[int] = []

    async def note(connection: AsyncConnection) -> None:
        asked.append(await connection.scalar(sa.text(f"SELECT count(*) FROM {day.name}")) or 0)

    try:
        while len(done) < 20:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert await days.partitions.drop_partition(day, note)
    finally:
        stop.set()
        await asyncio.gather(*workers)
    assert asked[-1] == len(old)
    assert await count(days, f"SELECT count(*) FROM deliveries WHERE id <= '{old[-1].id}'") == 0
    assert day not in await days.partitions.partitions()


async def test_a_day_that_must_stay_stays(days: Store) -> None:
    now = await now_of(days)
    await keep(days, now)
    (day,) = [each for each in await days.partitions.partitions() if each.has(now)]

    async def refuse(_connection: AsyncConnection) -> None:
        raise LookupError("it holds what is not settled")

    with pytest.raises(LookupError):
        await days.partitions.drop_partition(day, refuse)
    assert await count(days, "SELECT count(*) FROM deliveries") == 1


async def test_who_reads_for_long_is_not_waited_for(days: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.store.write.partitions.LOCK_TRIES", 2)
    now = await now_of(days)
    (one,) = await keep(days, now - DAY_MS)
    (day,) = [each for each in await days.partitions.partitions() if each.has(day_of(now) - DAY_MS)]
    async with days.db.engine.connect() as reader:
        await reader.execute(sa.text("SELECT count(*) FROM deliveries"))
        dropping = asyncio.create_task(days.partitions.drop_partition(day))
        while not dropping.done():
            await keep(days, now)  # or this is queued behind the lock for as long as the reader reads
        assert await dropping is False
        assert await place_of(days, one) == day.name
    assert await days.partitions.drop_partition(day)


async def test_days_with_deliveries_are_found_one_after_another(store: Store) -> None:
    now = 1_700_000_000_000
    assert await store.partitions.next_day(0) is None
    await keep(store, *(day_of(now) + n for n in range(5)), now + DAY_MS, day_of(now) - 1)
    assert await store.partitions.next_day(0) == day_of(now) - DAY_MS
    assert await store.partitions.next_day(day_of(now)) == day_of(now)
    assert await store.partitions.next_day(day_of(now) + DAY_MS) == day_of(now) + DAY_MS
    assert await store.partitions.next_day(day_of(now) + 2 * DAY_MS) is None


async def test_a_worker_makes_them_and_says_what_it_cannot(
    days: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = await now_of(days) + 20 * DAY_MS
    await keep(days, later)
    assert [check.detail for check in check_partitions(await days.partitions.partition_state(later))] == [
        "today has none; DEFAULT holds deliveries of days that have none"
    ]
    context: Any = SimpleNamespace(store=days, clock=lambda: later)
    with capture_logs() as told:
        async with days.db.engine.connect() as reader:
            monkeypatch.setattr("app.store.write.partitions.LOCK_TRIES", 1)
            await reader.execute(sa.text("SELECT count(*) FROM deliveries"))
            await look_ahead(context, "me")
        monkeypatch.undo()
        await look_ahead(context, "me")
        await look_ahead(context, "me")
    assert [each["event"] for each in told] == ["partitions_missing", "partitions_made"]
    assert (told[0]["days_ahead"], told[0]["rows_in_default"]) == (-1, True)
    assert check_partitions(await days.partitions.partition_state(later)) == []
