"""Carries out bulk changes that were confirmed, in whichever worker holds the lease. The lease spares work
and no more: each chunk is one's, whoever does it.
"""

import uuid

import structlog

from app.domain.bulk_change import PROPOSED_FOR_MS, BulkChange
from app.domain.task import new_id
from app.services.bulk_changes import carry_out
from workers.context import Context
from workers.periodic import run_every

log = structlog.get_logger(__name__)

LEASE = "bulk_changes"
LEASE_MS = 60_000
TURN_MS = 20_000
"""Then it is another worker's turn, if there is one, and else the next one of this."""
EVERY_S = 2.0
FORGET_EVERY_MS = PROPOSED_FOR_MS


async def run_bulk_changes(context: Context) -> None:
    """Look every few seconds until the process stops."""
    owner = uuid.uuid4().hex
    forgot_ms = 0

    async def turn() -> None:
        nonlocal forgot_ms
        await carry_out_all(context, owner)
        now = context.clock()
        if now - forgot_ms >= FORGET_EVERY_MS:
            forgot_ms = now
            await context.store.bulk_changes.forget_proposals(new_id(now - PROPOSED_FOR_MS, 0))

    await run_every(
        turn, name="bulk_changes", every_s=EVERY_S, stopping=context.stopping, watch=context.signals
    )


async def carry_out_all(context: Context, owner: str) -> None:
    """One turn: all that is to be done, the oldest first; nothing while another worker does it."""
    store, now = context.store, context.clock()
    # Read first: as a rule there is nothing to do, and nothing is written then.
    waiting = await store.bulk_changes.running_changes()
    if not waiting or not await store.runs.acquire_lease(LEASE, owner, until_ms=now + LEASE_MS, now_ms=now):
        return

    def is_over() -> bool:
        return context.stopping.is_set() or context.clock() >= now + TURN_MS

    try:
        for change_id in waiting:
            _tell(await carry_out(store, change_id, clock=context.clock, is_stopping=is_over))
    finally:
        await store.runs.release_lease(LEASE, owner)


def _tell(change: BulkChange | None) -> None:
    if change is None or change.finished_at_ms is None:
        return
    log.info(
        "bulk_change_finished",
        id=change.id,
        verb=change.verb,
        changed=change.done.matched,
        of=change.proposed.matched,
        left=change.done.left_held + change.done.left_answered,
        reason=change.reason,
    )
