"""Judges what polls say of webhooks that never came, beside the sweep and far less often."""

import structlog

from app.provider.webhook_state import read_acknowledged
from app.services.lost_webhooks import Acked
from app.store.write.polls import LonePoll
from workers.jobs import Context
from workers.periodic import pause, repeat

log = structlog.get_logger(__name__)

LOOKS_PER_GRACE = 5


async def run_acked(context: Context) -> None:
    """Judge every so often until told to stop. Several workers may: what one has noted no other notes."""
    settings = context.settings
    acked: Acked[LonePoll] = Acked(
        context.store, read_acknowledged, clock=context.clock, grace_ms=round(settings.ack_grace_s * 1000),
        look_back_ms=round(settings.retention_s * 1000),
    )  # fmt: skip

    async def judge() -> None:
        if lost := await acked.judge():
            log.error("lost_after_ack", deliveries=lost)

    every_s = max(settings.sweep_every_s, settings.ack_grace_s / LOOKS_PER_GRACE)
    # The first look goes back a day; a process that is started over and over need not begin with it.
    await pause(every_s, context.stopping)
    await repeat(judge, name="acked", every_s=every_s, stopping=context.stopping)
