"""The long form of integration/services/test_early_polls.py: 5,000 prompts with and without lost webhooks, at
the settings' defaults and in the emulator's time, which is the real one here.
"""

import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.early_polls import EARLY_POLLS_MAX
from app.limits import Limits
from app.provider.wire import read_answer
from app.store import Database, Store
from app.store.tables import tasks
from tests.conftest import StartValkey
from tests.e2e.stack import QUICK, Stack

COUNT = 5_000
SLOTS = ("--time-scale", "1", "--concurrency", str(COUNT))


async def seconds_of_run(stack: Stack) -> float:
    """From the first send to the last answer."""
    began = time.monotonic()
    await stack.submit(COUNT)

    async def is_over() -> bool:
        return (await stack.store.queries.progress(stack.run_id)).open == 0

    await stack.until(is_over, "the last answer", timeout_s=900)
    return time.monotonic() - began


async def polls_of(stack: Stack) -> list[int]:
    """Of each task of the run that was asked for, how often."""

    async def read(connection: AsyncConnection) -> list[int]:
        query = sa.select(tasks.c.polls).where(tasks.c.run_id == stack.run_id, tasks.c.polls > 0)
        return list(await connection.scalars(query))

    return await stack.store.db.read(read)


@pytest.mark.slow
@pytest.mark.timeout(2_400)
async def test_r17_one_lost_webhook_in_fifty_does_not_double_the_time_of_5_000_prompts(
    tmp_path: Path, postgres_url: str, start_valkey: StartValkey
) -> None:
    valkey, took_s = start_valkey(), {}
    store = Store(Database(postgres_url), read_answer)
    stack = Stack(tmp_path, store, postgres_url, valkey.url)
    stack.is_forked = True
    stack.env = {k: v for k, v in stack.env.items() if k not in QUICK}
    try:
        for drop in (0.0, 0.02):
            stack.emulator_options = [*SLOTS, "--drop", str(drop)]
            stack.start("emulator", "web", "worker")
            took_s[drop] = await seconds_of_run(stack)
            polls, busiest = await polls_of(stack), max(count for _, count in stack.seconds())
            asked = f"{len(polls)} tasks asked for, {max(polls, default=0)} times at most"
            sys.stdout.write(
                f"drop {drop}: {took_s[drop]:.1f} s, {asked}, {busiest} requests in the busiest second\n"
            )
            assert busiest <= Limits().rate_per_s
            assert max(polls, default=0) <= EARLY_POLLS_MAX
            for name in list(stack.pids()):
                stack.end(name)
    finally:
        stack.close()
        await store.close()
    assert took_s[0.02] < 2 * took_s[0.0]
