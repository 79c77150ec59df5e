"""A worker and a receiver whose machines' clocks are wrong, as processes of their own."""

import os
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.provider.wire import read_answer
from app.store import Database, Store
from app.store.tables import deliveries, leases, tasks
from tests.conftest import StartValkey
from tests.e2e.stack import Stack

TASKS = 30
HOUR_MS = 3_600_000
WRONG_S = 90_000.0


async def test_f18_nothing_is_written_by_a_clock_that_is_25_hours_wrong(
    postgres_url: str, tmp_path: Path, start_valkey: StartValkey
) -> None:
    """Ahead or behind, when they start and in the middle: the offset changes while they run."""
    store = Store(Database(postgres_url), read_answer)
    stack = Stack(tmp_path, store, postgres_url, start_valkey(appendonly=False).url)
    stack.is_forked = True
    offset = tmp_path / "offset"
    offset.write_text(str(WRONG_S))
    right = dict(stack.env)
    # Long enough for each offset to be met by some readings of the clock, and no longer.
    stack.emulator_options = ["--time-scale", "4"]
    try:
        stack.start("emulator")
        stack.env = right | {
            "PYTHONPATH": os.pathsep.join(
                [str(Path(__file__).parent / "shifted_clock"), right.get("PYTHONPATH", "")]
            ),
            "SHIFTED_CLOCK_FILE": str(offset),
        }
        stack.start("web", "worker")
        await stack.submit(TASKS)
        await stack.until_settled(5)
        offset.write_text("0")
        await stack.until_settled(10)
        offset.write_text(str(-WRONG_S))
        await stack.until_settled(15)
        for name in ("web", "worker"):
            stack.end(name)
        stack.start("web", "worker")
        await stack.until_settled(22)
        offset.write_text(str(WRONG_S))
        await stack.until_finished()
        await stack.assert_books_equal(TASKS)
        now = await store.health.database_ms()

        async def furthest(connection: AsyncConnection) -> list[int]:
            columns = (
                tasks.c.first_sent_at_ms,
                tasks.c.submitted_at_ms,
                tasks.c.settled_at_ms,
                tasks.c.not_before_ms,
                deliveries.c.due_at_ms,
                deliveries.c.received_at_ms,
                leases.c.until_ms,
            )
            newest = [await connection.scalar(sa.select(sa.func.max(column))) for column in columns]
            first = await connection.scalar(sa.select(sa.func.min(tasks.c.first_sent_at_ms)))
            return [now - (first or 0), *((column or 0) - now for column in newest)]

        assert max(await store.db.read(furthest)) < HOUR_MS / 4
        seen = await store.health.last_seen("worker")
        assert seen.seen_ms is not None and abs(seen.now_ms - seen.seen_ms) < 60_000
    finally:
        stack.close()
        await store.close()
