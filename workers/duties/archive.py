"""Archives the days that are over, where an archive is set. Deletes nothing."""

import uuid

import structlog

from app.bootstrap import open_archive
from app.domain.time_format import DAY_MS
from app.ports import BlockDamaged, ObjectsRefused, ObjectsUnavailable
from app.services.archive import archive_days
from workers.context import Context
from workers.periodic import run_every

log = structlog.get_logger(__name__)

LEASE = "archive"
LEASE_MS = 3_600_000
"""A day of 50,000 deliveries takes a minute or two. Whoever takes over a lease that is over finds out at its
first block that another one was recorded."""
EVERY_S = 600.0
DAYS_MAX = 3
"""Of one turn; after an outage of the storage the rest follows in the next ones."""


async def run_archive(context: Context) -> None:
    """Look every so often until the process stops, in whichever worker holds the lease."""
    if not context.settings.archive_url:
        await context.stopping.wait()
        return
    owner = uuid.uuid4().hex
    await run_every(
        lambda: archive_due_days(context, owner),
        name="archive",
        every_s=EVERY_S,
        stopping=context.stopping,
        within_s=LEASE_MS / 1000,
        watch=context.signals,
    )


async def archive_due_days(context: Context, owner: str) -> int:
    """Archive up to `DAYS_MAX` days; nothing while another worker does. Trouble of the storage is logged, and
    the next turn tries again. How many deliveries."""
    store, now, deliveries = context.store, context.clock(), 0
    if not await store.runs.acquire_lease(LEASE, owner, until_ms=now + LEASE_MS, now_ms=now):
        return 0
    until_ms = now - context.settings.archive_after_days * DAY_MS
    try:
        archive = open_archive(context.settings)
        if archive is None:
            return 0
        async for day in archive_days(
            store, archive, until_ms=until_ms, days_max=DAYS_MAX, clock=context.clock
        ):
            deliveries += day.deliveries
            log.info(
                "day_archived",
                day_ms=day.day_ms,
                deliveries=day.deliveries,
                bytes=day.block_bytes,
                left_out=day.left_out,
            )
            if day.unreadable:
                log.warning("bodies_unreadable", day_ms=day.day_ms, ids=day.unreadable[:10])
    except (ObjectsUnavailable, ObjectsRefused, BlockDamaged) as error:
        log.warning("archive_unavailable", error=str(error)[:300])
    finally:
        await store.runs.release_lease(LEASE, owner)
    return deliveries
