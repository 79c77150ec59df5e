"""The history that pages are measured beside: a few long runs with all their rows, and many short ones; made
by several connections at a time, without the indexes, which come last."""

import asyncio
from collections.abc import Sequence

import asyncpg  # type: ignore[import-untyped]

from app.domain.task import new_id
from app.store import Store
from benchmarks.old_tasks import DAY_MS, DAYS, MICRO, OLD_MS, START_MS, STRETCH, Rows, Words, drop_indexes

LONG_RUNS = 10
"""So that one has 500,000 tasks of 5,000,000: a page within it is a deep one."""
SHORT_RUNS = 2_000
FINDINGS = 100_000
TOGETHER = 4
"""Connections that write."""
_REFERENCES = """
    SELECT conrelid::regclass::text AS name, conname, pg_get_constraintdef(oid) AS said FROM pg_constraint
    WHERE contype = 'f' AND conrelid = 'tasks'::regclass
"""


async def add_page_history(store: Store, count: int) -> None:
    """`count` settled tasks of LONG_RUNS runs, short runs without tasks, findings; with statistics."""
    for partition in await store.partitions.partitions():
        if not partition.from_ms:
            assert await store.partitions.drop_partition(partition)
    for day_ms in range(OLD_MS + DAY_MS, START_MS + 2 * DAY_MS, DAY_MS):
        await store.partitions.add_partitions(day_ms)
    words, each = Words(False, max(1, DAYS * DAY_MS // count)), count // LONG_RUNS
    runs = [
        await store.runs.create_run(name=f"long {n}", source="-", budget=None, now_ms=words.ms_of(n * each))
        for n in range(LONG_RUNS)
    ]
    indexes = await drop_indexes(store.db)
    references = await _references(store)
    await _together(store, [f"ALTER TABLE {name} DROP CONSTRAINT {key}" for name, key, _ in references])
    stretches = [
        Rows(words, run_id, n * each, n * each + first, min(STRETCH, each - first))
        for first in range(0, each, STRETCH)
        for n, run_id in enumerate(runs)
    ]
    await _together(store, [statement for rows in stretches for statement in rows.settled()])
    await _together(store, indexes)
    # They hold; nobody has to look through the rows once more.
    await _together(
        store, [f"ALTER TABLE {t} ADD CONSTRAINT {k} {said} NOT VALID" for t, k, said in references]
    )
    await _together(store, _others(count))
    while await store.spending.fold_spending() or await store.rollup.fold_rollup():
        pass
    await _together(store, ["VACUUM (ANALYZE)"])


def _others(count: int) -> list[str]:
    short = ", ".join(
        f"('{new_id(OLD_MS + n, n)}', 'short {n}', '-', 'finished', {OLD_MS + n}, 'default')"
        for n in range(SHORT_RUNS)
    )
    return [
        f"INSERT INTO runs (id, name, source, state, created_at_ms, account) VALUES {short}",
        f"UPDATE runs SET state = 'finished', finished_at_ms = {START_MS - 1} WHERE state = 'loading'",
        f"UPDATE settle_sequence SET value = {count}",
        "INSERT INTO findings (at_ms, run_id, task_id, attempt, verdict, expected, actual, detail)"
        f" SELECT {START_MS}, run_id, id, 1, 'overcharged', {MICRO}, {2 * MICRO}, 'more than expected'"
        f" FROM tasks WHERE ordinal <= {FINDINGS // LONG_RUNS}",
        "INSERT INTO deliveries (id, source, account, received_at_ms, encoding, body, state, error, tries,"
        f" due_at_ms) VALUES (gen_random_uuid(), 'delivery', 'default', {START_MS}, 'identity', '{{}}',"
        " 'quarantined', 'no such field', 3, 1)",
    ]


async def _references(store: Store) -> list[tuple[str, str, str]]:
    connection = await asyncpg.connect(store.db.url)
    try:
        return [(row["name"], row["conname"], row["said"]) for row in await connection.fetch(_REFERENCES)]
    finally:
        await connection.close()


async def _together(store: Store, statements: Sequence[str]) -> None:
    """Each in a transaction of its own, TOGETHER at a time."""
    left = list(reversed(statements))

    async def work() -> None:
        connection = await asyncpg.connect(store.db.url)
        try:
            await connection.execute("SET maintenance_work_mem = '512MB'")
            while left:
                await connection.execute(left.pop(), timeout=None)
        finally:
            await connection.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(min(TOGETHER, len(statements))):
            group.create_task(work())
