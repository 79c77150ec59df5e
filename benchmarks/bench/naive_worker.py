"""The worker that ours is compared with: one arq job and one transaction for each delivery.

`python -m benchmarks.bench.naive_worker` serves arq's default queue. It reads, decides and writes what ours
does for a task that is settled by its first report, statement by statement, in the driver's own SQL.
"""

import asyncio
import hashlib
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiosqlite
import asyncpg  # type: ignore[import-untyped]
import uvloop
from arq.connections import RedisSettings
from arq.worker import Worker, func

from app.domain.credits import to_micro
from app.provider.wire import read_report
from app.store.write.inbox import unpack

MAX_JOBS = 100
POLL_DELAY_S = 0.05
POOL_SIZE = 10
Run = Callable[..., Any]
"""(statement, parameters…) -> rows."""

DELIVERY = "SELECT encoding, body FROM deliveries WHERE id = ?1 AND state = 'new'"
TASK = """SELECT id, run_id, attempt, credits_to_charge FROM tasks
    WHERE idempotency_key = ?1 AND state = 'submitted' AND money = 'held'"""
UPDATE = """UPDATE tasks SET state = ?1, money = 'posted', credits_charged = ?2, reported = ?1, verdict = ?3,
    settled_by = 'delivery', settled_at_ms = ?4, next_poll_at_ms = NULL, claim = NULL, lease_until_ms = NULL
    WHERE id = ?5 AND attempt = ?6 AND state = 'submitted' AND money = 'held'"""
LEDGER = """INSERT INTO ledger (at_ms, run_id, task_id, attempt, kind, credits, delivery_id)
    VALUES (?1, ?2, ?3, ?4, 'post', ?5, ?6)"""
RESULT = """INSERT INTO results
    (task_id, attempt, delivery_id, status, stored_at_ms, answer_bytes, answer_sha256, seq)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"""
NUMBER = "UPDATE settle_sequence SET value = value + 1 RETURNING value"
DONE = "UPDATE deliveries SET state = 'done', effect = 'settled', task_id = ?1, attempt = ?2 WHERE id = ?3"


class Postgresql:
    """asyncpg's pool; a transaction holds a connection."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Run]:
        async with self._pool.acquire() as connection, connection.transaction():

            async def run(statement: str, *parameters: Any) -> Any:
                return await connection.fetch(statement.replace("?", "$"), *parameters)

            yield run

    @staticmethod
    def delivery(delivery_id: str) -> tuple[str, str]:
        return DELIVERY + " FOR UPDATE", delivery_id


class Sqlite:
    """One connection, as SQLite has one writer; transactions take turns."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Run]:
        async with self._turn:
            await self._connection.execute("BEGIN IMMEDIATE")
            yield self._run
            await self._connection.execute("COMMIT")

    async def _run(self, statement: str, *parameters: Any) -> Any:
        return await self._connection.execute_fetchall(statement, parameters)

    @staticmethod
    def delivery(delivery_id: str) -> tuple[str, str]:
        return DELIVERY, delivery_id.replace("-", "")


async def settle_one(ctx: dict[Any, Any], delivery_id: str) -> None:
    """One delivery: read it, decide, write it, commit."""
    database: Postgresql | Sqlite = ctx["database"]
    async with database.transaction() as run:
        statement, stored_id = database.delivery(delivery_id)
        encoding, body = (await run(statement, stored_id))[0]
        report = read_report(unpack(encoding, body))
        task_id, run_id, attempt, to_charge = (await run(TASK, report.idempotency_key))[0]
        charged, now_ms = to_micro(report.charged), time.time_ns() // 1_000_000
        status = "completed" if report.completed else "failed"
        verdict = "matched" if charged == to_charge else "overcharged"
        await run(UPDATE, status, charged, verdict, now_ms, task_id, attempt)
        await run(LEDGER, now_ms, run_id, task_id, attempt, charged, stored_id)
        await run(DONE, task_id, attempt, stored_id)
        answer = report.response
        (seq,) = (await run(NUMBER))[0]
        hashed = hashlib.sha256(answer).digest()
        await run(RESULT, task_id, attempt, stored_id, status, now_ms, len(answer), hashed, seq)


async def serve() -> None:
    """Work until ended."""
    url = os.environ["DATABASE_URL"]
    database: Postgresql | Sqlite
    if url.startswith("sqlite"):
        connection = await aiosqlite.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
            await connection.execute(f"PRAGMA {pragma}")
        database = Sqlite(connection)
    else:
        database = Postgresql(await asyncpg.create_pool(url, min_size=POOL_SIZE, max_size=POOL_SIZE))
    worker = Worker(
        functions=[func(settle_one, name="settle", keep_result=0)],
        redis_settings=RedisSettings.from_dsn(os.environ["REDIS_URL"]),
        ctx={"database": database},
        max_jobs=MAX_JOBS,
        poll_delay=POLL_DELAY_S,
        keep_result=0,
        handle_signals=False,
    )
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await worker.main()


if __name__ == "__main__":
    uvloop.run(serve())
