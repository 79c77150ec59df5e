"""The sweep, on a timer that needs no Redis, in whichever worker holds the lease."""

import asyncio
import functools
import uuid

import structlog

from app import tracing
from app.services.funding import Funding
from app.services.isolated import Isolated
from app.services.sweep import SweepSummary, sweep
from workers.context import Context
from workers.duties.heartbeat import longest_times
from workers.periodic import run_every
from workers.sending import reachability_of
from workers.settling import log_set_aside, settle_now

log = structlog.get_logger(__name__)


async def run_sweep(context: Context) -> None:
    """Sweep every few seconds until `context.stopping`."""
    owner = uuid.uuid4().hex
    unreleased: set[str] = set()
    funding = Funding(
        context.store,
        context.providers,
        clock=context.clock,
        probe_ms=round(context.settings.credits_probe_s * 1000),
    )
    await run_every(
        lambda: _traced_sweep(context, owner, funding, unreleased),
        name="sweep",
        every_s=context.settings.sweep_every_s,
        stopping=context.stopping,
        watch=context.signals,
    )


async def _traced_sweep(context: Context, owner: str, funding: Funding, unreleased: set[str]) -> int:
    with tracing.span("sweep") as span:
        found = await _sweep_once(context, owner, funding, unreleased)
        span.set(found=found)
    return found


async def _sweep_once(context: Context, owner: str, funding: Funding, unreleased: set[str]) -> int:
    """How much was found to do."""
    now = context.clock()
    until_ms = now + round(context.settings.sweep_lease_s * 1000)
    if not await context.store.runs.acquire_lease("sweep", owner, until_ms=until_ms, now_ms=now):
        return 0
    own_slot, isolated, summary = asyncio.Semaphore(), Isolated(), SweepSummary()
    try:
        with isolated.alone():
            if moved := await context.store.future_times.bring_back_times(
                now, longest_times(context.settings)
            ):
                log.warning("future_times_reset", count=moved)
        with isolated.alone():
            summary = await sweep(
                context.store,
                context.providers,
                # Not behind the jobs: they may all hang.
                lambda ids: settle_now(context, ids, slots=own_slot),
                limits=context.settings,
                clock=context.clock,
                unreleased=unreleased,
                reach=functools.partial(reachability_of, context),
                isolated=isolated,
            )
        with isolated.alone():
            if resumed := await funding.resume_due():
                log.info("resumed", runs=resumed)
    finally:
        await context.store.runs.release_lease("sweep", owner)
    context.signals.note_sweep(summary)
    if not summary.is_idle():
        log_set_aside(summary.set_aside)
        figures = {name: getattr(summary, name) for name in summary.__slots__}
        log.info("swept", **figures | {"set_aside": len(summary.set_aside)})
    isolated.finish()
    return summary.claims_released + summary.deliveries + summary.polled + summary.unidentified
