"""Statements on SQLite travel to the driver's thread once each; how a file is made."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.ports import RowsRefused
from app.store import Database
from app.store.database import SQLITE_PAGE_BYTES


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/t.db")
    await database.write(lambda c: c.exec_driver_sql("CREATE TABLE t (a INTEGER PRIMARY KEY)"))
    yield database
    await database.close()


async def test_a_statement_with_its_rows_is_one_hop(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    hops: list[str] = []
    execute = aiosqlite.Connection._execute

    async def counted(connection: Any, call: Any, *args: Any, **kwargs: Any) -> Any:
        hops.append(call.__name__)
        return await execute(connection, call, *args, **kwargs)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(aiosqlite.Connection, "_execute", counted)

    async def work(connection: AsyncConnection) -> list[Any]:
        inserted = await connection.exec_driver_sql("INSERT INTO t VALUES (?)", [(1,), (2,), (3,)])
        assert inserted.rowcount == 3
        changed = await connection.execute(sa.text("UPDATE t SET a = a + 10 WHERE a > 1 RETURNING a"))
        assert sorted(changed.scalars()) == [12, 13]
        return list(await connection.scalars(sa.text("SELECT a FROM t ORDER BY a")))

    assert await db.write(work) == [1, 12, 13]
    assert hops == ["run", "run", "run", "run", "commit"]  # the first is BEGIN


async def test_a_refused_statement_leaves_a_connection_that_works(db: Database) -> None:
    async def insert(connection: AsyncConnection) -> None:
        await connection.exec_driver_sql("INSERT INTO t VALUES (?)", [(1,), (1,)])

    with pytest.raises(RowsRefused):
        await db.write(insert)
    count = await db.read(lambda c: c.scalar(sa.text("SELECT count(*) FROM t")))
    assert count == 0


async def test_a_new_file_has_small_pages_and_an_old_one_keeps_its_own(tmp_path: Path, db: Database) -> None:
    assert await db.read(lambda c: c.scalar(sa.text("PRAGMA page_size"))) == SQLITE_PAGE_BYTES
    with closing(sqlite3.connect(tmp_path / "old.db")) as old:
        old.execute("CREATE TABLE t (a)")
    again = Database(f"sqlite:///{tmp_path}/old.db")
    assert await again.read(lambda c: c.scalar(sa.text("PRAGMA page_size"))) == 4096
    await again.close()
