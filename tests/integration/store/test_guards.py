"""What the database itself refuses, and that a write may be repeated."""

import asyncio
import random
import threading
from collections.abc import Awaitable
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.delivery import RawDelivery
from app.domain.send_outcome import Answer
from app.domain.settlement import Source
from app.domain.task import TaskSpec, new_id
from app.ports import RowsRefused, StoreRefused, StoreUnavailable
from app.provider.wire import read_answer
from app.store import Database, Store
from app.store.database import WRITE_TRIES
from app.store.sqlite_append import append_rows
from app.store.tables import ledger, results, tasks
from app.store.write.settlement_rows import RESULT_COLUMNS
from tests.clock import SteppedClock
from tests.integration.store.scenes import (
    FIVE,
    NOW,
    check_books,
    claim,
    count,
    ended,
    failed_on,
    receive,
    report_on,
    rows,
    start_run,
    submit_all,
    task_row,
)
from tests.integration.store.scenes import apply as settle
from tests.integration.store.test_closing import end_of_threads
from tests.servers.postgres import OTHERS_OFF
from tests.servers.proxy import STORED_NEW, through
from tests.statements import losing_answers


async def enter(store: Store, task_id: str, kind: str, attempt: int = 1) -> None:
    run = (await store.queries.list_runs())[0].id
    row = {"at_ms": NOW, "run_id": run, "task_id": task_id, "attempt": attempt, "kind": kind, "credits": FIVE}

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(sa.insert(ledger), [row])

    await store.db.write(work)


@pytest.mark.parametrize(
    ("first", "second"),
    [("hold", "hold"), ("post", "post"), ("void", "void"), ("post", "void"), ("void", "post")],
)
async def test_one_hold_and_one_closing_entry_an_attempt(store: Store, first: str, second: str) -> None:
    _, ids = await start_run(store)
    await enter(store, ids[0], first)
    with pytest.raises(RowsRefused):
        await enter(store, ids[0], second)
    await enter(store, ids[0], second, attempt=2)


async def test_a_hold_and_a_closing_entry_stand_together(store: Store) -> None:
    _, ids = await start_run(store)
    await enter(store, ids[0], "hold")
    await enter(store, ids[0], "post")


@pytest.mark.parametrize("table", [tasks, results])
async def test_keys_and_results_are_unique(store: Store, table: sa.Table) -> None:
    _, ids = await start_run(store, 2)
    claimed = await submit_all(store)
    await settle(store, await receive(store, *(report_on(task) for task in claimed)))

    async def work(connection: AsyncConnection) -> None:
        same = {"idempotency_key": f"{ids[0]}.1"} if table is tasks else {"task_id": ids[0]}
        where = tasks.c.id == ids[1] if table is tasks else results.c.task_id == ids[1]
        await connection.execute(sa.update(table).where(where).values(**same))

    with pytest.raises(RowsRefused):
        await store.db.write(work)


