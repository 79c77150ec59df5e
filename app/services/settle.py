"""Settling: read raw reports, decide, apply. Deliveries and polls both end here.

Poison and trouble are different things. Poison is what a delivery itself is to blame for: bytes that are no
report, rows that the database refuses. It is set aside, alone, and only while the database takes other
settlements. Everything else is trouble: it costs time, is logged, and nothing is held against a delivery.
"""

import hashlib
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from app import tracing
from app.domain.delivery import ParsedDelivery, RawDelivery
from app.domain.engines.table import EXTRA_BILLING
from app.domain.pricing import explained_extra
from app.domain.run_reason import NO_CREDITS as OUT_OF_CREDITS
from app.domain.settlement import (
    Attempt,
    Circumstances,
    Effect,
    Settlement,
    Source,
    StoredAnswer,
    decide_settlement,
)
from app.domain.stored_json import read_json
from app.domain.task import RunState, parse_idempotency_key
from app.ports import Clock, ReadReport, ReportError, RowsRefused, StoreUnavailable

if TYPE_CHECKING:
    from app.store import Store

LOST_UPDATE_PASSES = 3
"""A delivery whose task changed under it is looked at again; after this often the sweep has it."""
NO_CREDITS = "INSUFFICIENT_CREDITS"
"""The error of a task that the account could not pay for when its turn came (C-H)."""


@dataclass(slots=True)
class SettleSummary:
    """What one call did."""

    settled: int = 0
    left: int = 0
    """Their row changed in every pass; the sweep looks again."""
    verdicts: dict[str, int] = field(default_factory=dict)
    out_of_credits: set[str] = field(default_factory=set)
    """Runs of which a task failed because the account had no credits left (S11)."""
    set_aside: dict[str, str] = field(default_factory=dict)
    """Delivery id -> what it is to blame for; it waits for a person."""
    held_up: dict[str, str] = field(default_factory=dict)
    """Delivery id -> what it failed at, which is not its fault; it is tried again, less and less often."""

    @property
    def quarantined(self) -> int:
        return len(self.set_aside)

    def merge(self, part: "SettleSummary") -> None:
        """What another call did, but for its verdicts and runs."""
        self.settled += part.settled
        self.left += part.left
        self.set_aside |= part.set_aside
        self.held_up |= part.held_up


async def settle(
    store: "Store", read_report: ReadReport, delivery_ids: Sequence[str], *, clock: Clock, unmatched_ms: int
) -> SettleSummary:
    """Settle the deliveries that still wait. One that is to blame itself is set aside with its error; one
    that alone fails at something else waits with it; the rest settle. Raises StoreUnavailable when the
    database would not take any settlement, and then nothing is lost and nothing held against anybody."""
    settling = _Settling(store, read_report, clock, unmatched_ms)
    summary = settling.summary
    for _ in range(LOST_UPDATE_PASSES):
        summary.left = await settling.settle_or_halve(delivery_ids)
        if not summary.left:
            break
    for run_id in sorted(summary.out_of_credits):
        # Accepted is not funded (P12): what is sent now would fail in the same way.
        await store.runs.halt_run_if_running(run_id, RunState.PAUSED, OUT_OF_CREDITS)
    return summary


@dataclass(slots=True)
class _Settling:
    """One call's work."""

    store: "Store"
    read_report: ReadReport
    clock: Clock
    unmatched_ms: int
    summary: SettleSummary = field(default_factory=SettleSummary)

    async def settle_or_halve(self, ids: Sequence[str]) -> int:
        """Settle a group in one transaction; halve it when it fails, until what fails is alone. How many are
        left because their row changed meanwhile."""
        try:
            return await self._settle_group(ids)
        except Exception as error:
            # If a settlement that is known to be good fails too, none of these is to blame.
            await self.store.settlements.probe()
            if len(ids) > 1:
                half = len(ids) // 2
                return await self.settle_or_halve(ids[:half]) + await self.settle_or_halve(ids[half:])
            if isinstance(error, RowsRefused):
                await self._set_aside({ids[0]: describe_error(error)})
            else:
                await self._hold_up({ids[0]: describe_error(error)})
            return 0

    async def _settle_group(self, ids: Sequence[str]) -> int:
        found = await self.store.inbox.waiting_deliveries(ids)
        parsed, poison, trouble = self._parse(found.readable)
        await self._set_aside({**found.broken, **poison})
        lost_updates = await self._decide_and_apply(parsed, trouble) if parsed else 0
        await self._hold_up(trouble)
        return lost_updates

    def _parse(
        self, raw: Iterable[RawDelivery]
    ) -> tuple[list[ParsedDelivery], dict[str, str], dict[str, str]]:
        """The reports, and by delivery what it is to blame for, and what it is not. A body is let go as soon
        as it is read: what is needed of it is in its report."""
        parsed: list[ParsedDelivery] = []
        poison: dict[str, str] = {}
        trouble: dict[str, str] = {}
        for d in raw:
            try:
                report = self.read_report(d.body)
            except ReportError as error:
                poison[d.id] = describe_error(error)
            except Exception as error:
                trouble[d.id] = describe_error(error)
            else:
                parsed.append(ParsedDelivery(d.id, d.source, d.received_at_ms, report, d.account))
        return parsed, poison, trouble

    async def _decide_and_apply(self, parsed: Sequence[ParsedDelivery], trouble: dict[str, str]) -> int:
        """How many are left because their row changed meanwhile. A report on which the rules fail goes to
        `trouble`, and the others settle."""
        rules, now = _GuardedRules(), self.clock()
        spans = [_span_of(delivery) for delivery in parsed] if tracing.is_on() else ()
        try:
            count = await self.store.settlements.apply(
                parsed, rules.decide, now_ms=now, unmatched_until_ms=now - self.unmatched_ms
            )
        finally:
            for span in spans:
                span.end()
        summary = self.summary
        summary.out_of_credits |= rules.out_of_credits
        summary.settled += len(parsed) - count.lost_updates - len(rules.failed)
        for verdict, n in count.verdicts.items():
            summary.verdicts[verdict] = summary.verdicts.get(verdict, 0) + n
        trouble |= rules.failed
        return count.lost_updates

    async def _set_aside(self, errors: Mapping[str, str]) -> None:
        await self.store.inbox.quarantine_deliveries(list(errors.items()))
        self.summary.set_aside |= errors

    async def _hold_up(self, errors: Mapping[str, str]) -> None:
        await self.store.inbox.hold_up_deliveries(list(errors.items()), now_ms=self.clock())
        self.summary.held_up |= errors


