"""Audits the accounts in parallel with the sweep: a provider that answers slowly must not hold the sweep
up."""

import uuid

import structlog

from app.domain.credits import to_json_number
from app.domain.notices.triggers import unexplained_drift
from app.services.audit import Audited, Audits
from app.services.isolated import Isolated
from workers.context import Context
from workers.periodic import run_every

log = structlog.get_logger(__name__)

LEASE = "audit"


async def run_audits(context: Context) -> None:
    """Audit what is due, in whichever worker holds the lease, until the process stops."""
    owner = uuid.uuid4().hex
    audits = Audits(
        context.store,
        context.providers,
        clock=context.clock,
        every_ms=round(context.settings.audit_every_s * 1000),
    )
    await run_every(
        lambda: audit_once(context, owner, audits),
        name="audits",
        every_s=context.settings.sweep_every_s,
        stopping=context.stopping,
    )


async def audit_once(context: Context, owner: str, audits: Audits) -> None:
    """One look at every account; nothing where another worker looks just now."""
    now = context.clock()
    until_ms = now + round(context.settings.sweep_lease_s * 1000)
    if not await context.store.runs.acquire_lease(LEASE, owner, until_ms=until_ms, now_ms=now):
        return
    isolated = Isolated()
    try:
        for found in await audits.audit_due(isolated):
            with isolated.alone():
                tell(found)
                if not found.drift.explained:
                    notice = unexplained_drift(found.account, found.drift.unexplained, found.at_ms)
                    await context.store.notices.add_notices([notice], context.clock())
    finally:
        await context.store.runs.release_lease(LEASE, owner)
    isolated.finish()


def tell(found: Audited) -> None:
    """One line for each entry booked, and one for credits that nobody can explain."""
    for entry in found.booked:
        log.info(
            "account_entry",
            account=found.account,
            kind=entry.kind.value,
            credits=to_json_number(entry.credits),
            reason=entry.reason,
        )
    if not found.drift.explained:
        log.warning(
            "drift",
            account=found.account,
            unexplained=to_json_number(found.drift.unexplained),
            exposure=to_json_number(found.drift.exposure),
        )
