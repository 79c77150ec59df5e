"""Settles deliveries in this process, chunk by chunk, for the jobs and for the sweep."""

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from app import tracing
from app.provider.wire import read_report
from app.services.settle import SettleSummary, settle
from workers.context import Context

log = structlog.get_logger(__name__)

ERROR_CHARS_MAX = 200


async def settle_now(
    context: Context, ids: Sequence[str], *, slots: asyncio.Semaphore | None = None
) -> SettleSummary:
    """Settle in this process, in transactions of bounded size. `slots` bounds how many run at once; None: all
    jobs of the process share one bound."""
    size = context.settings.settle_size
    total = SettleSummary()
    for start in range(0, len(ids), size):
        chunk_ids = ids[start : start + size]
        of_all = (tracing.of_delivery(delivery_id) for delivery_id in chunk_ids)
        async with slots or context.settle_slots:
            with tracing.span("settle group", links=of_all, deliveries=len(chunk_ids)):
                chunk = await settle(
                    context.store,
                    read_report,
                    chunk_ids,
                    clock=context.clock,
                    unmatched_ms=round(context.settings.unmatched_s * 1000),
                )
                _tell(context, chunk)
        total.merge(chunk)
    log.info("settled", deliveries=len(ids), settled=total.settled, quarantined=total.quarantined)
    return total


def _tell(context: Context, chunk: SettleSummary) -> None:
    context.signals.note_settled(chunk)
    log_set_aside(chunk.set_aside)
    for delivery_id, error in chunk.held_up.items():
        # The message of a rule's error may quote an answer: only its type is logged.
        reason = error if error.startswith("Store") else error.split(": ")[0]
        log.error("delivery_held_up", id=delivery_id, error=reason[:ERROR_CHARS_MAX])


def log_set_aside(errors: Mapping[str, str]) -> None:
    """One line for each delivery that waits for a person from now on."""
    for delivery_id, error in errors.items():
        log.error("delivery_set_aside", id=delivery_id, error=error[:ERROR_CHARS_MAX])
