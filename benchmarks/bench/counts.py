"""What a delivery costs in Redis commands and SQL statements while `web` takes in and one worker settles,
both as fast as they can.
"""

import asyncio
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import asyncpg  # type: ignore[import-untyped]

from benchmarks.bench import backlog
from benchmarks.bench.backlog import Backlog
from benchmarks.bench.counted import read_count
from benchmarks.bench.figures import Row, row
from benchmarks.bench.generator import Generator, generator
from benchmarks.bench.rig import TALLYHOOK, Process, Rig, module
from benchmarks.bench.settle import TIMEOUT_S, idle_memory_mb

LOOKER = "looker"
"""Asks how far things are under a name of its own, so that its statements are not counted."""
LOOK_EVERY_S = 0.1
STATEMENTS = f"""SELECT sum(calls)::bigint FROM pg_stat_statements JOIN pg_roles ON oid = userid
    WHERE rolname <> '{LOOKER}'"""
WAITING = "SELECT EXISTS (SELECT 1 FROM deliveries WHERE state IN ('new', 'unmatched'))"


@dataclass(frozen=True, slots=True)
class CountsSize:
    """Deliveries of one round."""

    deliveries: int = 2_000


def measure(rig: Rig, rounds: int, size: CountsSize) -> list[Row]:
    """Commands and statements for each delivery."""
    prepared = backlog.prepare(rig, rounds * size.deliveries, delivered=False)
    keys_file = rig.folder / "keys"
    keys_file.write_text("\n".join(prepared.keys))
    with ExitStack() as stack:
        load = stack.enter_context(generator())
        load.prepare(len(prepared.keys), seed=backlog.SEED, keys_file=str(keys_file))
        web, worker = _processes(stack, rig, prepared)
        idle_memory_mb(worker)
        seen = [_one(rig, prepared, load, web, n * size.deliveries, size.deliveries) for n in range(rounds)]
    one = [1.0] * rounds
    return [
        row(
            "redis commands",
            rig.store,
            [redis for redis, _ in seen],
            one,
            unit="a delivery",
            at_most=0.2,
            reference_is="one delivery",
        ),
        row(
            "sql statements",
            rig.store,
            [sql for _, sql in seen],
            one,
            unit="a delivery",
            at_most=0.15,
            reference_is="one delivery",
        ),
    ]


def _processes(stack: ExitStack, rig: Rig, prepared: Backlog) -> tuple[Process, Process]:
    commands = {"web": [TALLYHOOK, "web"], "worker": module("workers")}
    if rig.is_sqlite:
        for name in commands:
            commands[name] = module("benchmarks.bench.counted", str(rig.folder / f"{name}.count"), name)
    else:
        create_looker(rig)
    web = stack.enter_context(rig.process("web", commands["web"], prepared.url))
    return web, stack.enter_context(rig.process("worker", commands["worker"], prepared.url, path=None))


def create_looker(rig: Rig) -> None:
    """Once a server, on PostgreSQL."""
    assert rig.postgres is not None
    rig.postgres.execute(f"CREATE ROLE {LOOKER} SUPERUSER LOGIN")


def _one(
    rig: Rig, prepared: Backlog, load: Generator, web: Process, first: int, count: int
) -> tuple[float, float]:
    redis, sql = rig.redis_commands(), statements(rig)
    load.run(web.port, seconds=TIMEOUT_S, first=first, count=count)
    deadline = time.monotonic() + TIMEOUT_S
    while is_waiting(rig, prepared.url):
        assert time.monotonic() < deadline, "the deliveries are not settled"
        time.sleep(LOOK_EVERY_S)
    return (rig.redis_commands() - redis) / count, (statements(rig) - sql) / count


def statements(rig: Rig) -> int:
    """Statements that our processes gave the database so far."""
    if rig.is_sqlite:
        return sum(map(read_count, rig.folder.glob("*.count")))
    assert rig.postgres is not None
    return int(asyncio.run(ask_postgresql(rig.postgres.admin_url, STATEMENTS)))


def is_waiting(rig: Rig, url: str) -> bool:
    """Whether a delivery is still to be settled."""
    if rig.is_sqlite:
        import sqlite3

        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        try:
            return bool(connection.execute(WAITING).fetchone()[0])
        finally:
            connection.close()
    return bool(asyncio.run(ask_postgresql(url, WAITING)))


async def ask_postgresql(url: str, query: str) -> Any:
    """The first value of the answer; neither this nor any other look of ours counts as a statement."""
    connection = await asyncpg.connect(url, user=LOOKER)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()
