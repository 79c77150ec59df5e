"""The pacer, in simulated time: never above the limit in any window, and close below it."""

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from app.provider.ratelimit.pacing import Pacer
from tests.unit.provider.virtual_loop import VirtualTime

LIMIT = 500
SENDERS = 64


def quiet(_: random.Random) -> float:
    return 0.0


def jittered(rng: random.Random) -> float:
    return rng.random() * 0.0005


def stalling(rng: random.Random) -> float:
    """Mostly prompt; now and then the loop does nothing for up to a fifth of a second."""
    return rng.uniform(0.01, 0.2) if rng.random() < 0.002 else rng.random() * 0.0002


def always_late(rng: random.Random) -> float:
    """A machine so busy that no sleeper is ever woken on time."""
    return 0.02


async def sent_at(
    seed: int, late: Callable[[random.Random], float], seconds: float, *, rate: float = LIMIT
) -> list[float]:
    """When each request of a busy client left, over some simulated seconds."""
    rng = random.Random(seed)
    time = VirtualTime(lambda: late(rng))
    pacer = Pacer(rate, monotonic=time.monotonic, sleep=time.sleep)
    sent: list[float] = []

    async def sender() -> None:
        while True:
            await pacer.acquire()
            sent.append(time.monotonic())
            await time.sleep(rng.uniform(0.005, 0.1))

    async with running(*(sender() for _ in range(SENDERS))):
        await time.run(time.now_s + seconds)
    return sent


