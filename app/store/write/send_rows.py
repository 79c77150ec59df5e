"""Rows of ended sends: plain conversions, no statements."""

import json
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from app.domain.credits import to_micro
from app.domain.reconciliation import repriced_detail
from app.domain.send_outcome import Answer
from app.domain.submission import Submission
from app.domain.text import storable_message
from app.domain.verdicts import Verdict
from app.store.write.settlement_rows import DriverId

UNSENT = frozenset(
    {Answer.DEFERRED, Answer.NO_CREDITS, Answer.BAD_KEY, Answer.KEY_COLLISION, Answer.MISDIRECTED}
)
"""A task that never left us, or that was refused with all others, must not look as if it might exist at the
provider. Sends that were only put off stay counted: the wait before the next one grows with them."""
HOLD_COLUMNS = ("at_ms", "run_id", "task_id", "attempt", "kind", "credits")
LOG_COLUMNS = (
    "task_id",
    "attempt",
    "at_ms",
    "answer",
    "http_status",
    "code",
    "message",
    "provider_task_id",
    "credits_to_charge",
    "request_id",
    "open_sends",
)


def once_each(ended: Sequence[Submission]) -> list[list[Submission]]:
    """In groups that hold each attempt once: what the first end of one did counts for the next."""
    groups: list[list[Submission]] = []
    seen: Counter[str] = Counter()
    for s in ended:
        n = seen[s.task.idempotency_key]
        seen[s.task.idempotency_key] += 1
        if n == len(groups):
            groups.append([])
        groups[n].append(s)
    return groups


def is_repriced(s: Submission) -> bool:
    return s.credits_to_charge is not None and s.credits_to_charge != s.task.credits_estimate


def repriced_row(s: Submission) -> dict[str, object]:
    detail = repriced_detail(
        s.task.task_type,
        json.loads(s.task.payload_json),
        estimate=s.task.credits_estimate,
        to_charge=s.credits_to_charge or Decimal(0),
    )
    return {
        "at_ms": s.at_ms,
        "run_id": s.task.run_id,
        "task_id": s.task.id,
        "attempt": s.task.attempt,
        "verdict": Verdict.REPRICED,
        "expected": s.task.credits_estimate,
        "actual": s.credits_to_charge,
        "detail": detail,
        "delivery_id": None,
    }


def accepted_row(s: Submission) -> dict[str, object]:
    """A send that the provider took."""
    return send_row(s) | {
        "provider_task_id": storable_message(s.provider_task_id),
        "to_charge": s.credits_to_charge,
        "at_ms": s.at_ms,
        "poll_ms": s.next_poll_at_ms,
    }


def rejected_row(s: Submission) -> dict[str, object]:
    """A send that it refused for good."""
    return send_row(s) | {"code": storable_message(s.code), "message": storable_message(s.message)}


def send_row(s: Submission) -> dict[str, object]:
    """What each end of a send says of it, as SEND_TYPES."""
    task = s.task
    sent = {"sends": task.sends, "first_ms": task.first_sent_at_ms}
    return {"id": task.id, "attempt": task.attempt} | sent


def again_row(s: Submission) -> dict[str, object]:
    row = send_row(s) | {"claim": s.task.claim, "not_before_ms": s.not_before_ms}
    sends = s.task.sends - (1 if s.answer in UNSENT else 0)
    return row | {"sends": sends, "in_range": int(s.task.in_range)}


def log_row(s: Submission, open_sends: int | None, driver_id: DriverId) -> tuple[Any, ...]:
    """The end of a send as LOG_COLUMNS."""
    return (
        driver_id(s.task.id),
        s.task.attempt,
        s.at_ms,
        s.answer,
        s.http_status,
        storable_message(s.code),
        storable_message(s.message),
        storable_message(s.provider_task_id),
        None if s.credits_to_charge is None else to_micro(s.credits_to_charge),
        storable_message(s.request_id),
        open_sends,
    )
