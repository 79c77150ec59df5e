"""What a store's end does about connections that somebody still uses. One that it forgets is closed when
garbage is collected, with a warning, which fails the test that runs then."""

import asyncio
import contextlib
import gc
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.bootstrap import open_store
from app.config import Settings
from app.ports import StoreUnavailable
from app.store import Database, database


class Reader:
    """Reads in a task of its own, and stays in its transaction until `leave` is set."""

    def __init__(self, db: Database) -> None:
        self.began, self.leave = asyncio.Event(), asyncio.Event()
        self.task = asyncio.create_task(db.read(self._read))

    async def _read(self, connection: AsyncConnection) -> int:
        await connection.execute(sa.text("SELECT 1"))
        self.began.set()
        await self.leave.wait()
        return int((await connection.execute(sa.text("SELECT 2"))).scalar_one())


@pytest.fixture
async def db(store_url: str) -> AsyncIterator[Database]:
    """Closed by the test."""
    before = set(threading.enumerate())
    yield Database(store_url)
    gc.collect()
    end_of_threads(before)


def end_of_threads(before: set[threading.Thread]) -> None:
    """That no others go on. One that has closed its connection may be about to end."""
    for thread in set(threading.enumerate()) - before:
        thread.join(20)
        assert not thread.is_alive(), thread


async def closed_within(db: Database) -> float:
    began_s = time.monotonic()
    await db.close()
    return time.monotonic() - began_s


def let_go(reader: Reader) -> None:
    reader.leave.set()


def cancel(reader: Reader) -> None:
    reader.task.cancel()


@pytest.mark.parametrize("end", [let_go, cancel])
async def test_what_is_in_use_is_closed_when_it_comes_back(
    db: Database, end: Callable[[Reader], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "CLOSE_S", 20.0)
    readers = [Reader(db) for _ in range(3)]
    for reader in readers:
        await reader.began.wait()
    end(readers[0])
    for after_s, reader in enumerate(readers[1:], 1):
        asyncio.get_running_loop().call_later(after_s / 50, end, reader)
    assert await closed_within(db) < database.CLOSE_S, "nobody was cut off"
    ended = await asyncio.gather(*(reader.task for reader in readers), return_exceptions=True)
    assert all(each == 2 or isinstance(each, asyncio.CancelledError) for each in ended)


async def test_what_comes_back_too_late_is_closed_by_whoever_had_it(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "CLOSE_S", 0.05)
    monkeypatch.setattr(database, "CUT_OFF_S", 0.05)
    reader = Reader(db)
    await reader.began.wait()
    await db.close()
    let_go(reader)
    (ended,) = await asyncio.gather(reader.task, return_exceptions=True)
    assert ended == 2 if db.is_sqlite else isinstance(ended, StoreUnavailable), "a server's is cut off"


async def test_a_long_statement_is_interrupted(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "CLOSE_S", 0.05)
    monkeypatch.setattr(database, "CUT_OFF_S", 60.0)
    before, db, began = set(threading.enumerate()), Database(sqlite_url), asyncio.Event()

    async def count(connection: AsyncConnection) -> None:
        await connection.execute(sa.text("SELECT 1"))
        began.set()
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        await connection.execute(sa.text(numbers))

    counting = asyncio.create_task(db.read(count))
    await began.wait()
    await db.close()
    with pytest.raises(StoreUnavailable, match="interrupted"):
        await counting
    end_of_threads(before)


async def test_whoever_comes_after_the_end_is_refused(db: Database) -> None:
    async def look(connection: AsyncConnection) -> None:
        await connection.execute(sa.text("SELECT 1"))

    await db.read(look)
    await db.close()
    await db.close()
    for use in (db.read, db.write):
        with pytest.raises(StoreUnavailable, match="closed"):
            await use(look)


async def test_one_that_is_cancelled_at_any_step_leaves_nothing(db: Database) -> None:
    """Neither when it is cancelled again: no task waits for a thread that has ended."""
    before = asyncio.all_tasks()

    async def look(connection: AsyncConnection) -> None:
        await connection.execute(sa.text("SELECT 1"))

    async def looked_for(steps: int, more: int) -> None:
        task = asyncio.create_task(db.read(look))
        for wait_s, count in ((0.0003, steps), (0, more)):
            for _ in range(count):
                await asyncio.sleep(wait_s)
            task.cancel()
        await asyncio.wait([task])

    for steps in range(14):
        await asyncio.gather(*(looked_for(steps, more) for more in range(1, 5)))
    await db.close()
    async with asyncio.timeout(20):
        while asyncio.all_tasks() != before:  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0)


async def test_a_database_that_cannot_be_migrated_is_closed(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "tallyhook.db")) as others:
        others.execute("CREATE TABLE alembic_version (version_num TEXT)")
        others.execute("INSERT INTO alembic_version VALUES ('theirs')")
        others.commit()
    with pytest.raises(Exception, match="theirs"):
        await open_store(Settings(data_dir=tmp_path))
    gc.collect()
