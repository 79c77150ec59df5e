"""A fail-over by address: old connections stay with the server that was demoted, new ones reach the
new one."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from app.provider.ratelimit.shared import SharedPacer
from app.queue import QUEUE_NAME, Queue, open_pool
from app.redis_pool import RedisPool
from tests.conftest import StartValkey
from tests.servers.proxy import Proxy
from tests.servers.valkey import ValkeyServer

TIMEOUT_S = 20.0


@dataclass
class Pair:
    """Two servers behind one address."""

    first: ValkeyServer
    second: ValkeyServer
    proxy: Proxy

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.proxy.port}/0"

    def fail_over(self) -> None:
        """The second takes over; the first follows it. Connections that stand are not cut."""
        self.proxy.target_port = self.second.port
        with self.first.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", str(self.second.port))


@pytest.fixture
def pair(start_valkey: StartValkey) -> Iterator[Pair]:
    first, second = start_valkey(appendonly=False), start_valkey(appendonly=False)
    with Proxy(first.port) as proxy:
        yield Pair(first, second, proxy)


async def test_f16_wakes_reach_the_new_server_at_once(pair: Pair) -> None:
    queue = Queue(pair.url, timeout_s=TIMEOUT_S)
    try:
        assert await asyncio.gather(*(queue.wake_submit() for _ in range(8))) == [True] * 8
        pair.fail_over()
        # Each connection that stands finds out for itself, and none loses its wake.
        assert await asyncio.gather(*(queue.wake_submit() for _ in range(8))) == [True] * 8
        with pair.second.client() as client:
            assert client.zcard(QUEUE_NAME) == 8
    finally:
        await queue.close()


async def test_f16_the_worker_s_pool_writes_to_the_new_server(pair: Pair) -> None:
    pool = open_pool(pair.url, timeout_s=TIMEOUT_S)
    try:
        await pool.set("before", 1)
        pair.fail_over()
        # As arq takes a job: it would read a refusal as "somebody else has it".
        async with pool.pipeline(transaction=True) as pipeline:
            await pipeline.psetex("arq:in-progress:1", 60_000, b"1").execute()
        with pair.second.client() as client:
            assert client.exists("arq:in-progress:1")
    finally:
        await pool.aclose(close_connection_pool=True)


async def test_f16_turns_are_leased_from_the_new_server(pair: Pair) -> None:
    redis = Redis.from_pool(RedisPool(pair.url, timeout_s=TIMEOUT_S, connections_max=4))
    pacer = SharedPacer(redis, "default", 200.0, timeout_s=TIMEOUT_S)
    try:
        await pacer.acquire()
        pair.fail_over()
        for _ in range(20):  # more than were leased at once
            await pacer.acquire()
        assert pacer._away_until_s == 0.0, "Redis was there all the time"
        with pair.second.client() as client:
            assert client.exists("tallyhook:pace:default:turns")
    finally:
        await pacer.close()


async def test_f15_a_replaced_server_that_still_takes_writes_is_left(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No refusal shows it: the address leads elsewhere, and the old connections stand."""
    monkeypatch.setattr("app.redis_pool.AGE_MAX_S", 0.2)
    queue = Queue(pair.url, timeout_s=TIMEOUT_S)
    try:
        assert await queue.wake_submit()
        pair.proxy.target_port = pair.second.port
        with pair.second.client() as client:
            async with asyncio.timeout(30):
                while not client.zcard(QUEUE_NAME):
                    assert await queue.wake_submit()
                    await asyncio.sleep(0.02)
    finally:
        await queue.close()
