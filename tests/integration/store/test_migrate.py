"""Migrations: from nothing, again, by several at once; and the tables are what the code says they are."""

import asyncio
import re
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.util import CommandError
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.delivery import RawDelivery
from app.domain.settlement import Source
from app.domain.task import new_id
from app.provider.wire import read_answer
from app.store import Database, Store, hash_indexes
from app.store.finish import finish
from app.store.indexes import metadata
from app.store.migrate import MIGRATIONS, alembic_config, is_compared, is_migrated, migrate, newest_revision

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
    store = Store(Database(empty_url), read_answer)
    try:
        await migrate(store.db)
        assert await store.queries.schema_revision() == newest_revision()
        await store.runs.create_run(name="kept", source="-", budget=None, now_ms=1)
        await migrate(store.db)
        assert [run.name for run in await store.queries.list_runs()] == ["kept"]
    finally:
        await store.close()


async def test_a_database_that_was_never_migrated_says_so(empty_url: str, tmp_path: Path) -> None:
    (tmp_path / "new folder").mkdir(exist_ok=True)
    store = Store(Database(empty_url), read_answer)
    try:
        assert await store.queries.schema_revision() is None
    finally:
        await store.close()


async def test_several_processes_at_once(empty_url: str, tmp_path: Path) -> None:
    (tmp_path / "new folder").mkdir(exist_ok=True)
    pipe = asyncio.subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            SCRIPT,
            empty_url,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            cwd=Path(__file__).parents[3],
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        await process.stdout.readline()
    ends = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert [process.returncode for process in processes] == [0] * 3, [err.decode()[-500:] for _, err in ends]
    store = Store(Database(empty_url), read_answer)
    try:
        assert await store.queries.schema_revision() == newest_revision()
    finally:
        await store.close()


async def test_a_schema_of_another_program_is_not_taken_for_a_later_one(
    empty_url: str, tmp_path: Path
) -> None:
    """Its revision compares as greater than any of ours."""
    (tmp_path / "new folder").mkdir(exist_ok=True)
    database = Database(empty_url)
    try:
        async with database.engine.begin() as connection:
            await connection.execute(sa.text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
            await connection.execute(sa.text("INSERT INTO alembic_version VALUES ('ae1027a6acf0')"))
        assert not is_migrated("ae1027a6acf0")
        with pytest.raises(CommandError, match="ae1027a6acf0"):
            await migrate(database)
    finally:
        await database.close()


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(MIGRATIONS.glob("versions/[0-9]*.py"))[1:] if path.stem != "0013_one_copy"],
    ids=lambda path: path.stem,
)
def test_a_migration_only_adds(path: Path) -> None:
    """So that code of the version before goes on beside it (W18)."""
    upgrade = path.read_text().partition("def upgrade")[2].partition("def downgrade")[0]
    calls = set(re.findall(r"\bop\.(\w+)", upgrade))
    assert calls
    assert calls <= {"create_table", "create_index", "add_column"}


async def test_the_migrated_tables_are_those_of_the_code(store: Store) -> None:
    def is_ours(_object: object, name: str | None, *_: object) -> bool:
        left_out = [hash_indexes.UNIQUE, hash_indexes.EXCLUDED]
        return name not in (left_out if store.db.is_sqlite else [*left_out, hash_indexes.PENDING])

    def difference(connection: sa.Connection) -> list[object]:
        opts = {"include_name": is_compared, "include_object": is_ours}
        context = MigrationContext.configure(connection, opts=opts)
        return list(compare_metadata(context, metadata))

    async with store.db.engine.connect() as connection:
        assert await connection.run_sync(difference) == []


async def test_wide_indexes_are_narrowed_when_an_upgrade_is_finished(store: Store) -> None:
    """As an installation of before has them; doubled keys are refused before and after."""
    before = [
        "DROP INDEX ix_tasks_fingerprint",
        "CREATE INDEX ix_tasks_fingerprint ON tasks (fingerprint, settled_at_ms)",
    ]
    if not store.db.is_sqlite:
        before += [
            f"ALTER TABLE tasks DROP CONSTRAINT {hash_indexes.EXCLUDED}",
            f"ALTER TABLE tasks ADD CONSTRAINT {hash_indexes.UNIQUE} UNIQUE (idempotency_key)",
        ]

    async def bring_back(connection: AsyncConnection) -> None:
        for statement in before:
            await connection.execute(sa.text(statement))

    await store.db.write(bring_back)
    (step,) = await finish(store.db)
    assert not await step.is_due(store.db)
    await step.run(store.db)
    assert await finish(store.db) == []


async def test_the_guards_are_in_the_migrated_database(store: Store) -> None:
    def guards(connection: sa.Connection) -> set[str]:
        found = sa.inspect(connection).get_indexes("ledger")
        return {str(index["name"]) for index in found if index["unique"]}

    async with store.db.engine.connect() as connection:
        assert await connection.run_sync(guards) >= {"uq_ledger_hold", "uq_ledger_closing"}


async def test_a_database_that_holds_repeats_keeps_them_and_counts_from_then_on(
    empty_url: str, tmp_path: Path
) -> None:
    """The version before kept a row of each, and its processes go on doing so until they are replaced."""
    (tmp_path / "new folder").mkdir(exist_ok=True)
    database = Database(empty_url)
    store = Store(database, read_answer)
    old = [
        RawDelivery(new_id(1), Source.DELIVERY, 1, b"{}", "w-1", "1", "v1=00", "default") for _ in range(3)
    ]
    keys = (
        "id",
        "source",
        "received_at_ms",
        "webhook_id",
        "signed_at",
        "signature",
        "account",
        "encoding",
        "body",
        "state",
        "tries",
        "due_at_ms",
    )

    async def as_before(connection: AsyncConnection) -> None:
        values = [
            (
                database.driver_id(d.id),
                d.source,
                1,
                d.webhook_id,
                d.signed_at,
                d.signature,
                d.account,
                "identity",
                d.body,
                "new",
                0,
                1,
            )
            for d in old
        ]
        await database.insert_plain(connection, metadata.tables["deliveries"], keys, values)

    def to_the_revision_before(connection: sa.Connection) -> None:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0006")

    async def repeats() -> list[int]:
        found = await database.read(
            lambda connection: connection.scalars(sa.text("SELECT repeats FROM deliveries ORDER BY id"))
        )
        return list(found)

    try:
        await database.write(lambda connection: connection.run_sync(to_the_revision_before))
        await database.write(as_before)
        await migrate(database)
        assert await repeats() == [0, 0, 0]
        new = RawDelivery(new_id(2), Source.DELIVERY, 2, b"{}", "w-1", "1", "v1=00", "default")
        for _ in range(2):
            await store.inbox.store_deliveries([new], due_at_ms=2)
        old = [replace(old[0], id=new_id(3))]
        await database.write(as_before)
        assert await repeats() == [0, 0, 0, 1, 0]
    finally:
        await store.close()
