"""A sentinel gives the master's place to another server in the middle of a run of real processes."""

import asyncio
from pathlib import Path

import pytest
import redis

from tests.conftest import StartValkey
from tests.e2e.stack import running_stack
from tests.servers.sentinel import MASTER, running_sentinel

COUNT = 240
SCALE = 60
EMULATOR = (
    "--time-scale",
    str(SCALE),
    "--concurrency",
    "25",
    "--shuffle",
    "0.5",
    "--fail",
    "0.03",
    "--duplicate",
    "0.02",
    "--lose-response",
    "0.02",
    "--drop",
    "0.02",
)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "demoted"])
async def test_f23_a_run_outlives_a_fail_over(
    how: str, tmp_path: Path, sqlite_url: str, start_valkey: StartValkey
) -> None:
    """Nothing is lost or paid for twice, and its jobs are done from the new server's queue."""
    with running_sentinel(tmp_path, start_valkey) as (port, old):
        url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{port}/{MASTER}/0"

        def master() -> int:
            with redis.Redis(port=port, socket_timeout=20) as sentinel:
                place: int = sentinel.sentinel_get_master_addr_by_name(MASTER)[1]
                return place

        async def moved() -> bool:
            return await asyncio.to_thread(master) != old.port

        async def is_a_replica() -> bool:
            with old.client() as server:
                return str(server.info("replication")["role"]) == "slave"

        async def worked_off() -> bool:
            with redis.Redis(port=await asyncio.to_thread(master), socket_timeout=20) as server:
                stats = server.info("commandstats")
                # What arq writes as it ends a job; a replica that copies the old master's is not asked.
                return bool(stats.get("cmdstat_exec", {}).get("calls", 0) > before)

        async with running_stack(tmp_path, sqlite_url, url, *EMULATOR) as stack:
            await stack.submit(COUNT)
            await stack.until_settled(40)
            stack.control("clock", {"scale": 0})  # or nothing would be left to do by then
            if how == "killed":
                old.kill()
            else:
                with redis.Redis(port=port, socket_timeout=20) as sentinel:
                    sentinel.execute_command("SENTINEL", "FAILOVER", MASTER)
            await stack.until(moved, "another master")
            if how == "demoted":  # which takes ten seconds; until then it goes on taking what it is sent
                await stack.until(is_a_replica, "the old master to follow the new one")
            with redis.Redis(port=await asyncio.to_thread(master), socket_timeout=20) as server:
                before = server.info("commandstats").get("cmdstat_exec", {}).get("calls", 0)
            stack.control("clock", {"scale": SCALE})
            await stack.until(worked_off, "jobs of the new server's queue")
            await stack.until_finished()
            await stack.assert_books_equal(COUNT)
