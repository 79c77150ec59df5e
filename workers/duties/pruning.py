"""Prunes in parallel with the sweep, in whichever worker holds the lease, where the policy asks for it."""

import asyncio
import uuid

import structlog

from app.bootstrap import open_archive
from app.services.in_archive import InArchive
from app.services.prune import Pruner
from app.store.write.receipts import Dropped
from workers.context import Context
from workers.periodic import run_every

log = structlog.get_logger(__name__)

LEASE = "prune"
EVERY_S = 3_600.0
"""A day becomes old enough once a day; an hour later is soon enough."""
TURN_S = 120.0
"""A turn goes on no longer; the next one goes on behind it. A day of 50,000 deliveries takes PostgreSQL some
seconds, SQLite in batches some ten."""
LEASE_MS = 600_000
"""Above the longest turn: TURN_S, and the day that it ends with, whose blocks are read from the archive."""
PAUSE_S = 0.05
"""Between two batches: SQLite has one writer, and settlement is meant to have most of its time."""


async def run_pruning(context: Context) -> None:
    """Prune what is due, once an hour, until the process stops."""
    policy = context.settings.keep_days()
    if not policy:  # nobody's data is deleted unasked
        await context.stopping.wait()
        return
    archive = open_archive(context.settings)
    owner, until_s, monotonic_s = uuid.uuid4().hex, [0.0], asyncio.get_running_loop().time
    pruner = Pruner(
        context.store,
        policy,
        clock=context.clock,
        pause=lambda: asyncio.sleep(PAUSE_S),
        place=None if archive is None else InArchive(context.store, archive),
        is_over=lambda: context.stopping.is_set() or monotonic_s() > until_s[0],
    )

    async def turn() -> int:
        until_s[0] = monotonic_s() + TURN_S
        return await prune_once(context, owner, pruner)

    await run_every(
        turn,
        name="pruning",
        every_s=EVERY_S,
        stopping=context.stopping,
        within_s=LEASE_MS / 1000,
        watch=context.signals,
    )


async def prune_once(context: Context, owner: str, pruner: Pruner) -> int:
    """One turn; nothing where another worker prunes just now. How many rows went."""
    now, rows = context.clock(), 0
    if not await context.store.runs.acquire_lease(LEASE, owner, until_ms=now + LEASE_MS, now_ms=now):
        return 0
    try:
        for dropped in await pruner.turn():
            rows += dropped.rows
            tell(dropped)
        for day_ms, reason in pruner.held.items():
            log.warning("pruning_held_up", day_ms=day_ms, error=reason[:300])
    finally:
        await context.store.runs.release_lease(LEASE, owner)
    return rows


def tell(dropped: Dropped) -> None:
    """One line for each kind and day of which something went."""
    log.info(
        "pruned",
        kind=dropped.kind.value,
        day_ms=dropped.day_ms,
        rows=dropped.rows,
        body_bytes=dropped.body_bytes,
        kept=dropped.kept.total(),
    )
