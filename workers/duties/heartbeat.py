"""Says that this worker runs, and keeps its clock by the database's."""

import asyncio
import contextlib
import uuid

import structlog

from app.config import Settings
from app.database_clock import EVERY_S, DatabaseClock
from app.domain.notices.notice import RETRY_MAX_MS
from app.ports import StoreUnavailable
from app.store.write.future_times import Longest
from app.store.write.polls import POLL_BACKOFF_STEPS
from app.waiting import set_within
from workers.context import Context
from workers.periodic import run_every

log = structlog.get_logger(__name__)

KIND = "worker"
AGAIN_S = 1.0


async def read_time(context: Context, clock: DatabaseClock) -> None:
    """Wait for the database's time, before anything is written by this machine's; or until a stop."""
    while not context.stopping.is_set():
        try:
            await clock.read(context.store.health.database_ms)
        except StoreUnavailable as error:
            log.warning("store_unavailable", work="read_time", error=str(error)[:200])
            await set_within(context.stopping, AGAIN_S)
        else:
            return


async def run_alive(context: Context, clock: DatabaseClock | None = None) -> None:
    """Every few seconds until the process stops."""
    process_id = str(uuid.uuid4())

    async def beat() -> None:
        address = context.address.announced if context.address is not None else None
        if clock is None:
            await context.store.health.beat(process_id, KIND, address)
        else:
            await clock.read(lambda: context.store.health.beat(process_id, KIND, address))
        context.beat_s = asyncio.get_running_loop().time()
        if context.address is not None and address:
            await context.address.refresh()  # `web` may be elsewhere by now

    await run_every(beat, name="alive", every_s=EVERY_S, stopping=context.stopping, watch=context.signals)
    # Whoever looks need not wait until it is missed; with a database that is away they must.
    with contextlib.suppress(Exception):
        async with asyncio.timeout(AGAIN_S):
            await context.store.health.end_process(process_id, KIND)


def longest_times(settings: Settings) -> Longest:
    """How far ahead each kind of time may lie, by the settings."""
    poll_s = max(settings.poll_after_s, settings.poll_every_s * POLL_BACKOFF_STEPS)
    return Longest(
        claim=round(settings.claim_lease_s * 1000),
        poll=round(poll_s * 1000),
        ask=round(settings.retention_s * 1000),
        delivery=round(settings.sweep_after_s * 1000),
        notice=RETRY_MAX_MS,
    )
