"""Rows in and out of a settlement: plain conversions, no statements."""

import hashlib
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from app.domain.answer_text import answer_chars
from app.domain.credits import to_micro
from app.domain.delivery import ParsedDelivery
from app.domain.settlement import Attempt, Finding, Settlement
from app.domain.task import Money, TaskState
from app.domain.text import storable, storable_message
from app.domain.verdicts import Verdict
from app.store.batch import Types
from app.store.tables import Credits, Id, Millis, attempts, tasks

_MONEY_COLUMNS = (
    "attempt",
    "state",
    "money",
    "credits_estimate",
    "credits_held",
    "credits_to_charge",
    "credits_charged",
    "provider_task_id",
    "verdict",
    "reported",
)
_STATES = {state.value: state for state in TaskState}
_MONEY = {money.value: money for money in Money}
_VERDICTS = {verdict.value: verdict for verdict in Verdict}
CURRENT_COLUMNS = [
    tasks.c.id.label("task_id"),
    tasks.c.run_id,
    tasks.c.task_type,
    tasks.c.payload,
    *(tasks.c[name] for name in _MONEY_COLUMNS),
    sa.true().label("current"),
]
PAST_COLUMNS = [
    attempts.c.task_id,
    tasks.c.run_id,
    tasks.c.task_type,
    tasks.c.payload,
    *(attempts.c[name] for name in _MONEY_COLUMNS),
    sa.false().label("current"),
]

CHANGE_TYPES: Types = {
    "id": Id,
    "attempt": sa.Integer(),
    "was_state": sa.Text(),
    "was_money": sa.Text(),
    "was_reported": sa.Text(),
    "state": sa.Text(),
    "money": sa.Text(),
    "held": Credits(),
    "to_charge": Credits(),
    "charged": Credits(),
    "reported": sa.Text(),
    "verdict": sa.Text(),
    "provider_task_id": sa.Text(),
    "error_code": sa.Text(),
    "error_message": sa.Text(),
    "settled_by": sa.Text(),
    "at_ms": Millis(),
    "poll_ms": Millis(),
}

LEDGER_COLUMNS = ("at_ms", "run_id", "task_id", "attempt", "kind", "credits", "delivery_id", "reason")
RESULT_COLUMNS = (
    "task_id",
    "attempt",
    "delivery_id",
    "status",
    "stored_at_ms",
    "answer_bytes",
    "answer_sha256",
    "answer_chars",
    "seq",
)
DriverId = Callable[[str], str]
"""Database.driver_id: these two go to the driver as they are."""


def attempt_of(row: Any) -> Attempt:
    """An attempt as its row (CURRENT_COLUMNS, PAST_COLUMNS) says."""
    # As a tuple, and states by a dict: by their names and classes it takes twice as long.
    task_id, run_id, task_type, payload, attempt, state, money, *rest, current = row
    estimate, held, to_charge, charged, provider_task_id, verdict, reported = rest
    return Attempt(
        task_id=task_id,
        run_id=run_id,
        attempt=attempt,
        current=bool(current),
        state=_STATES[state],
        money=_MONEY[money],
        task_type=task_type,
        payload_json=payload,
        estimate=estimate,
        held=held,
        to_charge=to_charge,
        charged=charged,
        provider_task_id=provider_task_id,
        verdict=_VERDICTS[verdict] if verdict else None,
        reported=_STATES[reported] if reported else None,
    )


def change_row(
    before: Attempt, after: Attempt, first: ParsedDelivery, *, now_ms: int, poll_ms: int
) -> dict[str, Any]:
    """One row of the bulk update: what must still be true, and what becomes true."""
    report = first.report
    return {
        "id": before.task_id,
        "attempt": before.attempt,
        "was_state": before.state,
        "was_money": before.money,
        "was_reported": before.reported or "",
        "state": after.state,
        "money": after.money,
        "held": after.held,
        "to_charge": after.to_charge,
        "charged": after.charged,
        "reported": after.reported,
        "verdict": after.verdict,
        "provider_task_id": storable_message(after.provider_task_id),
        "error_code": storable_message(report.error_code),
        "error_message": storable_message(report.error_message),
        "settled_by": first.source,
        "at_ms": now_ms,
        # Money that is still unknown is asked for again; otherwise there is nothing left to ask.
        "poll_ms": poll_ms if after.money is Money.HELD else None,
    }


def ledger_rows(
    parsed: ParsedDelivery, settlement: Settlement, now_ms: int, driver_id: DriverId
) -> list[tuple[Any, ...]]:
    """The hold, when none was written before, and the closing entry, when the charge is known; as
    LEDGER_COLUMNS."""
    after = settlement.after
    entries: list[tuple[str, Any]] = []
    if settlement.hold is not None:
        entries.append(("hold", settlement.hold))
    if settlement.close is Money.POSTED:
        entries.append(("post", after.charged))
    elif settlement.close is Money.VOIDED:
        entries.append(("void", after.held))
    return [
        (
            now_ms,
            driver_id(after.run_id),
            driver_id(after.task_id),
            after.attempt,
            kind,
            to_micro(credits),
            driver_id(parsed.id),
            settlement.reason if kind == "post" else None,
        )
        for kind, credits in entries
    ]


def result_row(parsed: ParsedDelivery, after: Attempt, now_ms: int, driver_id: DriverId) -> tuple[Any, ...]:
    """What is stored of the answer beside its body, as RESULT_COLUMNS but for its number, the last."""
    answer = parsed.report.response
    return (
        driver_id(after.task_id),
        after.attempt,
        driver_id(parsed.id),
        after.reported,
        now_ms,
        len(answer),
        hashlib.sha256(answer).digest(),
        answer_chars(answer),
    )


def finding_row(parsed: ParsedDelivery, about: Attempt, finding: Finding, now_ms: int) -> dict[str, Any]:
    """A finding about an attempt, with the delivery as its evidence."""
    return {
        "at_ms": now_ms,
        "run_id": about.run_id,
        "task_id": about.task_id,
        "attempt": about.attempt,
        "verdict": finding.verdict,
        "expected": finding.expected,
        "actual": finding.actual,
        "detail": finding.detail,
        "delivery_id": parsed.id,
    }


def unmatched_row(parsed: ParsedDelivery, now_ms: int) -> dict[str, Any]:
    """A valid delivery for a task that we never sent."""
    return {
        "at_ms": now_ms,
        "run_id": None,
        "task_id": None,
        "attempt": None,
        "verdict": Verdict.UNMATCHED,
        "expected": None,
        "actual": parsed.report.charged,
        "detail": storable(f"provider task {parsed.report.provider_task_id}"),
        "delivery_id": parsed.id,
    }
