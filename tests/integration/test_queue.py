"""The enqueue side of arq on a real Valkey: JSON that carries ids, and False, soon, without a Redis."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from app.queue import JOB_EXPIRES_MS, QUEUE_NAME, Queue, serialize
from tests.conftest import StartValkey
from tests.servers.valkey import ValkeyServer

TIMEOUT_S = 0.5
"""Where Redis hangs."""
SOON_S = 30.0
"""However busy the machine is."""
PATIENT_S = 60.0
"""Where Redis answers, or refuses."""
IDS = ["01a0f4c2-c400-7000-8000-000000000001", "01a0f4c2-c400-7000-8000-000000000002"]


@pytest.fixture
async def queue(valkey_url: str) -> AsyncIterator[Queue]:
    opened = Queue(valkey_url, timeout_s=PATIENT_S)
    yield opened
    await opened.close()


def jobs(server: ValkeyServer) -> list[tuple[dict[str, Any], float]]:
    """(the job as it stands in Redis, its score in ms since 1970); fails for what is not JSON."""
    with server.client() as client:
        scored = client.zrange(QUEUE_NAME, 0, -1, withscores=True)
        return [(json.loads(client.get(f"arq:job:{i.decode()}")), score) for i, score in scored]


async def test_a19_a_settle_job_carries_ids_and_nothing_else(queue: Queue, valkey: ValkeyServer) -> None:
    assert await queue.wake_settle(IDS) is True
    [(job, _)] = jobs(valkey)
    assert (job["f"], job["a"]) == ("settle", [{"v": 1, "ids": IDS}])


async def test_a18_jobs_are_json_and_never_pickle(queue: Queue, valkey: ValkeyServer) -> None:
    await queue.wake_settle(IDS)
    await queue.wake_submit()
    assert {job["f"] for job, _ in jobs(valkey)} == {"settle", "submit"}
    assert json.loads(serialize({"r": ValueError("in a result")})) == {"r": "ValueError('in a result')"}


async def test_a5_equal_wakes_are_jobs_of_their_own(queue: Queue, valkey: ValkeyServer) -> None:
    assert [await queue.wake_submit() for _ in range(3)] == [True] * 3
    assert len(jobs(valkey)) == 3


async def test_a_submit_job_may_be_put_off(queue: Queue, valkey: ValkeyServer) -> None:
    now_ms = time.time() * 1000
    assert await queue.wake_submit(60_000)
    [(job, score)] = jobs(valkey)
    assert job["a"] == [{"v": 1}]
    assert now_ms + 59_000 <= score <= time.time() * 1000 + 61_000
    with valkey.client() as client:
        [key] = client.keys("arq:job:*")
        assert 0 < client.pttl(key) <= JOB_EXPIRES_MS + 61_000, "unread jobs go away by themselves"


async def test_a31_more_wakes_than_connections_wait_for_one(queue: Queue, valkey: ValkeyServer) -> None:
    assert await asyncio.gather(*(queue.wake_settle(IDS) for _ in range(60))) == [True] * 60
    assert len(jobs(valkey)) == 60


async def test_a_redis_that_is_down_returns_false_at_once(start_valkey: StartValkey) -> None:
    server = start_valkey(appendonly=False)
    queue = Queue(server.url, timeout_s=PATIENT_S)
    try:
        assert await queue.ping()
        server.stop()
        await _refuses_soon(queue)
        server.start()
        assert await queue.ping()
        assert await queue.wake_settle(IDS), "and again, as soon as it is back"
    finally:
        await queue.close()


async def test_a12_a_redis_that_hangs_holds_nobody(start_valkey: StartValkey) -> None:
    server = start_valkey(appendonly=False)
    queue = Queue(server.url, timeout_s=TIMEOUT_S)
    try:
        await _takes(queue)
        # A connection is open.
        server.pause()
        await _refuses_soon(queue)
        server.resume()
        await _takes(queue)
    finally:
        await queue.close()


async def test_a14_a_redis_that_is_full_returns_false(start_valkey: StartValkey) -> None:
    server = start_valkey(appendonly=False, maxmemory="1kb")
    queue = Queue(server.url, timeout_s=PATIENT_S)
    try:
        assert await queue.ping()
        assert await queue.wake_settle(IDS) is False
    finally:
        await queue.close()


async def test_an_address_where_nobody_listens() -> None:
    queue = Queue("redis://127.0.0.1:1/0", timeout_s=PATIENT_S)
    try:
        await _refuses_soon(queue)
    finally:
        await queue.close()


async def _takes(queue: Queue) -> None:
    """On a machine that is busy Redis may need longer than TIMEOUT_S."""
    async with asyncio.timeout(SOON_S):
        while not await queue.wake_submit():
            pass


async def _refuses_soon(queue: Queue) -> None:
    asks: list[Callable[[], Awaitable[bool]]] = [
        lambda: queue.wake_settle(IDS),
        queue.wake_submit,
        queue.ping,
    ]
    for ask in asks:
        started = time.monotonic()
        assert await ask() is False
        assert time.monotonic() - started < SOON_S
