"""Backup and restore, as docs/deploy/backup.md has them: a base backup with the WAL since, replayed to a
moment; a copy of the SQLite file. What was sent by then is settled afterwards, nothing is bought twice."""

import asyncio
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from app.provider.wire import read_answer
from app.store import Database, Store
from tests.conftest import StartValkey
from tests.e2e.stack import Stack
from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(600)]
COUNT = 80
EMULATOR = ["--time-scale", "50", "--concurrency", "8", "--fail", "0.03", "--duplicate", "0.02"]
"""Few slots: all is sent long before all is answered."""


def pace(stack: Stack, scale: float) -> None:
    """Of the emulator's time; 0 stands still."""
    stack.control("clock", {"scale": scale})


@asynccontextmanager
async def half_done(folder: Path, url: str, redis: str) -> AsyncIterator[Stack]:
    """A run whose tasks are all sent, and some settled; more are all the while."""
    store = Store(Database(url), read_answer)
    stack = Stack(folder, store, url, redis)
    stack.emulator_options = EMULATOR
    try:
        stack.start("emulator", "web", "worker")
        await stack.submit(COUNT)
        await stack.until_settled(15)

        async def all_sent() -> bool:
            return len(stack.books()["tasks"]) == COUNT

        await stack.until(all_sent, "every task sent")
        pace(stack, 0)
        yield stack
    finally:
        stack.close()
        await stack.store.close()


async def settled(stack: Stack) -> int:
    states = (await stack.store.queries.progress(stack.run_id)).states
    return states.get("completed", 0) + states.get("failed", 0)


async def goes_on(stack: Stack, url: str, before: int) -> None:
    """As the page says: the worker is off, each run is resumed as restored, then all goes on to its end."""
    await stack.store.close()
    stack.store = Store(Database(url), read_answer)
    stack.env["DATABASE_URL"] = url
    assert 15 <= await settled(stack) < COUNT, "restored to its middle"
    assert await settled(stack) <= before
    resumed = await asyncio.to_thread(stack.tallyhook, "resume", stack.run_id, "--restored")
    assert resumed.returncode == 0, resumed.stderr
    await asyncio.to_thread(stack.start, "web", "worker")
    pace(stack, 200)
    await stack.until_finished()
    await stack.assert_books_equal(COUNT)
    verified = await asyncio.to_thread(stack.tallyhook, "verify", "--all", "--json")
    assert verified.returncode == 0, verified.stdout


@pytest.fixture
def archive() -> Iterator[Path]:
    """A folder that the server, which is nobody's, may write to; pytest's own is for one user alone."""
    folder = Path(tempfile.mkdtemp(prefix="tallyhook-wal-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


async def test_a_cluster_is_restored_to_a_moment(
    tmp_path: Path, archive: Path, start_valkey: StartValkey
) -> None:
    """By `pg_basebackup` and the WAL that was archived since, to a time that is given."""
    server = PostgresServer(
        settings={
            "archive_mode": "on",
            "archive_command": f"test ! -f {archive}/%f && cp %p {archive}/%f",
            "wal_level": "replica",
        }
    )
    server.start()
    try:
        url = server.create_database()
        await asyncio.to_thread(migrate_by_command, tmp_path, url)
        async with half_done(tmp_path, url, start_valkey().url) as stack:
            with server.base_backup() as backup:
                pace(stack, 50)
                await stack.until_settled(await settled(stack) + 5)
                at = await moment(url)
                await stack.until_settled(await settled(stack) + 5)
                stack.end("worker")
                stack.end("web")
                pace(stack, 0)
                after = await settled(stack)
                name = await last_wal(url)
                await stack.until(_exists(archive / name), "the archived WAL")
                with server.restored(backup, restore_command=f"cp {archive}/%f %p", until=at) as restored:
                    await goes_on(stack, server.same_database(url, restored), after)
    finally:
        server.stop()


def migrate_by_command(folder: Path, url: str) -> None:
    from tests.e2e.stack import TALLYHOOK

    env = {"DATABASE_URL": url, "TALLYHOOK_DATA_DIR": str(folder), "TALLYHOOK_LOG_LEVEL": "warning"}
    subprocess.run([TALLYHOOK, "migrate"], env=env, cwd=folder, check=True, capture_output=True)


async def moment(url: str) -> str:
    """The server's time, as recovery_target_time takes it."""
    connection = await asyncpg.connect(url)
    try:
        return str(await connection.fetchval("SELECT clock_timestamp()::text"))
    finally:
        await connection.close()


async def last_wal(url: str) -> str:
    """Have the present WAL file archived; its name."""
    connection = await asyncpg.connect(url)
    try:
        return str(await connection.fetchval("SELECT pg_walfile_name(pg_switch_wal())"))
    finally:
        await connection.close()


def _exists(path: Path) -> Callable[[], Awaitable[bool]]:
    async def does() -> bool:
        return await asyncio.to_thread(path.exists)

    return does


@pytest.mark.parametrize("way", ["VACUUM INTO", "backup"])
async def test_a_sqlite_file_is_restored(
    way: str, tmp_path: Path, sqlite_url: str, start_valkey: StartValkey
) -> None:
    """From a copy that SQLite made while all worked; a copy of the file by itself may be no database."""
    copy, file = tmp_path / "copy.db", Path(sqlite_url.removeprefix("sqlite:///"))
    async with half_done(tmp_path, sqlite_url, start_valkey().url) as stack:
        await asyncio.to_thread(_copy, way, file, copy)
        before = await settled(stack)
        pace(stack, 50)
        await stack.until_settled(before + 5)
        stack.end("worker")
        stack.end("web")
        await stack.store.close()
        _put_back(copy, file)
        await goes_on(stack, sqlite_url, before)


def _copy(way: str, file: Path, copy: Path) -> None:
    with sqlite3.connect(file, timeout=30) as source:
        if way == "backup":
            with sqlite3.connect(copy) as target:
                source.backup(target, pages=64)
            target.close()
        else:
            source.execute("VACUUM INTO ?", (str(copy),))
    source.close()


def _put_back(copy: Path, file: Path) -> None:
    """What lay beside the file before belongs to another database."""
    for name in ("", "-wal", "-shm"):
        Path(f"{file}{name}").unlink(missing_ok=True)
    copy.rename(file)
