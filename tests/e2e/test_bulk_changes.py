"""kill -9 in the middle of a bulk change: whoever goes on with it changes each task once."""

import asyncio
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import sqlalchemy as sa

from app.domain.bulk_change import ChangeState, Verb
from app.domain.task import RunState, TaskSpec
from app.domain.task_filter import TaskFilter
from app.services.access import Asker
from app.services.bulk_changes import carry_out, confirm, propose
from app.store import Store
from app.store.tables import attempts, runs, tasks
from tests.conftest import StartValkey
from tests.e2e.stack import KILL, Stack, running_stack

KILLED = """
import asyncio, os, signal, sys
from app.provider.wire import read_answer
from app.services.bulk_changes import carry_out
from app.store import Database, Store
from app.store.write import bulk_changes

url, change_id, chunks = sys.argv[1], sys.argv[2], int(sys.argv[3])
bulk_changes.CHUNK = 3
reopen_runs, done = bulk_changes.reopen_runs, 0

async def reopen_and_die(*given):
    global done
    await reopen_runs(*given)
    done += 1
    if done == chunks:
        os.kill(os.getpid(), signal.SIGKILL)  # all of the chunk is written, and nothing of it committed

bulk_changes.reopen_runs = reopen_and_die
asyncio.run(carry_out(Store(Database(url), read_answer), change_id, clock=lambda: 2_000_000_000_000))
"""


async def test_killed_in_the_middle_of_a_chunk(store: Store, store_url: str) -> None:
    now_ms = 1_790_812_800_000
    await failed(store, await made(store, 20, now_ms))
    change = await propose(store, Verb.RETRY, TaskFilter(), Asker("me"), now_ms=now_ms + 1)
    assert change.proposed.matched == 20
    proposed = change.proposed
    await confirm(store, change, matched=proposed.matched, credits=proposed.credits, now_ms=now_ms + 1)
    assert killed_in_chunk(4, store_url, change.id) == -9
    so_far = await store.bulk_changes.find(change.id)
    assert so_far is not None
    assert so_far.done.matched == 9
    ended = await carry_out(store, change.id, clock=lambda: now_ms + 2)
    assert ended is not None
    assert (ended.state, ended.done.matched) == (ChangeState.FINISHED, 20)
    await assert_each_once(store, 20)


def killed_in_chunk(number: int, store_url: str, change_id: str) -> int:
    """Its exit code."""
    command = [sys.executable, "-c", KILLED, store_url, change_id, str(number)]
    return subprocess.run(command, check=False, timeout=200).returncode


async def made(store: Store, count: int, now_ms: int) -> str:
    """A run of so many tasks, and one more, which stays open: so nobody takes the run for finished."""
    run_id = await store.runs.create_run(name="r", source="-", budget=None, now_ms=now_ms)
    for first in range(1, count + 2, 5_000):
        ordinals = range(first, min(first + 5_000, count + 2))
        specs = [TaskSpec(n, "GEMINI", {"prompt": f"p{n}", "country": "GB"}) for n in ordinals]
        await store.runs.add_tasks(run_id, [(spec, Decimal(5)) for spec in specs], now_ms)
    return run_id


async def failed(store: Store, run_id: str) -> None:
    """All of its tasks but the last have failed; it is paused, so that what is sent again stays."""
    async with store.db.engine.begin() as connection:
        last = sa.select(sa.func.max(tasks.c.ordinal)).where(tasks.c.run_id == run_id).scalar_subquery()
        await connection.execute(sa.update(runs).where(runs.c.id == run_id).values(state=RunState.PAUSED))
        await connection.execute(
            sa.update(tasks)
            .where(tasks.c.run_id == run_id, tasks.c.ordinal < last)
            .values(state="failed", reported="failed")
        )


async def assert_each_once(store: Store, count: int) -> None:
    async with store.db.engine.connect() as connection:
        by_attempt = sa.select(tasks.c.attempt, tasks.c.state, sa.func.count())
        found = await connection.execute(by_attempt.group_by(tasks.c.attempt, tasks.c.state))
        assert {tuple(row) for row in found} == {(1, "pending", 1), (2, "pending", count)}
        kept = sa.select(sa.func.count(), sa.func.count(attempts.c.task_id.distinct()))
        assert tuple((await connection.execute(kept)).one()) == (count, count)


async def asked(stack: Stack, token: str, path: str, body: Any = None, key: str = "") -> dict[str, Any]:
    """The answer of an API that may be dead just now: the same again, under one key, until there is one."""
    headers = {"Authorization": f"Bearer {token}"} | ({"Idempotency-Key": key} if key else {})
    while True:
        try:
            async with (
                aiohttp.ClientSession() as client,
                client.request(
                    "POST" if key else "GET", f"{stack.api_url}{path}", json=body, headers=headers
                ) as answer,
            ):
                document: dict[str, Any] = await answer.json(content_type=None)
                if answer.status < 300:
                    return document
                assert answer.status in (409, 503), document
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(1)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_api_and_worker_killed_in_one_of_100_000_tasks(
    tmp_path: Path, store_url: str, start_valkey: StartValkey
) -> None:
    count = 100_000
    async with running_stack(tmp_path, store_url, start_valkey().url) as stack:
        stack.start("api")
        token = await stack.token()
        await failed(stack.store, await made(stack.store, count, time.time_ns() // 1_000_000))
        await asyncio.sleep(0.01)
        asking = asyncio.create_task(asked(stack, token, "/v1/bulk-changes", {"verb": "retry"}, "try"))
        await asyncio.sleep(0.2)
        stack.end("api", KILL)
        stack.start("api")
        tried = await asking
        assert tried["proposed"]["matched"] == count
        path = f"/v1/bulk-changes/{tried['id']}"
        figures = {name: tried["proposed"][name] for name in ("matched", "credits")}
        await asked(stack, token, f"{path}/confirm", figures, "confirm")
        kills = 0
        while (shown := await asked(stack, token, path))["state"] == "running":
            if shown["done"]["matched"] >= (kills + 1) * count // 6:
                stack.end("worker", KILL)
                stack.end("api", KILL)
                stack.start("worker", "api")
                kills += 1
            await asyncio.sleep(0.2)
        assert kills >= 3
        assert (shown["state"], shown["done"]["matched"], shown["reason"]) == ("finished", count, None)
        await assert_each_once(stack.store, count)
