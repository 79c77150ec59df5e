"""A new run beside a history of 10,000,000 tasks in PostgreSQL: `make bench-history`.

Two databases: an empty one, and one whose deliveries lie in 92 partitions of a day, with every other row that
settled tasks have. Both get a run of their own; claim, record, settle, sweep and report take turns as in
benchmarks/growth.py. Then days are dropped while somebody stores deliveries without a pause. Ends with 1 when
an operation needs more than a fifth more than in the empty database, dropping a day takes a second, or a
writer waits for it longer than WAIT_MAX_S.

Needs 25 GB of disk, and ten minutes of two quiet cores, most for the rows. `--tasks 200000` is a minute.
"""

import argparse
import asyncio
import itertools
import json
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]

from app.domain.delivery import RawDelivery
from app.domain.settlement import Source
from app.domain.task import new_id
from app.store import Database, Store
from benchmarks.growth import measure, opened
from benchmarks.old_tasks import DAY_MS, DAYS, OLD_MS, START_MS, add_history, drop_indexes, execute
from tests.servers.postgres import PostgresServer

RESULTS = Path(__file__).parent / "results" / "history.json"
TASK_BYTES = 2_500
"""Of disk for each old task: its rows and indexes, and what sorting these takes meanwhile."""
DROPPED = 5
"""Days; the figures are those of the slowest."""
DROP_MAX_S = 1.0
WAIT_MAX_S = 0.5
"""The lock is waited for a quarter of a second at most, and others behind it; then comes the drop itself."""
WRITTEN_TOGETHER = 20
USED_UP = "ALTER TABLE tasks SET (fillfactor = 90)"
"""Rows that are loaded at once leave a remainder on each page, where a shorter row finds room: each one of
the run that is measured on a page of its own, 5,000 on 2,350. A table that grew by runs has used them up:
there 5,000 lie on 270, however long it is. So the pages of the history take no more."""
BETWEEN_DROPS_S = 1.0


async def fill(store: Store, options: argparse.Namespace) -> None:
    """The history, its days and statistics as a server has them after a while."""
    await make_days(store)
    indexes = await drop_indexes(store.db)
    await add_history(store, tasks=options.tasks, runs=options.runs, paused=options.paused)
    await execute(store.db, [USED_UP])
    for definition in indexes:
        await execute(store.db, ["SET LOCAL maintenance_work_mem = '512MB'", definition])
    await vacuum(store.db)


async def make_days(store: Store) -> None:
    """A partition for each day of the history: a new database has one for all that is older than it is."""
    for partition in await store.partitions.partitions():
        if not partition.from_ms:
            assert await store.partitions.drop_partition(partition)
    for day_ms in range(OLD_MS + DAY_MS, START_MS + DAY_MS, DAY_MS):  # each makes that of the day before
        await store.partitions.add_partitions(day_ms)


async def vacuum(db: Database) -> None:
    """Not in a transaction, and as long as it takes."""
    connection = await asyncpg.connect(db.url)
    try:
        await connection.execute("VACUUM (ANALYZE)")
    finally:
        await connection.close()


@dataclass
class Writer:
    """Stores deliveries one group after the other, and knows how long each took."""

    store: Store
    over: asyncio.Event = field(default_factory=asyncio.Event)
    seconds: list[float] = field(default_factory=list)

    async def write(self) -> None:
        """Until it is over."""
        for n in itertools.count():
            if self.over.is_set():
                return
            now_ms = START_MS + n
            group = [
                RawDelivery(new_id(now_ms), Source.DELIVERY, now_ms, b"{}") for _ in range(WRITTEN_TOGETHER)
            ]
            started = time.perf_counter()
            await self.store.inbox.store_deliveries(group, due_at_ms=now_ms + DAY_MS)
            self.seconds.append(time.perf_counter() - started)

    def longest_ms(self) -> float:
        """Since it was last asked."""
        longest_s, self.seconds = max(self.seconds, default=0.0), []
        return round(longest_s * 1_000, 1)


async def drop_days(store: Store) -> dict[str, Any]:
    """Drop the oldest days beside a writer."""
    writer = Writer(store)
    writing = asyncio.create_task(writer.write())
    seconds, alone_ms, beside_ms = [], [], []
    try:
        for partition in (await store.partitions.partitions())[:DROPPED]:
            await asyncio.sleep(BETWEEN_DROPS_S)
            alone_ms.append(writer.longest_ms())
            started = time.perf_counter()
            dropped = await store.partitions.drop_partition(partition)
            seconds.append(round(time.perf_counter() - started, 3))
            assert dropped, "nobody holds a lock for so long"
            await asyncio.sleep(0.1)  # the write that the lock was in the way of has ended
            beside_ms.append(writer.longest_ms())
    finally:
        writer.over.set()
        await writing
    return {
        "drop_s": {"median": statistics.median(seconds), "longest": max(seconds)},
        "longest_write_ms": {"alone": max(alone_ms), "beside_a_drop": max(beside_ms)},
        "drops_within": max(seconds) < DROP_MAX_S and max(beside_ms) < WAIT_MAX_S * 1_000,
    }


async def measured(server: PostgresServer, options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as a document."""
    started = time.perf_counter()
    async with opened([server.create_database() for _ in range(2)]) as stores:
        await fill(stores[1], options)
        loaded_s = time.perf_counter() - started
        figures = {
            "old_tasks": options.tasks,
            "old_runs": options.runs,
            "paused_tasks": options.paused,
            "days": DAYS,
            "loaded_s": round(loaded_s),
            "database_gb": round(await _size_bytes(stores[1].db) / 1e9, 2),
        }
        return figures | await measure(stores, options.rounds) | await drop_days(stores[1])


async def _size_bytes(db: Database) -> int:
    connection = await asyncpg.connect(db.url)
    try:
        return int(await connection.fetchval("SELECT pg_database_size(current_database())"))
    finally:
        await connection.close()


def main() -> int:
    """Measure, print, keep; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--paused", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--keep", action="store_true", help=f"write to {RESULTS.name}")
    options = parser.parse_args()
    free_bytes = shutil.disk_usage(tempfile.gettempdir()).free
    if free_bytes < options.tasks * TASK_BYTES:
        print(
            f"{tempfile.gettempdir()} has {free_bytes / 1e9:.0f} GB free and this needs"
            f" {options.tasks * TASK_BYTES / 1e9:.0f}: set TMPDIR to another disk, or --tasks to fewer."
        )
        return 2
    server = PostgresServer(durable=True)
    server.start()
    try:
        found = asyncio.run(measured(server, options))
    finally:
        server.stop()
    document = json.dumps(found, indent=2) + "\n"
    sys.stdout.write(document)
    if options.keep:
        RESULTS.write_text(document)
    return 0 if found["within"] and found["drops_within"] else 1


if __name__ == "__main__":
    sys.exit(main())
