"""Settlement: how fast one worker empties an inbox of 20,000, compared with one that settles them one by one,
and with the bare writing of the answers as rows with their text.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiosqlite
import asyncpg  # type: ignore[import-untyped]
import sqlalchemy as sa
from arq.connections import ArqRedis, RedisSettings, create_pool

from app.config import Settings
from app.store import Database
from app.store.tables import IS_WAITING, deliveries
from benchmarks.bench import backlog
from benchmarks.bench.backlog import Backlog
from benchmarks.bench.figures import Row, row
from benchmarks.bench.rig import Process, Rig, module

LOOK_EVERY_S = 0.02
LOOK_SELDOM_S = 0.1
"""Where looking means counting what is left."""
TIMEOUT_S = 300.0
ANSWER_COLUMNS = ("task_id", "attempt", "delivery_id", "status", "response", "stored_at_ms")
ANSWERS = """CREATE TABLE answers (task_id {id} NOT NULL, attempt INTEGER NOT NULL, delivery_id {id} NOT NULL,
    status TEXT NOT NULL, response TEXT NOT NULL, stored_at_ms BIGINT NOT NULL,
    PRIMARY KEY (task_id, attempt))"""
"""What the reference writes to: results as they were when each had its answer beside it."""


@dataclass(frozen=True, slots=True)
class SettleSize:
    """How much is settled in one round."""

    ours: int = 20_000
    naive: int = 800
    """Of the same backlog; its rate does not depend on how much is left; all of it would take a minute."""


@dataclass
class Seen:
    """One figure for each round."""

    ours: list[float] = field(default_factory=list)
    naive: list[float] = field(default_factory=list)
    bulk: list[float] = field(default_factory=list)
    idle_mb: list[float] = field(default_factory=list)
    peak_mb: list[float] = field(default_factory=list)
    redis: list[float] = field(default_factory=list)


def measure(rig: Rig, rounds: int, size: SettleSize) -> list[Row]:
    """settle, settle limit, and the memory of `worker`."""
    prepared = backlog.prepare(rig, size.ours)
    records = result_records(rig, prepared)
    seen = Seen()
    for _ in range(rounds):
        _ours(rig, prepared, seen)
        seen.naive.append(_naive(rig, prepared, size.naive))
        seen.bulk.append(_bulk(rig, prepared, records))
    store = rig.store
    return [
        row(
            "settle",
            store,
            seen.ours,
            seen.naive,
            unit="deliveries/s",
            at_least=9,
            reference_is="one arq job and one transaction for each delivery",
        ),
        row(
            "settle limit",
            store,
            seen.ours,
            seen.bulk,
            unit="deliveries/s",
            at_least=0.40 if store == "sqlite" else 0.60,
            reference_is="COPY of the answers as rows with their text by one connection"
            if store == "postgresql"
            else "executemany of the answers as rows with their text by one connection",
        ),
        row(
            "memory worker",
            store,
            seen.peak_mb,
            seen.idle_mb,
            unit="MB",
            at_most=1.6,
            reference_is="the same process, idle",
        ),
    ]


def _ours(rig: Rig, prepared: Backlog, seen: Seen) -> None:
    with rig.database(prepared.url) as url:
        ids = prepared.delivery_ids
        asyncio.run(backlog.hold_back_ours(rig, ids, Settings().settle_size))
        rig.settle_disk()
        with rig.process("worker", module("workers"), url, path=None) as worker:
            seen.idle_mb.append(idle_memory_mb(worker))
            seconds = until_settled(rig, url, backlog.QUEUE_NAME, left=0)
            seen.peak_mb.append(worker.memory_mb("VmHWM"))
        seen.ours.append(len(ids) / seconds)
    rig.valkey.flush()


def _naive(rig: Rig, prepared: Backlog, count: int) -> float:
    with rig.database(prepared.url) as url:
        ids = prepared.delivery_ids[:count]
        asyncio.run(_hold_back_naive(rig, ids))
        rig.settle_disk()
        with rig.process("naive", module("benchmarks.bench.naive_worker"), url, path=None) as worker:
            idle_memory_mb(worker)
            seconds = until_settled(rig, url, backlog.NAIVE_QUEUE, left=len(prepared.delivery_ids) - len(ids))
    rig.valkey.flush()
    return len(ids) / seconds


async def _hold_back_naive(rig: Rig, ids: Sequence[str]) -> None:
    pool: ArqRedis = await create_pool(RedisSettings.from_dsn(rig.valkey.url))
    for delivery_id in ids:
        await pool.enqueue_job("settle", delivery_id, _queue_name=backlog.HELD)
    await pool.aclose(close_connection_pool=True)


def idle_memory_mb(process: Process) -> float:
    """Resident memory of a process that has started and is idle: its processor time no longer grows."""
    deadline, before_s = time.monotonic() + TIMEOUT_S, -1.0
    while (now_s := process.cpu_s()) - before_s > 0.02 or now_s < 0.3:
        assert process.popen.poll() is None, process.log.read_text()[-2_000:]
        assert time.monotonic() < deadline, "it does not come to rest"
        before_s = now_s
        time.sleep(0.3)
    return process.memory_mb("VmRSS")


def until_ready(process: Process) -> None:
    """The naive worker logs it."""
    deadline = time.monotonic() + TIMEOUT_S
    while b"ready" not in process.log.read_bytes()[process.log_from :]:
        assert process.popen.poll() is None, process.log.read_text()[-2_000:]
        assert time.monotonic() < deadline, "it does not start"
        time.sleep(LOOK_EVERY_S)


def until_settled(rig: Rig, url: str, queue_name: str, *, left: int) -> float:
    """Hand the jobs over and wait until only `left` deliveries wait; the seconds that took."""

    async def work() -> float:
        db = Database(url, pool_size=1)
        try:
            await _few_wait(db, left)
            started = time.perf_counter()
            backlog.hand_over(rig, queue_name)
            while not await _few_wait(db, left):
                assert time.perf_counter() - started < TIMEOUT_S, "the backlog is not settled"
                await asyncio.sleep(LOOK_SELDOM_S if left else LOOK_EVERY_S)
            return time.perf_counter() - started
        finally:
            await db.close()

    return asyncio.run(work())


async def _few_wait(db: Database, left: int) -> bool:
    """Whether no more than `left` deliveries wait; stops counting beyond that."""
    some = sa.select(deliveries.c.id).where(IS_WAITING).limit(left + 1).subquery()
    query = sa.select(sa.func.count()).select_from(some)

    async def work(connection: Any) -> int:
        found: int = await connection.scalar(query)
        return found

    return await db.read(work) <= left


def result_records(rig: Rig, prepared: Backlog) -> list[tuple[Any, ...]]:
    """The answers of the backlog, as rows with their text."""
    stored = (lambda i: i.replace("-", "")) if rig.is_sqlite else str
    rows = zip(prepared.keys, prepared.delivery_ids, prepared.responses, strict=True)
    return [
        (stored(key.partition(".")[0]), 1, stored(delivery_id), "completed", response, 1_790_812_800_000)
        for key, delivery_id, response in rows
    ]


def _bulk(rig: Rig, prepared: Backlog, records: Sequence[tuple[Any, ...]]) -> float:
    with rig.database(prepared.url) as url:
        rig.settle_disk()
        seconds = asyncio.run((_executemany if rig.is_sqlite else _copy)(url, records))
    return len(records) / seconds


async def _copy(url: str, records: Sequence[tuple[Any, ...]]) -> float:
    connection = await asyncpg.connect(url)
    await connection.execute(ANSWERS.format(id="UUID"))
    started = time.perf_counter()
    await connection.copy_records_to_table("answers", records=records, columns=ANSWER_COLUMNS)
    seconds = time.perf_counter() - started
    await connection.close()
    return seconds


async def _executemany(url: str, records: Sequence[tuple[Any, ...]]) -> float:
    connection = await aiosqlite.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        await connection.execute(f"PRAGMA {pragma}")
    await connection.execute(ANSWERS.format(id="CHAR(32)"))
    marks = ", ".join("?" * len(ANSWER_COLUMNS))
    started = time.perf_counter()
    await connection.execute("BEGIN IMMEDIATE")
    await connection.executemany(
        f"INSERT INTO answers ({', '.join(ANSWER_COLUMNS)}) VALUES ({marks})", records
    )
    await connection.execute("COMMIT")
    seconds = time.perf_counter() - started
    await connection.close()
    return seconds
