"""One rate limit for many processes, on a real Valkey."""

import asyncio
import itertools

import pytest
from redis.asyncio import Redis

from app.provider.pacing import HEADROOM
from app.provider.permits import BLOCK_MAX, SharedPacer
from tests.conftest import StartValkey

RATE_PER_S = 500.0


async def lease(pacer: SharedPacer, count: int) -> float:
    """Start of a block of turns, by the pacer's own clock, which all pacers of this process share."""
    answer = await pacer._ask(count, 10**9)
    assert answer is not None
    assert answer[1]
    return answer[0]


async def test_blocks_of_four_processes_never_overlap(valkey_url: str) -> None:
    async with Redis.from_url(valkey_url) as redis:
        pacers = [SharedPacer(redis, "a", RATE_PER_S) for _ in range(4)]
        sizes = [1 + n % BLOCK_MAX for n in range(200)]
        starts = await asyncio.gather(
            *(lease(pacer, size) for pacer, size in zip(itertools.cycle(pacers), sizes, strict=False))
        )
    blocks = sorted(zip(starts, sizes, strict=True))
    interval_s = 1 / (RATE_PER_S * HEADROOM)
    # Each start is measured by its own round trip, so up to some ms too late; over many blocks that cancels.
    whole_s = blocks[-1][0] - blocks[0][0]
    turns = sum(size for _, size in blocks[:-1])
    assert whole_s == pytest.approx(turns * interval_s, abs=0.1)


async def test_another_account_has_its_own_limit(valkey_url: str) -> None:
    async with Redis.from_url(valkey_url) as redis:
        busy, idle = SharedPacer(redis, "a", RATE_PER_S), SharedPacer(redis, "b", RATE_PER_S)
        for _ in range(100):
            await lease(busy, BLOCK_MAX)
        assert await lease(busy, 1) - await lease(idle, 1) > 1


async def test_a_turn_too_far_away_is_not_used_up(valkey_url: str) -> None:
    async with Redis.from_url(valkey_url) as redis:
        pacer = SharedPacer(redis, "a", 1.0)
        assert await pacer.acquire() == 0
        waits = [await pacer.acquire(within_s=0.1) for _ in range(5)]
        assert all(0.1 <= wait <= 1.1 for wait in waits), "nobody took a turn, so none moved further away"


async def test_a_pause_holds_the_others_too(valkey_url: str) -> None:
    async with Redis.from_url(valkey_url) as redis:
        one, other = SharedPacer(redis, "a", RATE_PER_S), SharedPacer(redis, "a", RATE_PER_S)
        one.pause(60)
        assert await one.acquire(within_s=1) > 50
        assert await other.acquire(within_s=1) > 50


async def test_headers_lower_the_limit(valkey_url: str) -> None:
    async with Redis.from_url(valkey_url) as redis:
        pacer = SharedPacer(redis, "a", RATE_PER_S)
        pacer.observe(100)
        assert pacer.rate_per_s == pytest.approx(100 * HEADROOM)
        pacer.observe(10_000)
        assert pacer.rate_per_s == pytest.approx(RATE_PER_S * HEADROOM)


@pytest.mark.parametrize("how", ["stop", "pause"])
async def test_without_redis_each_keeps_to_its_share(start_valkey: StartValkey, how: str) -> None:
    valkey = start_valkey()
    redis = Redis.from_url(valkey.url, socket_timeout=0.2)
    pacer = SharedPacer(redis, "a", RATE_PER_S, processes_expected=4)
    assert await pacer.acquire() == 0
    getattr(valkey, how)()
    try:
        for _ in range(BLOCK_MAX + 5):
            assert await pacer.acquire() == 0
        assert pacer._share.rate_per_s <= RATE_PER_S / 4
    finally:
        if how == "pause":
            valkey.resume()
        await pacer.close()
