"""Settling: read raw reports, decide, apply. Deliveries and polls both end here (DESIGN sections 1 and 4)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from app.domain.delivery import ParsedDelivery, RawDelivery
from app.domain.pricing import explained_extra
from app.domain.run_reason import NO_CREDITS as OUT_OF_CREDITS
from app.domain.settlement import Attempt, Circumstances, Effect, Settlement, Source
from app.domain.settlement import settle as decide_settlement
from app.domain.task import RunState
from app.ports import Clock, ReadReport, SettleStore, StoreUnavailable

RACED_PASSES = 3
"""A delivery whose task changed under it is looked at again; after this often the sweep has it."""
NO_CREDITS = "INSUFFICIENT_CREDITS"
"""The error of a task that the account could not pay for when its turn came (C-H)."""


@dataclass(slots=True)
class SettleSummary:
    """What one call did."""

    settled: int = 0
    quarantined: int = 0
    left: int = 0
    """Raced to the end; the sweep looks again."""
    verdicts: dict[str, int] = field(default_factory=dict)
    broke: set[str] = field(default_factory=set)
    """Runs of which a task failed because the account had no credits left (S11)."""


async def settle(
    store: SettleStore,
    read_report: ReadReport,
    delivery_ids: Sequence[str],
    *,
    clock: Clock,
    unmatched_ms: int,
) -> SettleSummary:
    """Settle the deliveries that still wait. One that cannot be read, or that makes its batch fail, is
    quarantined alone with its error; the rest settle. Raises StoreUnavailable, and then nothing is lost."""
    summary = SettleSummary()
    for _ in range(RACED_PASSES):
        # The raw bodies are let go at once: what is needed of them is in the reports.
        parsed, errors = _parse(await store.waiting_deliveries(delivery_ids), read_report)
        await store.quarantine_deliveries(errors)
        summary.quarantined += len(errors)
        summary.left = await _apply(store, parsed, clock, unmatched_ms, summary)
        if not summary.left:
            break
    for run_id in sorted(summary.broke):
        # Accepted is not funded (P12): what is sent now would fail in the same way.
        await store.halt_run_if_running(run_id, RunState.PAUSED, OUT_OF_CREDITS)
    return summary


def _parse(
    raw: Sequence[RawDelivery], read_report: ReadReport
) -> tuple[list[ParsedDelivery], list[tuple[str, str]]]:
    parsed, errors = [], []
    for delivery in raw:
        try:
            report = read_report(delivery.body)
        except Exception as error:
            errors.append((delivery.id, f"{type(error).__name__}: {error}"))
        else:
            parsed.append(
                ParsedDelivery(
                    delivery.id, delivery.source, delivery.received_at_ms, report, delivery.account
                )
            )
    return parsed, errors


async def _apply(
    store: SettleStore,
    parsed: Sequence[ParsedDelivery],
    clock: Clock,
    unmatched_ms: int,
    summary: SettleSummary,
) -> int:
    """Apply one batch; halve it when it fails, until the poison delivery stands alone. How many raced."""
    if not parsed:
        return 0
    now = clock()

    def deciding(delivery: ParsedDelivery, attempt: Attempt, stored: bytes | None) -> Settlement:
        settlement = decide(delivery, attempt, stored)
        if settlement.effect is Effect.SETTLED and delivery.report.error_code == NO_CREDITS:
            summary.broke.add(attempt.run_id)
        return settlement

    try:
        count = await store.settle_deliveries(
            parsed, deciding, now_ms=now, unmatched_until_ms=now - unmatched_ms
        )
    except StoreUnavailable:
        raise
    except Exception as error:
        if len(parsed) == 1:
            await store.quarantine_deliveries([(parsed[0].id, f"{type(error).__name__}: {error}")])
            summary.quarantined += 1
            return 0
        half = len(parsed) // 2
        first = await _apply(store, parsed[:half], clock, unmatched_ms, summary)
        return first + await _apply(store, parsed[half:], clock, unmatched_ms, summary)
    summary.settled += len(parsed) - count.raced
    for verdict, n in count.verdicts.items():
        summary.verdicts[verdict] = summary.verdicts.get(verdict, 0) + n
    return count.raced


def decide(delivery: ParsedDelivery, attempt: Attempt, stored: bytes | None) -> Settlement:
    """The decision on one report, with the two facts that need the answer's content: what it explains on
    top of the estimate, and whether it equals the one already stored. Both are rarely asked for."""
    response = delivery.report.response
    extra = Decimal(0)
    if attempt.task_type == "AIMODE" and delivery.report.completed:
        extra = explained_extra(attempt.task_type, _object(attempt.payload_json), _object(response))
    same = attempt.reported is not None and stored is not None and _same_json(stored, response)
    circumstances = Circumstances(delivery.received_at_ms, sync=delivery.source == Source.SYNC)
    return decide_settlement(
        attempt, delivery.report, extra=extra, same_response=same, circumstances=circumstances
    )


def _same_json(one: bytes, other: bytes) -> bool:
    """Equal as JSON: a poll may space or order what a delivery said otherwise."""
    if one == other:
        return True
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False


def _object(text: str | bytes) -> dict[str, object]:
    value = json.loads(text)
    return value if isinstance(value, dict) else {}