def _span_of(delivery: ParsedDelivery) -> tracing.Span:
    """In the trace of its delivery, linked with the one of the attempt that it reports on."""
    key = parse_idempotency_key(delivery.report.idempotency_key or "")
    is_delivered, ids = delivery.source == Source.DELIVERY, tracing.of_delivery(delivery.id)
    return tracing.begin(
        "settle",
        root=None if is_delivered else ids,
        parent=ids if is_delivered else None,
        links=() if key is None else (tracing.of_attempt(*key),),
        delivery=delivery.id,
        source=str(delivery.source),
        task=None if key is None else key[0],
        completed=delivery.report.completed,
    )


@dataclass(slots=True)
class _GuardedRules:
    """The rules within one transaction: a report on which they fail does not fail the others."""

    failed: dict[str, str] = field(default_factory=dict)
    """Delivery id -> the error."""
    out_of_credits: set[str] = field(default_factory=set)
    """Runs."""

    def decide(
        self, delivery: ParsedDelivery, attempt: Attempt, stored: StoredAnswer | None
    ) -> Settlement | None:
        try:
            settlement = decide_delivery(delivery, attempt, stored)
        except Exception as error:
            self.failed[delivery.id] = describe_error(error)
            return None
        self.failed.pop(delivery.id, None)  # the transaction may have been begun anew
        if settlement.effect is Effect.SETTLED and delivery.report.error_code == NO_CREDITS:
            self.out_of_credits.add(attempt.run_id)
        return settlement


def describe_error(error: Exception) -> str:
    """An error in one line; one of ours with the place where it came up, because only that finds it."""
    name = type(error).__name__
    if isinstance(error, ReportError | RowsRefused | StoreUnavailable):
        return f"{name}: {error}"
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{name} at {Path(where.filename).name}:{where.lineno}: {error}"


def decide_delivery(delivery: ParsedDelivery, attempt: Attempt, stored: StoredAnswer | None) -> Settlement:
    """The decision on one report, with the two facts that need the answer's content: what it explains on
    top of the estimate, and whether it equals the one already stored. Both are rarely needed."""
    response = delivery.report.response
    extra = Decimal(0)
    if attempt.task_type in EXTRA_BILLING and delivery.report.completed:
        extra = explained_extra(attempt.task_type, _object(attempt.payload_json), _object(response))
    same = attempt.reported is not None and stored is not None and _is_same(stored, response)
    circumstances = Circumstances(
        delivery.received_at_ms,
        sync=delivery.source == Source.SYNC,
        has_anothers_id=delivery.has_anothers_id,
        hash_only=stored is not None and stored.content is None,
    )
    return decide_settlement(
        attempt, delivery.report, extra=extra, same_response=same, circumstances=circumstances
    )


def _is_same(stored: StoredAnswer, response: bytes) -> bool:
    if stored.content is not None:
        return _same_json(stored.content, response)
    return stored.sha256 == hashlib.sha256(response).digest()


def _same_json(first: bytes, second: bytes) -> bool:
    """Equal as JSON: a poll may space or order the same content otherwise."""
    if first == second:
        return True
    try:
        return bool(read_json(first) == read_json(second))
    except (ValueError, RecursionError):
        return False


def _object(text: str | bytes) -> dict[str, object]:
    try:
        value = read_json(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
