"""The process's clock goes by the database's, and does not follow what passes by itself."""

import time

import pytest

from app.database_clock import JUMP_READINGS, DatabaseClock

DAY_MS = 86_400_000
AHEAD_MS = 25 * 3_600_000


class World:
    """A machine's two clocks and the database's, moved by hand."""

    def __init__(self) -> None:
        self.monotonic_s = 100.0
        self.wall_ms = 1_000 * DAY_MS
        self.database_ms = 1_000 * DAY_MS
        self.took_s = 0.0
        self.clock = DatabaseClock(wall=lambda: self.wall_ms, monotonic=lambda: self.monotonic_s)

    def pass_s(self, seconds: float) -> None:
        self.monotonic_s += seconds
        self.wall_ms += round(seconds * 1000)
        self.database_ms += round(seconds * 1000)

    async def read(self) -> None:
        async def ask() -> int:
            self.pass_s(self.took_s / 2)
            reported = self.database_ms
            self.pass_s(self.took_s / 2)
            return reported

        await self.clock.read(ask)


async def test_f18_the_database_s_time_counts_and_the_machine_s_does_not() -> None:
    world = World()
    world.wall_ms += AHEAD_MS
    assert world.clock() == world.wall_ms, "there is no other yet"
    await world.read()
    assert world.clock() == world.database_ms
    world.pass_s(3)
    world.wall_ms -= 7 * DAY_MS
    assert world.clock() == world.database_ms


async def test_f18_it_goes_on_while_the_machine_is_asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = {time.CLOCK_MONOTONIC: 100.0, time.CLOCK_BOOTTIME: 100.0}
    monkeypatch.setattr(time, "clock_gettime", clocks.__getitem__)
    clock = DatabaseClock(wall=lambda: 0)

    async def ask() -> int:
        return DAY_MS

    await clock.read(ask)
    clocks[time.CLOCK_BOOTTIME] += 600
    assert clock() == DAY_MS + 600_000


async def test_f18_an_answer_counts_for_the_middle_of_its_way_and_a_slow_one_not_at_all() -> None:
    world = World()
    world.took_s = 0.5
    await world.read()
    assert world.clock() == world.database_ms
    world.database_ms += 1_000
    world.took_s = 30.0
    await world.read()
    assert world.clock() == world.database_ms - 1_000
    world.took_s = 0.0
    await world.read()
    assert world.clock() == world.database_ms


async def test_f18_a_jump_for_seconds_is_not_followed_and_one_that_stays_is() -> None:
    world = World()
    await world.read()
    world.database_ms += AHEAD_MS
    await world.read()
    world.database_ms -= AHEAD_MS
    await world.read()
    assert world.clock() == world.database_ms
    world.database_ms += AHEAD_MS
    for _ in range(JUMP_READINGS):
        assert world.clock() == world.database_ms - AHEAD_MS
        world.pass_s(5)
        await world.read()
    assert world.clock() == world.database_ms
