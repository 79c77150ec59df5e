"""What happens to the cluster, one after the other, in three forms."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager

from benchmarks.drill.under_load import Drill
from tests.e2e.cluster import PLACES
from tests.e2e.stack import KILL, STOP
from tests.servers.machines import DATABASE, HUB, REDIS

WRONG_S = 90_000
"""25 hours: longer than any lease, and than the provider keeps a task."""
HOUR_S = 3_600
"""Longer than any lease, shorter than what the provider keeps."""
NARROW = "200kbit"
NOTICED_S = 8.0
"""Until somebody sees that the standby is gone."""
DISK = "4m"

Happening = tuple[str, Callable[[], Awaitable[None]]]


def full(drill: Drill) -> list[Happening]:
    """The faults of one machine, each process, Redis and the database."""
    return [
        _cut_off(drill, "right"),
        *(_killed(drill, name) for name in PLACES),
        ("Redis fails over", lambda: asyncio.to_thread(drill.redis.fail_over)),
        ("database fails over", drill.database.fail_over),
        _cut_off(drill, "left"),
        ("all restarted in turn", lambda: _restart_all(drill)),
    ]


def none(drill: Drill) -> list[Happening]:
    """Nothing."""
    return []


def short(drill: Drill) -> list[Happening]:
    """A part of them."""
    return [
        _cut_off(drill, "right"),
        *(_killed(drill, name) for name in ("web1", "api2", "worker1")),
        ("Redis fails over", lambda: asyncio.to_thread(drill.redis.fail_over)),
        ("database fails over", drill.database.fail_over),
    ]


def others(drill: Drill) -> list[Happening]:
    """Others of the same kinds: one machine without one service, what is slow, full or wrong, not gone."""
    right, left, size = drill.machines["right"], drill.machines["left"], drill.size
    clock = drill.cluster.give_clock("right")
    drill.cluster.give_disk("right", DISK)

    async def clock_jumps(by_s: int) -> None:
        clock.write_text(str(by_s))
        await asyncio.sleep(size.service_s)

    async def two_of_three_sentinels() -> None:
        await asyncio.to_thread(drill.redis.lose_sentinel)
        await asyncio.to_thread(drill.redis.fail_over)

    def during(fault: Callable[[], AbstractContextManager[None]]) -> Callable[[], Awaitable[None]]:
        return lambda: _during(fault, size.service_s)

    return [
        ("database cut off from left", during(lambda: left.cut_off_from(DATABASE))),
        ("Redis cut off from left", during(lambda: left.cut_off_from(REDIS))),
        ("provider cut off from right", during(lambda: right.cut_off_from(HUB))),
        ("narrow cable to right", during(lambda: right.narrow(NARROW))),
        ("right stands still", during(lambda: drill.cluster.frozen("right"))),
        ("right's disk full", during(right.full_disk)),
        ("right's clock 1 h ahead", lambda: clock_jumps(HOUR_S)),
        ("right's clock 1 h behind", lambda: clock_jumps(-HOUR_S)),
        ("right's clock 25 h ahead", lambda: clock_jumps(WRONG_S)),
        ("right's clock 25 h behind", lambda: clock_jumps(-WRONG_S)),
        ("right's clock right again", lambda: clock_jumps(0)),
        ("Redis replica lost", lambda: drill.redis.lose_replica(size.service_s)),
        ("standby lost, given up", lambda: drill.database.lose_standby(NOTICED_S, size.service_s)),
        ("database stands still", lambda: drill.database.hang(size.service_s)),
        ("database restarts", drill.database.restart),
        ("both receivers killed", lambda: _all_killed(drill, "web")),
        ("all workers killed", lambda: _all_killed(drill, "worker")),
        ("Redis fails over by two of three", two_of_three_sentinels),
    ]


def _cut_off(drill: Drill, name: str) -> Happening:
    """One machine hears and reaches nobody."""
    return f"{name} machine cut off", lambda: _during(drill.machines[name].cut_off, drill.size.partition_s)


async def _during(fault: Callable[[], AbstractContextManager[None]], for_s: float) -> None:
    with contextlib.ExitStack() as stack:
        await asyncio.to_thread(stack.enter_context, fault())
        await asyncio.sleep(for_s)


def _killed(drill: Drill, name: str) -> Happening:
    return f"kill -9 of {name}", lambda: _again(drill, name, KILL)


async def _again(drill: Drill, name: str, how: tuple[tuple[int, float], ...]) -> None:
    """End a process and start it again."""
    await asyncio.to_thread(drill.cluster.end, name, how)
    await asyncio.to_thread(drill.cluster.start, name)


async def _all_killed(drill: Drill, kind: str) -> None:
    names = [name for name in PLACES if name.startswith(kind)]
    for name in names:
        await asyncio.to_thread(drill.cluster.end, name, KILL)
    await asyncio.to_thread(drill.cluster.start, *names)


async def _restart_all(drill: Drill) -> None:
    """One after the other, each in an orderly way, as an upgrade does."""
    for name in PLACES:
        await _again(drill, name, STOP)
