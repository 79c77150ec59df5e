"""A streaming standby: lists and exports are read there, and it takes the primary's place in mid-run."""

import asyncio
import contextlib
import json
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa

from app.cli.doctor.replica import check_replica
from app.config import load_settings
from app.provider.wire import read_answer
from app.store import Database, Store
from tests.conftest import StartValkey
from tests.deploy.test_backup import migrate_by_command
from tests.e2e.stack import Stack, running_stack
from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(600)]
COUNT = 60
EMULATOR = (
    "--time-scale",
    "60",
    "--concurrency",
    "25",
    "--fail",
    "0.03",
    "--duplicate",
    "0.03",
    "--lose-response",
    "0.02",
)


async def execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def tasks_by_api(stack: Stack, token: str, run_id: str) -> int:
    """How many the API lists of a run."""

    def ask() -> int:
        request = urllib.request.Request(
            f"{stack.api_url}/v1/runs/{run_id}/tasks", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return len(json.load(answer)["data"])

    return await asyncio.to_thread(ask)


async def tallyhook(stack: Stack, *arguments: str) -> Any:
    return await asyncio.to_thread(stack.tallyhook, *arguments)


@contextlib.asynccontextmanager
async def replicated(tmp_path: Path, postgres: PostgresServer) -> AsyncIterator[tuple[str, str, str]]:
    """A database with its tables; URLs of it, of a standby's server, and of the same database there."""
    url = postgres.create_database()
    try:
        await asyncio.to_thread(migrate_by_command, tmp_path, url)
        with postgres.standby() as standby:
            yield url, standby, postgres.same_database(url, standby)
    finally:
        postgres.drop_database(url)


async def test_lists_reports_and_exports_are_read_at_the_replica(
    tmp_path: Path, postgres: PostgresServer, start_valkey: StartValkey
) -> None:
    """While it replays nothing, they show what was there before; all else sees what is. The doctor knows."""
    async with replicated(tmp_path, postgres) as (url, _, read_url):
        env = {"DATABASE_READ_URL": read_url}
        async with running_stack(tmp_path, url, start_valkey().url, *EMULATOR, env=env) as stack:
            stack.start("api")
            token = await stack.token("read")
            await stack.submit(COUNT)
            await stack.until_finished()
            settings = load_settings(_env_file=None, DATABASE_URL=url, **env)

            async def caught_up() -> bool:
                return " 0 bytes of WAL" in (await check_replica(settings))[0].detail

            await execute(read_url, "SELECT 1")
            await stack.until(caught_up, "a replica that has it all")
            exported = await tallyhook(stack, "export", stack.run_id)
            assert len(exported.stdout.splitlines()) == COUNT
            await execute(read_url, "SELECT pg_wal_replay_pause()")
            first = stack.run_id
            await stack.submit(3, begin=False)
            assert await tasks_by_api(stack, token, first) > 0
            assert await tasks_by_api(stack, token, stack.run_id) == 0, "read at the replica"
            assert (await tallyhook(stack, "status", stack.run_id)).returncode == 0
            for command in ("export", "report"):
                assert (await tallyhook(stack, command, stack.run_id)).returncode == 1, command
            (check,) = await check_replica(settings)
            assert check.state == "ok"
            assert " 0 bytes" not in check.detail
            await execute(read_url, "SELECT pg_wal_replay_resume()")
            await stack.until(caught_up, "the replica's return")
            assert (await tallyhook(stack, "report", stack.run_id)).returncode == 0
            assert await tasks_by_api(stack, token, stack.run_id) == 3


async def test_a_replica_that_hears_nothing_tells_how_old_it_is(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    """It has replayed all that it got, and is no less behind for that."""
    async with replicated(tmp_path, postgres) as (url, standby, read_url):
        store = Store(Database(read_url), read_answer)
        try:
            await execute(url, "CREATE TABLE seen ()")
            await eventually(lambda: answers(read_url, "TABLE seen"))
            assert (await store.replica.replay()).behind_s == 0
            for statement in ("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()"):
                await execute(standby, statement)

            async def old() -> bool:
                return (await store.replica.replay()).behind_s > 1

            await eventually(old)
        finally:
            await store.close()


async def answers(url: str, statement: str) -> bool:
    try:
        await execute(url, statement)
    except asyncpg.PostgresError:
        return False
    return True


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(120):
        while not await condition():  # noqa: ASYNC110 - another process has no event
            await asyncio.sleep(0.1)


async def test_a_replica_that_is_away_is_named_and_nothing_else_needs_it(
    tmp_path: Path, postgres: PostgresServer, postgres_url: str, start_valkey: StartValkey
) -> None:
    gone = "postgresql://postgres@127.0.0.1:1/tallyhook"
    env = {"DATABASE_READ_URL": gone}
    (check,) = await check_replica(load_settings(_env_file=None, DATABASE_URL=postgres_url, **env))
    assert (check.state, "127.0.0.1:1" in check.detail) == ("fault", True)
    assert "DATABASE_READ_URL" in check.remedy
    async with running_stack(tmp_path, postgres_url, start_valkey().url, *EMULATOR, env=env) as stack:
        stack.start("api")
        await stack.submit(5)
        await stack.until_finished()
        failed = await tallyhook(stack, "export", stack.run_id)
        assert failed.returncode == 1
        assert "DATABASE_READ_URL" in failed.stderr


async def test_a_standby_is_promoted_in_the_middle_of_a_run(
    tmp_path: Path, start_valkey: StartValkey
) -> None:
    """The primary is killed; what it had acknowledged stands, and nothing is lost or bought twice."""
    server = PostgresServer(settings={"synchronous_commit": "on"})
    server.start()
    try:
        url = server.create_database()
        await asyncio.to_thread(migrate_by_command, tmp_path, url)
        with server.standby() as standby:
            # From here on a commit is acknowledged once the standby has it.
            await execute(server.admin_url, "ALTER SYSTEM SET synchronous_standby_names = '*'")
            await execute(server.admin_url, "SELECT pg_reload_conf()")
            places = [sa.make_url(place) for place in (url, standby)]
            hosts = ",".join(f"{place.host}:{place.port}" for place in places)
            both = f"postgresql://postgres@{hosts}/{places[0].database}?target_session_attrs=read-write"
            async with running_stack(tmp_path, both, start_valkey().url, *EMULATOR) as stack:
                await stack.submit(COUNT)
                await stack.until_settled(15)
                await asyncio.to_thread(server.kill)
                await execute(standby, "SELECT pg_promote()")
                await stack.until_finished()
                await stack.assert_books_equal(COUNT)
                verified = await tallyhook(stack, "verify", "--all", "--json")
                assert verified.returncode == 0, verified.stdout
    finally:
        server.stop()
