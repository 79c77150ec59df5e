"""Judges what polls say of webhooks that never came, in parallel with the sweep and far less often."""

import structlog

from app.provider.webhook_state import read_acknowledged
from app.services.lost_webhooks import LostWebhookSearch
from app.waiting import set_within
from workers.context import Context
from workers.periodic import run_every

log = structlog.get_logger(__name__)

LOOKS_PER_GRACE = 5


async def run_lost_webhook_search(context: Context) -> None:
    """Judge every so often until the process stops. Several workers may: what one noted no other notes."""
    settings = context.settings
    search: LostWebhookSearch = LostWebhookSearch(
        context.store,
        read_acknowledged,
        clock=context.clock,
        grace_ms=round(settings.ack_grace_s * 1000),
        look_back_ms=round(settings.retention_s * 1000),
    )

    async def judge() -> int:
        if lost := await search.judge():
            context.signals.note_lost(lost)
            log.error("lost_after_ack", deliveries=lost)
        return lost

    every_s = max(settings.sweep_every_s, settings.ack_grace_s / LOOKS_PER_GRACE)
    # The first look goes back a day; a process that is started over and over need not begin with it.
    await set_within(context.stopping, every_s)
    await run_every(judge, name="acked", every_s=every_s, stopping=context.stopping, watch=context.signals)
