"""Migrations: from nothing, again, by several at once; and the tables are what the code says they are."""

import asyncio
import sys
from pathlib import Path

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from app.store import Database, Store
from app.store.migrate import migrate, newest_revision
from app.store.tables import metadata

SCRIPT = """
import asyncio, sys
from app.store import Database
from app.store.migrate import migrate

async def main():
    database = Database(sys.argv[1])
    print("ready", flush=True)
    sys.stdin.readline()
    await migrate(database)
    await database.close()

asyncio.run(main())
"""


async def test_from_nothing_and_again(empty_url: str) -> None:
    store = Store(Database(empty_url))
    try:
        await migrate(store.db)
        assert await store.schema_revision() == newest_revision()
        await store.create_run(name="kept", source="-", budget=None, now_ms=1)
        await migrate(store.db)
        assert [run.name for run in await store.list_runs()] == ["kept"]
    finally:
        await store.close()


async def test_a_database_that_was_never_migrated_says_so(empty_url: str, tmp_path: Path) -> None:
    (tmp_path / "new folder").mkdir(exist_ok=True)
    store = Store(Database(empty_url))
    try:
        assert await store.schema_revision() is None
    finally:
        await store.close()


async def test_several_processes_at_once(empty_url: str, tmp_path: Path) -> None:
    (tmp_path / "new folder").mkdir(exist_ok=True)
    pipe = asyncio.subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", SCRIPT, empty_url, stdin=pipe, stdout=pipe, stderr=pipe,
            cwd=Path(__file__).parents[3],
        )
        for _ in range(4)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        await process.stdout.readline()
    ends = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert [process.returncode for process in processes] == [0] * 4, [err.decode()[-500:] for _, err in ends]
    store = Store(Database(empty_url))
    try:
        assert await store.schema_revision() == newest_revision()
    finally:
        await store.close()


async def test_the_migrated_tables_are_those_of_the_code(store: Store) -> None:
    def difference(connection: sa.Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    async with store.db.engine.connect() as connection:
        assert await connection.run_sync(difference) == []


async def test_the_guards_are_in_the_migrated_database(store: Store) -> None:
    def guards(connection: sa.Connection) -> set[str]:
        found = sa.inspect(connection).get_indexes("ledger")
        return {str(index["name"]) for index in found if index["unique"]}

    async with store.db.engine.connect() as connection:
        assert await connection.run_sync(guards) >= {"uq_ledger_hold", "uq_ledger_closing"}
