"""Sees to it that deliveries have their partitions, days before they come. Nothing to do on SQLite."""

import uuid

import structlog

from app.store.partitioning import drop_stale_check
from app.store.write.partitions import AHEAD_DAYS
from workers.context import Context
from workers.periodic import run_every

log = structlog.get_logger(__name__)

LEASE = "partitions"
LEASE_MS = 300_000
EVERY_S = 900.0
"""Partitions are made a week ahead; where somebody reads for long it is tried again within the hour."""


async def run_partitions(context: Context) -> None:
    """Look every so often until the process stops, in whichever worker holds the lease."""
    if context.store.db.is_sqlite:
        await context.stopping.wait()
        return
    owner = uuid.uuid4().hex
    await run_every(
        lambda: look_ahead(context, owner),
        name="partitions",
        every_s=EVERY_S,
        stopping=context.stopping,
        watch=context.signals,
    )


async def look_ahead(context: Context, owner: str) -> None:
    """Make what is missing; nothing while another worker does."""
    store, now = context.store, context.clock()
    if not await store.runs.acquire_lease(LEASE, owner, until_ms=now + LEASE_MS, now_ms=now):
        return
    try:
        if await drop_stale_check(store.db, now):
            log.warning("unfinished_upgrade_undone")
        if made := await store.partitions.add_partitions(now):
            log.info("partitions_made", partitions=made)
        state = await store.partitions.partition_state(now)
        if state is not None and (state.days_ahead < AHEAD_DAYS or state.has_rows_in_default):
            log.warning(
                "partitions_missing", days_ahead=state.days_ahead, rows_in_default=state.has_rows_in_default
            )
    finally:
        await store.runs.release_lease(LEASE, owner)
