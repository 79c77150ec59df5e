"""One rate limit for many processes, on a real Valkey."""

import asyncio
import itertools

import pytest
from redis.asyncio import Redis

from app.provider.permits import BLOCK_MAX, SharedPacer
from tests.conftest import StartValkey

RATE_PER_S = 500.0


async def lease(pacer: SharedPacer, count: int) -> list[int]:
    """The moments of a block of turns, in µs of Redis's clock."""
    turns = await pacer._ask(count, 10**6)
    assert isinstance(turns, list)
    return [turn.redis_us for turn in turns]


async def test_turns_of_four_processes_are_spaced_and_never_too_many_for_a_second(valkey_url: str) -> None:
    async with Redis.from_url(valkey_url) as redis:
        pacers = [SharedPacer(redis, "a", RATE_PER_S) for _ in range(4)]
        sizes = [1 + n % BLOCK_MAX for n in range(200)]
        blocks = await asyncio.gather(
            *(lease(pacer, size) for pacer, size in zip(itertools.cycle(pacers), sizes, strict=False))
        )
    turns = sorted(turn for block in blocks for turn in block)
    assert len(turns) == sum(sizes)
    assert all(b - a >= 2_000 for a, b in itertools.pairwise(turns))
    assert all(b - a >= 1_000_000 for a, b in zip(turns, turns[492:], strict=False))
    assert turns[-1] - turns[0] == pytest.approx(len(turns) / 492 * 1e6, rel=0.02)


async def test_turns_given_back_are_given_again(valkey_url: str) -> None:
    async with Redis.from_url(valkey_url) as redis:
        pacer = SharedPacer(redis, "a", RATE_PER_S)
        first = await lease(pacer, BLOCK_MAX)
        pacer._unused.extend(first[8:])
        second = await lease(pacer, 8)
        assert second[0] - first[7] == pytest.approx(2_000, abs=1) or second[0] > first[-1], "the same gap"
        assert second[0] <= first[8] + 100_000
        assert await redis.llen("tallyhook:pace:a:turns") == 16


async def test_a_limit_by_the_hour_is_shared_too(valkey_url: str) -> None:
    async with Redis.from_url(valkey_url) as redis:
        pacers = [SharedPacer(redis, "a", RATE_PER_S, per_hour=1_000) for _ in range(2)]
        turns = [turn for n in range(140) for turn in await lease(pacers[n % 2], 15)]
    assert all(b - a >= 3_600_000 for a, b in itertools.pairwise(turns))
    assert all(b - a >= 3_600_000_000 for a, b in zip(turns, turns[1_000:], strict=False))


async def test_turns_further_away_are_not_leased_ahead(valkey_url: str) -> None:
    """Who gets one of them would sleep for all that time, and they are gone if the process ends."""
    async with Redis.from_url(valkey_url) as redis:
        pacer = SharedPacer(redis, "a", RATE_PER_S, per_hour=1_000)
        turns = await pacer._ask(BLOCK_MAX, 5.0)
        assert isinstance(turns, list)
        assert [turn.number for turn in turns] == [1, 2], "now and in 3.6 s"
        waits = await asyncio.gather(*(pacer.acquire(within_s=0.2) for _ in range(5)))
        assert all(6 < wait <= 7.3 for wait in waits)


async def test_who_is_cancelled_gives_its_turn_back(valkey_url: str) -> None:
    asleep = asyncio.Event()

    async def sleep(_: float) -> None:
        asleep.set()
        await asyncio.Event().wait()

    async with Redis.from_url(valkey_url) as redis:
        pacer = SharedPacer(redis, "a", 12.0, sleep=sleep)
        assert await pacer.acquire() == 0
        waiting = asyncio.create_task(pacer.acquire())
        await asleep.wait()
        waiting.cancel()
        await asyncio.wait([waiting])
        assert len(pacer._unused) == await redis.llen("tallyhook:pace:a:turns") - 1 == 1


async def test_another_account_has_its_own_limit(valkey_url: str) -> None:
    async with Redis.from_url(valkey_url) as redis:
        busy, idle = SharedPacer(redis, "a", RATE_PER_S), SharedPacer(redis, "b", RATE_PER_S)
        for _ in range(100):
            await lease(busy, BLOCK_MAX)
        assert (await lease(busy, 1))[0] - (await lease(idle, 1))[0] > 1_000_000


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
        pacer.answered(0.01, 100)
        assert pacer.windows.cap == 97
        pacer.answered(0.01, 10_000)
        assert pacer.windows.cap == 489


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
        assert pacer._share.windows.cap <= RATE_PER_S / 4
    finally:
        if how == "pause":
            valkey.resume()
        await pacer.close()
