"""Audits the accounts in parallel with the sweep: a provider that answers slowly must not hold the sweep
up."""

import contextlib
import uuid

import structlog

from app.domain.credits import to_json_number
from app.domain.notices.triggers import unexplained_drift
from app.domain.state_gauges import Reading
from app.ports import StoreUnavailable
from app.services.audit import Audited, Audits
from app.services.isolated import Isolated
from app.views.sheets import make_sheet
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
    drift: dict[str, Reading] = {}
    try:
        await run_every(
            lambda: audit_once(context, owner, audits, drift),
            name="audits",
            every_s=context.settings.sweep_every_s,
            stopping=context.stopping,
            watch=context.signals,
        )
    finally:
        context.signals.board.drop(LEASE)
        with contextlib.suppress(StoreUnavailable):
            await context.store.runs.release_lease(LEASE, owner)


async def audit_once(context: Context, owner: str, audits: Audits, drift: dict[str, Reading]) -> int:
    """One look at every account; nothing where another worker looks. How many were audited. `drift`: the
    caller's, by account, for what the audits before found. The lease is kept from turn to turn: one worker
    knows when each account was audited last."""
    now, lease_s, board = context.clock(), context.settings.sweep_lease_s, context.signals.board
    until_ms = now + round(lease_s * 1000)
    if not await context.store.runs.acquire_lease(LEASE, owner, until_ms=until_ms, now_ms=now):
        drift.clear()
        board.drop(LEASE)
        return 0
    isolated = Isolated()
    audited = await audits.audit_due(isolated)
    for found in audited:
        with isolated.alone():
            tell(found)
            unexplained = found.drift.unexplained
            drift[found.account] = Reading("drift_credits", float(unexplained), {"account": found.account})
            if not found.drift.explained:
                notice = unexplained_drift(found.account, unexplained, found.at_ms)
                await context.store.notices.add_notices([notice], context.clock())
        with isolated.alone():
            settings = context.settings.all_accounts().get(found.account)
            sheet = await make_sheet(
                context.store,
                found,
                provider=context.providers.get(found.account),
                rate_per_s=settings.rate_per_s if settings else None,
            )
            await context.store.account_sheets.keep_sheet(sheet)
    board.put(LEASE, drift.values(), for_s=lease_s)
    isolated.finish()
    return len(audited)


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
