"""PgBouncer in transaction mode, a real one: every transaction of ours may be on another server connection,
which other processes of ours used before. `make test-pgbouncer` says what it skipped."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from app.cli.doctor.database import check_database
from app.config import load_settings
from app.provider.wire import read_answer
from app.store import Database, Store
from tests.conftest import StartValkey
from tests.e2e.stack import TALLYHOOK, running_stack
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import PostgresServer

pytestmark = pytest.mark.debian
COUNT = 60
EMULATOR = ("--time-scale", "200", "--concurrency", "80", "--fail", "0.03", "--duplicate", "0.02")


@pytest.fixture
def pgbouncer(postgres: PostgresServer) -> Iterator[PgBouncer]:
    pooler = PgBouncer(postgres.admin_url)
    try:
        pooler.start()
        yield pooler
    finally:
        pooler.stop()


async def test_a_driver_as_it_comes_fails_there(pgbouncer: PgBouncer, postgres_url: str) -> None:
    """The pooler does what is said of it, or the other tests here would show nothing."""

    async def ask(connection: asyncpg.Connection) -> None:
        for n in range(40):
            await connection.fetchval(f"SELECT {n % 4}")

    connections = [await asyncpg.connect(pgbouncer.url(postgres_url)) for _ in range(4)]
    try:
        with pytest.raises(asyncpg.PostgresError, match="prepared statement"):
            await asyncio.gather(*map(ask, connections))
    finally:
        for connection in connections:
            connection.terminate()


async def test_f22_a_pooler_is_noticed_and_nothing_is_prepared_by_name(
    pgbouncer: PgBouncer, postgres_url: str
) -> None:
    direct, pooled = Database(postgres_url), Database(pgbouncer.url(postgres_url))
    try:
        for db, names in ((direct, True), (pooled, False)):
            async with db.engine.connect() as connection:
                # On one server connection, for as long as the transaction.
                await connection.exec_driver_sql("SELECT 1")
                found = await connection.exec_driver_sql(
                    "SELECT count(*) FROM pg_prepared_statements WHERE name <> ''"
                )
                assert bool(found.scalar()) == names
    finally:
        await direct.close()
        await pooled.close()


async def test_f22_a_run_by_way_of_a_pooler_is_booked_as_without(
    tmp_path: Path, pgbouncer: PgBouncer, postgres: PostgresServer, start_valkey: StartValkey
) -> None:
    """Migrated, received, submitted, settled, exported and verified over three server connections."""
    direct_url = postgres.create_database()
    url = pgbouncer.url(direct_url)
    try:
        env = os.environ | {"DATABASE_URL": url, "TALLYHOOK_LOG_LEVEL": "warning"}
        await asyncio.to_thread(
            subprocess.run, [TALLYHOOK, "migrate"], env=env, cwd=tmp_path, check=True, capture_output=True
        )
        async with running_stack(tmp_path, url, start_valkey().url, *EMULATOR) as stack:
            stack.start("worker2")
            await stack.submit(COUNT)
            await stack.until_finished()
            await stack.assert_books_equal(COUNT)
            for command in (["verify", "latest"], ["export", "latest"], ["report", "latest"]):
                done = await asyncio.to_thread(
                    subprocess.run,
                    [TALLYHOOK, *command],
                    env=stack.env,
                    cwd=tmp_path,
                    check=False,
                    capture_output=True,
                    text=True,
                )
                assert done.returncode == 0, done.stderr
            assert "repared" not in stack.logs(), "no error of a statement that is not there"
    finally:
        pgbouncer.stop()
        postgres.drop_database(direct_url)


async def test_f22_migrate_goes_by_the_direct_address(
    tmp_path: Path, pgbouncer: PgBouncer, postgres: PostgresServer
) -> None:
    direct_url = postgres.create_database()
    env = os.environ | {
        "DATABASE_URL": pgbouncer.url(direct_url),
        "DATABASE_DIRECT_URL": direct_url,
        "TALLYHOOK_LOG_LEVEL": "warning",
    }
    pgbouncer.stop()
    try:
        done = await asyncio.to_thread(
            subprocess.run,
            [TALLYHOOK, "migrate"],
            env=env,
            cwd=tmp_path,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        store = Store(Database(direct_url), read_answer)
        assert await store.queries.schema_revision()
        await store.close()
    finally:
        postgres.drop_database(direct_url)


@pytest.mark.parametrize(
    ("mode", "reached", "remedy"),
    [
        # The servers of the tests forget on purpose, which the doctor says of one that works.
        ("session", True, "what it forgets was acknowledged"),
        ("statement", False, "set pool_mode to transaction or session"),
    ],
)
async def test_f22_modes_of_a_pooler(
    mode: str, reached: bool, remedy: str, postgres: PostgresServer, postgres_url: str
) -> None:
    pooler = PgBouncer(postgres.admin_url, pool_mode=mode)
    pooler.start()
    try:
        check = await check_database(load_settings(_env_file=None, DATABASE_URL=pooler.url(postgres_url)))
    finally:
        pooler.stop()
    assert ("cannot reach" not in check.detail, remedy in check.remedy) == (reached, True), check
