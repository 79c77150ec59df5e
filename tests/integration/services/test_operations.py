"""What operating the database does to a run under way: connections cut, none left, migrations, a restored
backup, a clock that was set back. Named after the rows of the failure catalogue (table W)."""

import asyncio
import contextlib
import shutil
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import pytest
import sqlalchemy as sa

from app.cli.store_access import opened_store
from app.config import load_settings
from app.domain.send_outcome import Answer
from app.domain.task import idempotency_key
from app.limits import to_ms
from app.ports import StoreUnavailable
from app.provider.wire import read_answer
from app.store import Database, Store
from app.store.migrate import migrate
from app.store.tables import metadata
from tests.clock import SteppedClock
from tests.integration.services.pipeline import HOUR_MS, LIMITS, Pipeline
from tests.servers.postgres import OTHERS_OFF, PostgresServer, database_name

TASKS = 120
ROUNDS_MAX = 500


async def one_round(pipeline: Pipeline, answered: set[str], *, sends: int = TASKS // 6) -> bool:
    """Submit a few, deliver what is accepted, sweep; whether everything is settled. The store may be away at
    any time, and then the provider tries again; any other error is a fault."""
    sent = pipeline.provider.sends
    enough = len(sent) + sends
    with contextlib.suppress(StoreUnavailable):
        await pipeline.submit(claim_size=sends, submit_in_flight=2, stopping=lambda: len(sent) >= enough)
    for key in sorted(pipeline.provider.accepted.keys() - answered):
        with contextlib.suppress(StoreUnavailable):
            await pipeline.receive(pipeline.provider.finish(key))
            answered.add(key)
    # Whoever holds a claim or a lease is thought dead by then, and what waited in the inbox is due.
    pipeline.clock.advance(to_ms(LIMITS.claim_lease_s) + 1)
    with contextlib.suppress(StoreUnavailable):
        await pipeline.sweep()
        return (await pipeline.store.queries.progress(pipeline.run_id)).open == 0
    return False


async def settle_all(pipeline: Pipeline, answered: set[str]) -> None:
    for _ in range(ROUNDS_MAX):
        if await one_round(pipeline, answered):
            return
    raise AssertionError(f"not over after {ROUNDS_MAX} rounds")


async def assert_all_charged(pipeline: Pipeline) -> None:
    """Every task reached the provider, and what it charged is in the books."""
    books, bill = await pipeline.books(), pipeline.provider.bill()
    assert bill.keys() == {idempotency_key(task_id, 1) for task_id in pipeline.task_ids}
    assert books.posted() == bill


async def test_w5_connections_that_are_cut_all_the_time(postgres_url: str, clock: SteppedClock) -> None:
    store, cuts = Store(Database(postgres_url), read_answer), 0
    pipeline, answered = Pipeline(store, clock), set[str]()
    await pipeline.start(TASKS)
    admin, commits = await asyncpg.connect(postgres_url), asyncio.Semaphore(0)
    sa.event.listen(store.db.engine.sync_engine, "commit", lambda _: commits.release())

    async def cut(after: int) -> None:
        nonlocal cuts
        for _ in range(after):
            await commits.acquire()
        cuts += len(await admin.fetch(OTHERS_OFF)) > 0

    try:
        for number in range(ROUNDS_MAX):
            # Once in every round, each time at another place.
            commits = asyncio.Semaphore(0)
            cutting = asyncio.create_task(cut(number % 8))
            is_over = await one_round(pipeline, answered, sends=4)
            for _ in range(8):
                commits.release()
            await cutting
            if is_over:
                break
        await assert_all_charged(pipeline)
    finally:
        await admin.close()
        await store.close()
    assert cuts > 10


async def test_w9_without_a_free_connection_the_store_is_away_until_there_is_one(
    postgres_url: str, clock: SteppedClock
) -> None:
    """Held by somebody else, all that the server allows."""
    store = Store(Database(postgres_url), read_answer)
    pipeline = Pipeline(store, clock)
    await pipeline.start(TASKS)
    await store.close()
    store = pipeline.store = Store(Database(postgres_url), read_answer)
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
            await store.queries.progress(pipeline.run_id)
        assert pipeline.provider.sends == []
    finally:
        await asyncio.gather(*(connection.close() for connection in held))
    try:
        await settle_all(pipeline, set())
        await assert_all_charged(pipeline)
    finally:
        await store.close()


LATER = """
    CREATE TABLE later (id INTEGER PRIMARY KEY);
    CREATE INDEX ix_tasks_later ON tasks (ordinal);
    UPDATE alembic_version SET version_num = '9999'
"""


async def test_w18_this_version_goes_on_while_a_later_one_migrates(
    empty_url: str, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What later migrations may do: add, to every table. Nothing stops, and what is started again starts."""
    store, other = Store(Database(empty_url), read_answer), Database(empty_url)
    await migrate(other)
    pipeline, answered = Pipeline(store, clock), set[str]()
    await pipeline.start(TASKS)

    async def change(statement: str) -> None:
        async with other.engine.connect() as connection:
            await connection.execution_options(tallyhook_write=True)
            async with connection.begin():
                await connection.execute(sa.text(statement))

    try:
        tables = metadata.sorted_tables
        for table in tables:
            added = f"ALTER TABLE {table.name} ADD COLUMN later INTEGER NOT NULL DEFAULT 0"
            sends = TASKS // (len(tables) + 1)
            await asyncio.gather(one_round(pipeline, answered, sends=sends), change(added))
        assert len(answered) < TASKS, "all of it under traffic"
        for statement in LATER.split(";"):
            await change(statement)
        await settle_all(pipeline, answered)
        await assert_all_charged(pipeline)
        await migrate(other)
        monkeypatch.setenv("DATABASE_URL", empty_url)
        async with opened_store(load_settings(_env_file=None)) as again:
            assert await again.queries.schema_revision() == "9999", "as it was left"
            assert (await again.queries.progress(pipeline.run_id)).states == {"completed": TASKS}
    finally:
        await store.close()
        await other.close()


async def test_w19_a_restored_backup_catches_up_and_sends_nothing_twice(
    store_url: str, tmp_path: Path, clock: SteppedClock, request: pytest.FixtureRequest
) -> None:
    """What was accepted before the backup is fetched, whatever has become of it since. What was sent since is
    known to the provider by its key: it is not paid again, and settles with its delivery if that comes once
    more. Nothing else names it, so without one it is listed as expired, its exposure open."""
    store = Store(Database(store_url), read_answer)
    pipeline, answered = Pipeline(store, clock), set[str]()
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
    pipeline.store = Store(Database(store_url), read_answer)
    await settle_all(pipeline, answered)
    await assert_all_charged(pipeline)
    await pipeline.store.close()
    sends = len(pipeline.provider.sends)

    pipeline.store = Store(Database(backup), read_answer)
    try:
        since = sorted(answered - before)
        assert 0 < len(since) < TASKS
        again, lost = since[: len(since) // 2], since[len(since) // 2 :]
        await pipeline.submit(submit_in_flight=1)
        [run] = (await pipeline.books()).runs
        assert (run["state"], "restored" in run["reason"]) == ("stopped", True), "it may be a copy (S8)"
        assert await pipeline.store.runs.resume_restored_run(pipeline.run_id)
        assert (await pipeline.submit()).answers == {Answer.EXISTS: len(since)}
        assert not before & set(pipeline.provider.sends[sends:])
        await pipeline.receive(*(pipeline.provider.accepted[key][-1] for key in again))
        for _ in range(30):
            clock.advance(HOUR_MS)
            await pipeline.sweep()
        books = await pipeline.books()
        bill = pipeline.provider.bill()
        assert books.posted() == {key: bill[key] for key in (*before, *again)}
        assert books.states() == {"completed": len(before) + len(again), "expired": len(lost)}
        open_ = {(row["money"], row["credits_charged"]) for row in books.tasks if row["state"] == "expired"}
        assert open_ == {("held", None)}
    finally:
        await pipeline.store.close()


@pytest.mark.parametrize("back_ms", [1_000, 600_000, 86_400_000])
async def test_w22_a_clock_that_is_set_back_costs_time_only(pipeline: Pipeline, back_ms: int) -> None:
    await pipeline.start(TASKS)
    answered: set[str] = set()
    await one_round(pipeline, answered)
    pipeline.clock.advance(-back_ms)
    await one_round(pipeline, answered)
    pipeline.clock.advance(back_ms)
    await settle_all(pipeline, answered)
    await assert_all_charged(pipeline)
    assert len(pipeline.provider.sends) == TASKS, "nothing was sent twice, not even under its key"
