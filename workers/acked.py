"""Judges what polls say of webhooks that never came, beside the sweep and far less often."""

import asyncio
import contextlib

import structlog

from app.ports import StoreUnavailable
from app.provider.acknowledged import read_acknowledged
from app.services.acked import Acked
from app.store.polling import LonePoll
from workers.jobs import Context

log = structlog.get_logger(__name__)

LOOKS_PER_GRACE = 5


async def run_acked(context: Context) -> None:
    """Judge every so often until told to stop. Several workers may: what one has noted no other notes."""
    settings = context.settings
    acked: Acked[LonePoll] = Acked(
        context.store, read_acknowledged, clock=context.clock, grace_ms=round(settings.ack_grace_s * 1000),
        look_back_ms=round(settings.retention_s * 1000),
    )  # fmt: skip
    while not context.stopping.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(settings.sweep_every_s, settings.ack_grace_s / LOOKS_PER_GRACE)):
                await context.stopping.wait()
                return
        try:
            if lost := await acked.judge():
                log.error("lost_after_ack", deliveries=lost)
        except StoreUnavailable as error:
            log.warning("store_unavailable", error=str(error)[:200])
        except Exception:
            log.exception("acked_failed")