async def test_a_write_may_be_repeated_after_its_commit_was_lost(
    store_url: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = None if store_url.startswith("sqlite") else request.getfixturevalue("proxy")
    store = Store(Database(through(proxy, store_url) if proxy else store_url), read_answer)

    async def losing(made: Awaitable[Any]) -> Any:
        with losing_answers(store.db) as lost:
            lost.count = 1
            done = await made
            assert lost.count == 0
        return done

    async def losing_receive(*claimed: Any) -> list[Any]:
        # Deliveries are appended by the driver alone: no event of SQLAlchemy's tells of it.
        if proxy is not None:
            proxy.lost_answer = STORED_NEW
        lost = [ConnectionResetError("the answer was lost")] if proxy is None else []

        async def append_and_lose(*args: Any) -> set[str]:
            known = await append_rows(*args)
            if lost:
                raise lost.pop()
            return known

        monkeypatch.setattr("app.store.database.append_rows", append_and_lose)
        parsed = await receive(store, report_on(claimed[0], 6), failed_on(claimed[1]))
        assert not lost and (proxy is None or proxy.lost_answer is None)
        assert await count(store, "SELECT count(*) FROM deliveries") == 2
        return list(parsed)

    try:
        run_id = await losing(store.runs.create_run(name="r", source="-", budget=None, now_ms=NOW))
        specs = [(TaskSpec(n, "CHATGPT", {"prompt": "x"}), FIVE) for n in range(1, 5)]
        ids = await losing(store.runs.add_tasks(run_id, specs, NOW))
        await store.runs.start_run_if_loading(run_id, sha256="", bad_lines=0)
        claimed = await claim(store)
        answers = [Answer.ACCEPTED, Answer.ACCEPTED, Answer.EXISTS, Answer.REJECTED]
        price = Decimal(6)
        sent = [
            ended(task, answer, credits_to_charge=price if answer is Answer.ACCEPTED else None)
            for task, answer in zip(claimed, answers, strict=True)
        ]
        await losing(store.submissions.record_submissions(sent))
        assert await count(store, "SELECT count(*) FROM findings") == 2
        (first, *_) = parsed = await losing_receive(claimed[0], claimed[1])
        await losing(settle(store, parsed))
        assert (await settle(store, [first])).effects == {}
        await losing(store.retries.retry_tasks_if_closed(ids, NOW))
        await check_books(store)
        assert await count(store, "SELECT count(*) FROM attempts") == 2
        assert (await task_row(store, ids[1]))["attempt"] == 2
        assert await store.queries.waiting_count() == 0
    finally:
        await store.close()


async def test_a_database_that_does_not_come_back_is_unavailable(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    async def no_wait(_: float) -> None:
        nonlocal tries
        tries += 1

    monkeypatch.setattr("app.store.database.asyncio.sleep", no_wait)
    store = Store(Database(sqlite_url), read_answer)
    try:
        with losing_answers(store.db) as lost, pytest.raises(StoreUnavailable):
            lost.count = WRITE_TRIES
            await store.runs.create_run(name="r", source="-", budget=None, now_ms=NOW)
        assert tries == WRITE_TRIES - 1
    finally:
        await store.close()


async def test_nobody_listening_is_unavailable_for_reads_and_writes() -> None:
    store = Store(Database("postgresql://nobody@127.0.0.1:1/none"), read_answer)
    try:
        with pytest.raises(StoreUnavailable):
            await store.queries.list_runs()
        with pytest.raises(StoreUnavailable):
            await store.runs.create_run(name="r", source="-", budget=None, now_ms=NOW)
    finally:
        await store.close()


async def test_a_write_whose_connection_is_cut_is_repeated(postgres_url: str) -> None:
    store, other = Store(Database(postgres_url), read_answer), Database(postgres_url)
    tries = 0

    async def cut(connection: AsyncConnection) -> None:
        nonlocal tries
        tries += 1
        await connection.execute(sa.text("INSERT INTO leases VALUES ('once', 'me', 0)"))
        if tries == 1:
            pid = await connection.scalar(sa.text("SELECT pg_backend_pid()"))
            async with other.engine.connect() as killer:
                await killer.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
            await connection.execute(sa.text("SELECT 1"))

    try:
        await store.db.write(cut)
        assert tries == 2
        assert await rows(store, "SELECT name FROM leases") == [{"name": "once"}]
    finally:
        await other.close()
        await store.close()


async def test_a_copy_whose_connection_is_cut_is_repeated(postgres_url: str) -> None:
    store, other = Store(Database(postgres_url), read_answer), Database(postgres_url)
    row = new_id(NOW), 1, new_id(NOW), "completed", NOW, 14, bytes(32), 0, 1
    tries = 0

    async def cut(connection: AsyncConnection) -> None:
        nonlocal tries
        tries += 1
        pid = await connection.scalar(sa.text("SELECT pg_backend_pid()"))
        if tries == 1:
            async with other.engine.connect() as killer:
                await killer.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        await store.db.insert_plain(connection, results, RESULT_COLUMNS, [row])

    try:
        await store.db.write(cut)
        assert tries == 2
        assert await rows(store, "SELECT answer_sha256 FROM results") == [{"answer_sha256": row[6]}]
        with pytest.raises(RowsRefused, match="duplicate key"):
            await store.db.write(cut)
        assert tries == 3, "a mistake is not repeated"
    finally:
        await other.close()
        await store.close()


async def test_w8_writers_that_deadlock_both_get_through(postgres_url: str) -> None:
    store = Store(Database(postgres_url), read_answer)
    locked = asyncio.Barrier(2)
    tries = 0

    async def cross(first: str, second: str) -> None:
        met = False

        async def work(connection: AsyncConnection) -> None:
            nonlocal met, tries
            tries += 1
            for n, name in enumerate((first, second)):
                await connection.execute(
                    sa.text("UPDATE leases SET until_ms = until_ms + 1 WHERE name = :name"), {"name": name}
                )
                if n == 0 and not met:
                    met = True
                    await locked.wait()

        await store.db.write(work)

    try:
        for name in ("a", "b"):
            await store.runs.acquire_lease(name, "me", until_ms=0, now_ms=0)
        await asyncio.gather(cross("a", "b"), cross("b", "a"))
        assert tries == 3
        assert await rows(store, "SELECT DISTINCT until_ms FROM leases") == [{"until_ms": 2}]
    finally:
        await store.close()


async def test_a_mistake_of_ours_is_not_repeated_and_not_hidden(store: Store) -> None:
    tries = 0

    async def wrong(connection: AsyncConnection) -> None:
        nonlocal tries
        tries += 1
        await connection.execute(sa.text("SELECT 1 FROM nowhere"))

    for ask in (store.db.write, store.db.read):
        with pytest.raises(StoreRefused, match="nowhere"):
            await ask(wrong)
    assert tries == 2


async def test_a_commit_survives_a_power_loss(sqlite_store: Store) -> None:
    """On SQLite that is a setting of each connection."""
    async with sqlite_store.db.engine.connect() as connection:
        found = {
            name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}


async def test_w7_a_full_disk_is_the_database_s_absence_and_no_bad_delivery(
    sqlite_store: Store, clock: SteppedClock
) -> None:
    """Settlement quarantines what raises anything else, so a full disk must not look like poison."""

    def shrink(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA max_page_count = 60")

    await sqlite_store.db.engine.dispose()
    sa.event.listen(sqlite_store.db.engine.sync_engine, "connect", shrink)
    bodies = [random.Random(n).randbytes(60_000) for n in range(8)]
    raw = [RawDelivery(new_id(clock()), Source.DELIVERY, clock(), body) for body in bodies]
    with pytest.raises(StoreUnavailable, match="full"):
        await sqlite_store.inbox.store_deliveries(raw, due_at_ms=clock())
    assert await sqlite_store.queries.waiting_count() == 0, "all or none"


async def test_a_read_replaces_a_connection_that_went_stale(postgres_url: str) -> None:
    store, other = (
        Store(Database(postgres_url, pool_size=1), read_answer),
        Database(postgres_url, pool_size=1),
    )
    try:
        assert await store.queries.waiting_count() == 0
        assert (await other.write(lambda connection: connection.scalar(sa.text(OTHERS_OFF)))) is True
        assert await store.queries.waiting_count() == 0
    finally:
        await store.close()
        await other.close()


async def test_deliveries_are_stored_after_the_kept_connection_was_cut(postgres_url: str) -> None:
    store, other = Store(Database(postgres_url), read_answer), Database(postgres_url)
    raw = [RawDelivery(new_id(NOW), Source.DELIVERY, NOW, b"{}") for _ in range(3)]
    try:
        await store.inbox.store_deliveries(raw[:1], due_at_ms=NOW)
        assert (await other.write(lambda connection: connection.scalar(sa.text(OTHERS_OFF)))) is True
        await store.inbox.store_deliveries(raw[1:], due_at_ms=NOW)
        await store.inbox.store_deliveries(raw, due_at_ms=NOW)
        assert await store.queries.waiting_count() == 3
    finally:
        await store.close()
        await other.close()


async def test_a_store_of_deliveries_that_is_cancelled_leaves_the_next_one_alone(postgres_url: str) -> None:
    """A commit that takes too long is given up while a lock holds it; what it held may come again."""
    store, other = Store(Database(postgres_url), read_answer), Database(postgres_url)
    raw = [RawDelivery(new_id(NOW), Source.DELIVERY, NOW, b"{}")]

    async def hold_and_give_up(connection: AsyncConnection) -> None:
        await connection.execute(sa.text("LOCK TABLE deliveries IN ACCESS EXCLUSIVE MODE"))
        writing = asyncio.create_task(store.inbox.store_deliveries(raw, due_at_ms=NOW))
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'deliveries'::regclass"
        while not await connection.scalar(sa.text(waiting)):  # noqa: ASYNC110 - nobody tells us of a lock
            await asyncio.sleep(0.01)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing

    try:
        await store.inbox.store_deliveries(raw, due_at_ms=NOW)
        await other.write(hold_and_give_up)
        await store.inbox.store_deliveries(raw, due_at_ms=NOW)
        assert await store.queries.waiting_count() == 1
    finally:
        await store.close()
        await other.close()


async def test_no_thread_of_sqlite_outlives_its_store(sqlite_url: str) -> None:
    """Neither one whose statement was cancelled: it would answer a loop that is closed by then."""
    before = set(threading.enumerate())
    database = Database(sqlite_url)
    begun = asyncio.Event()

    async def work(connection: AsyncConnection) -> None:
        begun.set()
        count = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000)"
        await connection.scalar(sa.text(f"{count} SELECT count(*) FROM n"))

    reading = asyncio.create_task(database.read(work))
    await begun.wait()
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await database.close()
    end_of_threads(before)
