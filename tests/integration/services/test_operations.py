"""What operating the database does to a run under way: connections cut, none left, migrations, a restored
backup, a clock that was set back. Named after the rows of the failure catalogue (table W)."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest
import sqlalchemy as sa

from app.commands.opening import opened_store
from app.config import load_settings
from app.domain.retry import Answer
from app.domain.task import idempotency_key
from app.ports import StoreUnavailable
from app.store import Database, Store
from app.store.migrate import migrate
from app.store.tables import metadata
from tests.clock import SteppedClock
from tests.integration.services.pipeline import HOUR_MS, SUBMIT_LIMITS, Pipeline, until
from tests.servers.postgres import PostgresServer, database_name

TASKS = 120
ROUNDS_MAX = 500
PATIENT_S = 100.0
CUT = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


async def one_round(pipeline: Pipeline, told: set[str]) -> bool:
    """Submit a few, deliver what is accepted, sweep; whether everything is settled. The store may be away at
    any time, and then the provider tries again; any other error is a fault."""
    sends = pipeline.provider.sends
    enough = len(sends) + TASKS // 6
    with contextlib.suppress(StoreUnavailable):
        await pipeline.submit(claim_size=TASKS // 6, stopping=lambda: len(sends) >= enough)
    for key in sorted(pipeline.provider.accepted.keys() - told):
        with contextlib.suppress(StoreUnavailable):
            await pipeline.receive(pipeline.provider.finish(key))
            told.add(key)
    # Whoever holds a claim or a lease is thought dead by then, and what waited in the inbox is due.
    pipeline.clock.advance(SUBMIT_LIMITS.claim_lease_ms + 1)
    with contextlib.suppress(StoreUnavailable):
        await pipeline.sweep()
        return (await pipeline.store.progress(pipeline.run_id)).open == 0
    return False


async def settle_all(pipeline: Pipeline, told: set[str]) -> None:
    for _ in range(ROUNDS_MAX):
        if await one_round(pipeline, told):
            return
    raise AssertionError(f"not over after {ROUNDS_MAX} rounds")


async def assert_each_once(pipeline: Pipeline) -> None:
    """One task at the provider for each of ours, charged once."""
    books = await pipeline.books()
    accepted = {key: len(tasks) for key, tasks in pipeline.provider.accepted.items()}
    assert accepted == {idempotency_key(task_id, 1): 1 for task_id in pipeline.task_ids}
    assert books.posted() == pipeline.provider.bill()


@contextlib.asynccontextmanager
async def meanwhile(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Do that beside the block; its errors are the test's. Ended with the block if it goes on for ever."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()


def reached(count: Callable[[], int], goal: int) -> bool:
    return count() >= goal


def commit_counter(store: Store) -> Callable[[], int]:
    """How many transactions of this store's were committed since now."""
    commits = 0

    @sa.event.listens_for(store.db.engine.sync_engine, "commit")
    def _(_: sa.Connection) -> None:
        nonlocal commits
        commits += 1

    return lambda: commits


async def test_w5_connections_that_are_cut_all_the_time(postgres_url: str, clock: SteppedClock) -> None:
    store, cuts = Store(Database(postgres_url)), 0
    pipeline, commits = Pipeline(store, clock), commit_counter(store)
    await pipeline.start(TASKS)
    admin = await asyncpg.connect(postgres_url)

    async def cut() -> None:
        nonlocal cuts
        while True:
            cuts += len(await admin.fetch(CUT)) > 0
            # As often as can be without nothing ever being done.
            await until(partial(reached, commits, commits() + 2), timeout_s=PATIENT_S)

    try:
        async with meanwhile(cut()):
            await settle_all(pipeline, set())
        await assert_each_once(pipeline)
    finally:
        await admin.close()
        await store.close()
    assert cuts > 10


async def test_w9_without_a_free_connection_the_store_is_away_until_there_is_one(
    postgres_url: str, clock: SteppedClock
) -> None:
    """Held by somebody else, all that the server allows."""
    store = Store(Database(postgres_url))
    pipeline = Pipeline(store, clock)
    await pipeline.start(TASKS)
    await store.close()
    held: list[asyncpg.Connection] = []
    try:
        with contextlib.suppress(asyncpg.TooManyConnectionsError):
            while True:
                held.append(await asyncpg.connect(postgres_url))
        with pytest.raises(StoreUnavailable, match="too many clients"):
            await pipeline.receive(b"{}")
        with pytest.raises(StoreUnavailable, match="too many clients"):
            await pipeline.submit()
        with pytest.raises(StoreUnavailable, match="too many clients"):
            await store.progress(pipeline.run_id)
        assert pipeline.provider.sends == []
    finally:
        await asyncio.gather(*(connection.close() for connection in held))
    try:
        await settle_all(pipeline, set())
        await assert_each_once(pipeline)
    finally:
        await store.close()


