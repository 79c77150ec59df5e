"""One rate limit for many processes, on a real Valkey."""

import asyncio
import itertools
from typing import Any

import pytest
from redis.asyncio import Redis

from app.provider.ratelimit.shared import BLOCK_MIN, SharedPacer
from tests.conftest import StartValkey

RATE_PER_S = 500.0
PATIENT_S = 60.0
"""How long Redis may take here: machines stand still for longer than a sender would wait."""


def pacer_of(redis: Redis, account: str = "a", rate_per_s: float = RATE_PER_S, **options: Any) -> SharedPacer:
    return SharedPacer(redis, account, rate_per_s, timeout_s=PATIENT_S, **options)


async def lease(pacer: SharedPacer, count: int) -> list[int]:
    """The moments of a block of turns, in µs of Redis's clock."""
    turns = await pacer._lease_block(count, 10**6)
    assert isinstance(turns, list)
    return [turn.redis_us for turn in turns]


async def test_turns_of_four_processes_are_spaced_and_never_too_many_for_a_second(valkey_url: str) -> None:
    async with Redis.from_url(valkey_url) as redis:
        pacers = [pacer_of(redis, rate_per_s=100) for _ in range(4)]
        first = [(await lease(pacer, 1))[0] for pacer in pacers * 2]  # So that each has heard of the others.
        # Half a minute: what a slow machine takes for the rest. Behind it, distances may be shorter.
        ahead = await lease(pacers[0], 3_000)
        sizes = [1 + n % BLOCK_MIN for n in range(50)]

        async def leases(pacer: SharedPacer) -> list[int]:
            return [turn for size in sizes for turn in await lease(pacer, size)]

        turns = sorted(itertools.chain(first, ahead, *await asyncio.gather(*map(leases, pacers))))
    assert len(turns) == 3_008 + 4 * sum(sizes)
    assert all(b - a >= 10_000 for a, b in itertools.pairwise(turns))
    assert all(b - a >= 1_000_000 for a, b in zip(turns, turns[99:], strict=False))
    assert turns[-1] - turns[0] == pytest.approx(len(turns) / 98.7 * 1e6, rel=0.005)


@pytest.mark.parametrize(("rate_per_s", "block"), [(10, 16), (500, 16), (1_000, 32), (10_000, 64)])
async def test_a_faster_limit_is_leased_in_larger_blocks(
    valkey_url: str, rate_per_s: float, block: int
) -> None:
    async with Redis.from_url(valkey_url) as redis:
        pacer = pacer_of(redis, rate_per_s=rate_per_s)
        pacer._waiting = 1_000
        assert pacer._block_size() == block
        assert len(await lease(pacer, block)) == block


async def test_turns_given_back_are_given_again(valkey_url: str) -> None:
    async with Redis.from_url(valkey_url) as redis:
        pacer = pacer_of(redis, rate_per_s=1, processes_expected=1)
        first = await lease(pacer, BLOCK_MIN)
        pacer._unused.extend(first[8:])
        assert await lease(pacer, 8) == first[8:]
        assert await redis.llen("tallyhook:pace:a:turns") == 16


async def test_a_limit_by_the_hour_is_shared_too(valkey_url: str) -> None:
    async with Redis.from_url(valkey_url) as redis:
        pacers = [pacer_of(redis, per_hour=1_000) for _ in range(2)]
        turns = [turn for n in range(140) for turn in await lease(pacers[n % 2], 15)]
    assert all(b - a >= 3_600_000 for a, b in itertools.pairwise(turns))
    assert all(b - a >= 3_600_000_000 for a, b in zip(turns, turns[1_000:], strict=False))


async def test_blocks_of_any_size_keep_the_distances_that_single_turns_would(valkey_url: str) -> None:
    second, hour = 3, 10
    async with Redis.from_url(valkey_url) as redis:
        pacer = pacer_of(redis)
        turns: list[int] = []
        for count in (1, 2, 5, 16, 4, 64):
            asked = [count, 1, second, hour, 10**13, "p", 10**7, 0, 1, 10**6, 10**6]
            _, _, _, *leased = await pacer._script(keys=pacer._keys, args=asked)
            turns += leased
    # The first ones may have waited for round trips; from then on all are far ahead of the clock.
    expected = turns[:hour]
    while len(expected) < 92:
        bounds = [(1, 1), (second, 1_000_000), (hour, 3_600_000_000)]
        expected.append(max(expected[-back] + us for back, us in bounds))
    assert turns == expected


