"""Turns at writing to SQLite among processes, here two pools of connections to one file."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store import sqlite_turns
from app.store.database import Database

ROWS = sa.Table("rows", sa.MetaData(), sa.Column("id", sa.Text, primary_key=True), sa.Column("repeats"))
COLUMNS = ("id", "repeats")
WRITES_S = 0.01


@pytest.fixture
async def pools(tmp_path: Path) -> AsyncIterator[tuple[Database, Database]]:
    one, other = (Database(f"sqlite:///{tmp_path / 'turns.db'}") for _ in range(2))

    async def make(connection: AsyncConnection) -> None:
        await connection.execute(sa.text("CREATE TABLE rows (id TEXT PRIMARY KEY, repeats INTEGER)"))

    await one.write(make)
    yield one, other
    await one.close()
    await other.close()


async def append(db: Database, number: int) -> None:
    await db.append(ROWS, COLUMNS, lambda: [(f"{number:032x}", 0)], repeats="repeats")


async def test_who_waits_writes_before_who_wrote(
    pools: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_turns, "TURN_S", 60.0)
    busy, receiver = pools
    written, waited_for, lock = 0, [], receiver._turns._lock

    async def noting(byte: int, until_s: float) -> None:
        before = written
        await lock(byte, until_s)
        waited_for.append(written - before)

    monkeypatch.setattr(receiver._turns, "_lock", noting)

    async def slowly(connection: AsyncConnection) -> None:
        await connection.execute(sa.text("SELECT 1"))
        await asyncio.sleep(WRITES_S)

    async def without_pause() -> None:
        nonlocal written
        while True:
            await busy.write(slowly)
            written += 1

    beside = asyncio.create_task(without_pause())
    for number in range(10):
        await append(receiver, number)
    beside.cancel()
    await asyncio.gather(beside, return_exceptions=True)
    # To be next: for the one that is, which waits for the one that writes; to write: for the one that writes.
    assert len(waited_for) == 20 and max(waited_for) <= 1, waited_for


async def test_what_comes_while_another_writes_goes_with_the_rest(pools: tuple[Database, Database]) -> None:
    one, other = pools
    rows = [(f"{number:032x}", 0) for number in range(3)]
    come = rows[:1]
    async with one._turns:
        appending = asyncio.create_task(other.append(ROWS, COLUMNS, lambda: come, repeats="repeats"))
        await asyncio.sleep(0)
        come += rows[1:]
    assert await appending == set()
    assert await one.read(lambda c: c.scalar(sa.text("SELECT count(*) FROM rows"))) == 3


async def test_who_waits_is_told_and_need_not_look(
    pools: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TURN_S", "LOOK_S", "LOOK_MAX_S"):
        monkeypatch.setattr(sqlite_turns, name, 60.0)
    one, other = pools
    async with asyncio.timeout(30.0):
        for number in range(20):
            async with one._turns:
                appending = asyncio.create_task(append(other, number))
                await asyncio.sleep(0.001)
            await appending


async def test_who_is_not_told_looks(
    pools: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_turns, "TURN_S", 60.0)
    one, other = pools
    async with asyncio.timeout(30.0):
        async with one._turns:
            with sqlite_turns._bell() as stranger:
                # Whoever has the address, another user of the machine say, only makes it later.
                stranger.bind(one._turns._addresses[sqlite_turns._WRITES])
                appending = asyncio.create_task(append(other, 1))
                await asyncio.sleep(0.01)
        await appending


async def test_who_never_ends_its_turn_is_not_waited_for(
    pools: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_turns, "TURN_S", 0.05)
    one, other = pools
    async with one._turns:
        await append(other, 1)


async def test_a_folder_without_place_for_turns_is_written_to(tmp_path: Path) -> None:
    (tmp_path / f"plain.db{sqlite_turns.SUFFIX}").mkdir()
    db = Database(f"sqlite:///{tmp_path / 'plain.db'}")

    async def make(connection: AsyncConnection) -> None:
        await connection.execute(sa.text("CREATE TABLE rows (id TEXT PRIMARY KEY, repeats INTEGER)"))

    await db.write(make)
    await append(db, 1)
    await db.close()