@pytest.fixture(params=["sqlite", "postgres"])
def own_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database whose schema this test may change; nothing is in it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'own.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    url = server.create_database()
    request.addfinalizer(lambda: server.drop_database(url))
    return url


LATER = """
    CREATE TABLE later (id INTEGER PRIMARY KEY);
    CREATE INDEX ix_tasks_later ON tasks (ordinal);
    UPDATE alembic_version SET version_num = '9999'
"""


async def test_w18_this_version_goes_on_while_a_later_one_migrates(
    own_url: str, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What later migrations may do: add, to every table. Nothing stops, and what is started again starts."""
    store, other = Store(Database(own_url)), Database(own_url)
    await migrate(other)
    pipeline, commits, told = Pipeline(store, clock), commit_counter(store), set[str]()
    await pipeline.start(TASKS)
    await one_round(pipeline, told)

    async def change(statement: str) -> None:
        async with other.engine.connect() as connection:
            await connection.execution_options(tallyhook_write=True)
            async with connection.begin():
                await connection.execute(sa.text(statement))

    async def migrate_later() -> None:
        for table in metadata.sorted_tables:
            await change(f"ALTER TABLE {table.name} ADD COLUMN later INTEGER NOT NULL DEFAULT 0")
            await until(partial(reached, commits, commits() + 2), timeout_s=PATIENT_S)
        assert len(told) < TASKS, "it went on to the end"
        for statement in LATER.split(";"):
            await change(statement)

    try:
        async with meanwhile(migrate_later()) as migrating:
            await settle_all(pipeline, told)
            await migrating
        await assert_each_once(pipeline)
        await migrate(other)
        monkeypatch.setenv("DATABASE_URL", own_url)
        async with opened_store(load_settings(_env_file=None)) as again:
            assert await again.schema_revision() == "9999", "as it was left"
            assert (await again.progress(pipeline.run_id)).states == {"completed": TASKS}
    finally:
        await store.close()
        await other.close()


async def test_w19_a_restored_backup_catches_up_and_sends_nothing_twice(
    store_url: str, tmp_path: Path, clock: SteppedClock, request: pytest.FixtureRequest
) -> None:
    """What was accepted before the backup is fetched, whatever has become of it since. What was sent since is
    known to the provider by its key: it is not paid again, and settles with its delivery if that comes once
    more. Nothing else names it, so without one it is listed as expired, its exposure open."""
    store = Store(Database(store_url))
    pipeline, told = Pipeline(store, clock), set[str]()
    await pipeline.start(TASKS)
    await pipeline.submit(stopping=lambda: len(pipeline.provider.sends) >= TASKS // 2)
    before = set(pipeline.provider.accepted)
    await store.close()
    if store_url.startswith("sqlite"):
        backup = f"sqlite:///{tmp_path / 'backup.db'}"
        shutil.copyfile(store_url.removeprefix("sqlite:///"), tmp_path / "backup.db")
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        backup = server.create_database(database_name(store_url))
        request.addfinalizer(lambda: server.drop_database(backup))
    await settle_all(pipeline, told)
    await assert_each_once(pipeline)
    await store.close()

    pipeline.store = Store(Database(backup))
    try:
        since = sorted(told - before)
        assert 0 < len(since) < TASKS
        again, lost = since[: len(since) // 2], since[len(since) // 2 :]
        await pipeline.submit(in_flight=1)
        [run] = (await pipeline.books()).runs
        assert (run["state"], "restored" in run["reason"]) == ("stopped", True), "it may be a copy (S8)"
        assert await pipeline.store.resume_restored_run(pipeline.run_id)
        assert (await pipeline.submit()).answers == {Answer.EXISTS: len(since)}
        await pipeline.receive(*(pipeline.provider.accepted[key][-1] for key in again))
        for _ in range(30):
            clock.advance(HOUR_MS)
            await pipeline.sweep()
        books = await pipeline.books()
        bill = pipeline.provider.bill()
        assert books.posted() == {key: bill[key] for key in (*before, *again)}
        assert {len(tasks) for tasks in pipeline.provider.accepted.values()} == {1}
        assert books.states() == {"completed": len(before) + len(again), "expired": len(lost)}
        open_ = {(row["money"], row["credits_charged"]) for row in books.tasks if row["state"] == "expired"}
        assert open_ == {("held", None)}
    finally:
        await pipeline.store.close()


@pytest.mark.parametrize("back_ms", [1_000, 600_000, 86_400_000])
async def test_w22_a_clock_that_is_set_back_costs_time_only(pipeline: Pipeline, back_ms: int) -> None:
    await pipeline.start(TASKS)
    told: set[str] = set()
    await one_round(pipeline, told)
    pipeline.clock.advance(-back_ms)
    await one_round(pipeline, told)
    pipeline.clock.advance(back_ms)
    await settle_all(pipeline, told)
    await assert_each_once(pipeline)