@contextlib.asynccontextmanager
async def running(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(c) for c in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("late", [quiet, jittered, stalling, always_late])
@pytest.mark.parametrize("seed", range(3))
async def test_no_window_of_a_second_sees_more_than_the_limit(
    seed: int, late: Callable[[random.Random], float]
) -> None:
    sent = await sent_at(seed, late, 5)
    worst = 0
    for phase in range(20):
        windows = Counter(int(at + phase / 20) for at in sent)
        worst = max(worst, *windows.values())
    assert worst <= LIMIT, f"seed {seed}, {late.__name__}: {worst} in one second"


@pytest.mark.parametrize("late", [quiet, jittered])
async def test_the_rate_is_at_most_3_percent_below_the_limit(late: Callable[[random.Random], float]) -> None:
    sent = await sent_at(7, late, 6)
    assert len(sent) / 6 >= 0.97 * LIMIT


@pytest.mark.parametrize("limit", [1, 3, 10, 37, 60])
async def test_a_limit_of_few_loses_no_more_by_whole_turns(limit: int) -> None:
    sent = await sent_at(7, quiet, 60, rate=limit)
    assert len(sent) / 60 == pytest.approx(0.978 * limit, rel=0.02)
    for phase in range(20):
        assert max(Counter(int(at + phase / 20) for at in sent).values()) <= limit


async def test_a_machine_that_is_always_late_still_sends() -> None:
    sent = await sent_at(1, always_late, 20)
    assert len(sent) / 20 >= 5, "every wake here costs 20 ms, whoever it is for"


async def test_requests_of_an_idle_pacer_are_spaced_not_bunched() -> None:
    time = VirtualTime()
    pacer = Pacer(100, monotonic=time.monotonic, sleep=time.sleep)
    left: list[float] = []

    async def one() -> None:
        await pacer.acquire()
        left.append(time.monotonic() - 1_000)

    async with running(*(one() for _ in range(50))):
        await time.run(1_010)
    assert len(left) == 50
    assert left[-1] == pytest.approx(49 / 100, abs=0.02)


@pytest.mark.parametrize(
    ("limit", "cap"), [(100, 98), (500, 489), (1_000, 489), (0, 489), (-1, 489), (None, 489)]
)
def test_headers_lower_the_rate_and_never_raise_it(limit: int | None, cap: int) -> None:
    pacer = Pacer(500)
    pacer.answered(0.01, limit)
    assert pacer.windows.cap == cap
    pacer.answered(0.01, 10**6)
    assert pacer.windows.cap == 489, "what was configured stays the bound"


def test_a_limit_that_is_none_leaves_the_lowered_one() -> None:
    pacer = Pacer(500)
    for limit in (100, 0, -1, None):
        pacer.answered(0.01, limit)
        assert pacer.windows.cap == 98


def test_where_the_provider_says_what_is_left_less_headroom_is_needed() -> None:
    pacer = Pacer(500)
    pacer.answered(0.01, 500, 499)
    assert pacer.windows.cap == 497
    pacer.window.processes = 2
    pacer.answered(0.01, 500, 498)
    assert pacer.windows.cap == 489, "but not for what others have on their way"


async def test_what_a_stall_cost_is_caught_up_below_the_cap() -> None:
    def now_and_then(rng: random.Random) -> float:
        return 0.015 if rng.random() < 0.002 else 0.0  # the machine does something else: 7 turns

    sent = await sent_at(3, now_and_then, 6)
    assert len(sent) / 6 >= 0.975 * LIMIT
    # Some gone together stand on both edges of a second.
    assert max(Counter(int(at) for at in sent).values()) <= 495


async def test_a_long_stall_is_made_up_for_within_the_second() -> None:
    """A twentieth of a second, once a second: the limit's own spacing would lose 1 % of the rate by it."""
    sent = await sent_at(0, lambda rng: 0.05 if rng.random() < 0.002 else 0.0, 6)
    assert len(sent) / 6 >= 0.978 * LIMIT
    assert max(Counter(int(at) for at in sent).values()) <= 495


async def test_a_limit_by_the_hour_holds_too_and_is_spread() -> None:
    time = VirtualTime()
    pacer = Pacer(LIMIT, per_hour=1_000, monotonic=time.monotonic, sleep=time.sleep)
    sent: list[float] = []

    async def sender() -> None:
        while True:
            await pacer.acquire()
            sent.append(time.now_s)

    async with running(sender(), sender()):
        await time.run(1_000 + 3 * 3_600)
    assert all(b - a >= 3.59 for a, b in itertools.pairwise(sent))
    assert all(b - a >= 3_599.9 for a, b in zip(sent, sent[1_000:], strict=False))
    assert len(sent) == pytest.approx(3_000, abs=3)


async def test_a_pause_holds_those_who_sleep_and_those_who_come() -> None:
    time = VirtualTime()
    pacer = Pacer(10, monotonic=time.monotonic, sleep=time.sleep)
    left: list[float] = []

    async def one() -> None:
        await pacer.acquire()
        left.append(time.monotonic() - 1_000)

    async with running(*(one() for _ in range(4))):
        await time.run(1_000.05)
        assert len(left) == 1, "the first goes at once, the others sleep"
        pacer.pause(5.0)
        async with running(one()):
            await time.run(1_005.04)
            assert len(left) == 1
            await time.run(1_010)
    assert len(left) == 5
    assert left[1] >= 5.049 and left[4] - left[1] >= 0.25, "spaced again after the pause"


async def test_a_shorter_pause_does_not_end_a_longer_one() -> None:
    time = VirtualTime()
    pacer = Pacer(10, monotonic=time.monotonic, sleep=time.sleep)
    pacer.pause(5.0)
    pacer.pause(1.0)
    assert await pacer.acquire(within_s=4.0) == pytest.approx(5.0)


async def test_a_turn_that_is_too_far_away_is_not_taken() -> None:
    time = VirtualTime()
    pacer = Pacer(10, monotonic=time.monotonic, sleep=time.sleep)
    pacer.pause(900.0)
    for _ in range(1_000):
        assert await pacer.acquire(within_s=5.0) == pytest.approx(900.0), "nobody queues up for it"
    time.now_s += 900.0
    assert await pacer.acquire(within_s=5.0) == 0.0


async def test_a_pause_that_begins_while_a_request_sleeps_sends_it_away() -> None:
    time = VirtualTime()
    pacer = Pacer(10, monotonic=time.monotonic, sleep=time.sleep)
    assert await pacer.acquire(within_s=1.0) == 0.0
    waits: list[float] = []

    async def one() -> None:
        waits.append(await pacer.acquire(within_s=1.0))

    async with running(one()):
        await time.run(1_000.05)
        pacer.pause(60.0)
        await time.run(1_001)
    assert waits == [pytest.approx(59.95, abs=0.1)]


async def test_what_is_remembered_stays_bounded() -> None:
    time = VirtualTime()
    pacer = Pacer(50, monotonic=time.monotonic, sleep=time.sleep)
    for _ in range(1_000):
        assert await pacer.acquire() == 0.0
        time.now_s += 0.05
    assert len(pacer._gone) <= 50