async def test_turns_further_away_are_not_leased_ahead(valkey_url: str) -> None:
    """Who gets one of them would sleep for all that time, and they are gone if the process ends."""
    async with Redis.from_url(valkey_url) as redis:
        pacer = pacer_of(redis, per_hour=100)
        turns = await pacer._lease_block(BLOCK_MIN, 50.0)
        assert isinstance(turns, list)
        assert [turn.number for turn in turns] == [1, 2], "now and in 36 s"
        waits = await asyncio.gather(*(pacer.acquire(within_s=0.2) for _ in range(5)))
        assert all(40 < wait <= 72.1 for wait in waits)


async def test_who_is_cancelled_gives_its_turn_back(valkey_url: str) -> None:
    asleep = asyncio.Event()

    async def sleep(_: float) -> None:
        asleep.set()
        await asyncio.Event().wait()

    async with Redis.from_url(valkey_url) as redis:
        pacer = pacer_of(redis, rate_per_s=0.01, sleep=sleep)
        turns = await pacer._lease_block(2, 600)
        assert isinstance(turns, list)
        pacer._permits.append(turns[1])  # In a hundred seconds.
        waiting = asyncio.create_task(pacer.acquire())
        await asleep.wait()
        waiting.cancel()
        await asyncio.wait([waiting])
        assert list(pacer._unused) == [turns[1].redis_us]


async def test_another_account_has_its_own_limit(valkey_url: str) -> None:
    async with Redis.from_url(valkey_url) as redis:
        busy, idle = pacer_of(redis, rate_per_s=50), pacer_of(redis, "b")
        for _ in range(100):
            await lease(busy, BLOCK_MIN)
        assert (await lease(busy, 1))[0] - (await lease(idle, 1))[0] > 20_000_000


async def test_a_turn_too_far_away_is_not_used_up(valkey_url: str) -> None:
    async with Redis.from_url(valkey_url) as redis:
        pacer = pacer_of(redis, rate_per_s=0.05)
        assert await pacer.acquire() == 0
        waits = [await pacer.acquire(within_s=0.1) for _ in range(5)]
        assert all(0.1 <= wait <= 20.1 for wait in waits), "nobody took a turn, so none moved further away"


async def test_a_pause_holds_the_others_too(valkey_url: str) -> None:
    async with Redis.from_url(valkey_url) as redis:
        one, other = pacer_of(redis), pacer_of(redis)
        one.pause(60)
        assert await one.acquire(within_s=1) > 20
        assert await other.acquire(within_s=1) > 20


async def test_a_process_knows_its_share(valkey_url: str) -> None:
    async with Redis.from_url(valkey_url) as redis:
        pacers = [pacer_of(redis, rate_per_s=60, processes_expected=4) for _ in range(3)]
        assert pacers[0].share_per_s == pytest.approx(15), "before it has heard of any other"
        for pacer in [*pacers, *pacers]:
            await lease(pacer, 1)
        assert [pacer.share_per_s for pacer in pacers] == [pytest.approx(20)] * 3
        assert pacer_of(redis, per_hour=1_000, processes_expected=1).share_per_s == pytest.approx(
            1_000 / 3_600
        )


async def test_headers_lower_the_limit(valkey_url: str) -> None:
    async with Redis.from_url(valkey_url) as redis:
        pacer = pacer_of(redis)
        pacer.answered(0.01, 100)
        assert pacer.windows.cap == 98
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
        for _ in range(BLOCK_MIN + 5):
            assert await pacer.acquire() == 0
        assert pacer._share.windows.cap <= RATE_PER_S / 4
    finally:
        if how == "pause":
            valkey.resume()
        await pacer.close()
