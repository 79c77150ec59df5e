"""A task of ours as the provider would show it to its caller (C-G.4, C-I.1): its id is ours, its key the
caller's own. Pure.
"""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

from app.domain.task import OPEN_STATES, TaskState
from app.domain.time_format import iso_utc

Status = Literal["QUEUED", "PROCESSING", "COMPLETED", "FAILED"]
STATUSES: Mapping[str, Status] = {
    TaskState.PENDING: "QUEUED",
    TaskState.SUBMITTING: "QUEUED",
    TaskState.SUBMITTED: "PROCESSING",
    TaskState.COMPLETED: "COMPLETED",
}
"""Every other end is a failure to the caller."""
NOT_REPORTED = {
    TaskState.REJECTED: "the provider refused the task",
    TaskState.EXPIRED: "the provider never reported on the task",
    TaskState.CANCELLED: "its run was cancelled before it was sent",
}
_FREE = (TaskState.FAILED, TaskState.REJECTED, TaskState.CANCELLED)


def head_of(task_id: str, state: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Its `task` block. `row`: what is known of the attempt, by column."""
    sent_ms, settled_ms = row["submitted_at_ms"], row["settled_at_ms"]
    is_timed = state not in OPEN_STATES and sent_ms is not None and settled_ms is not None
    return {
        "id": task_id,
        "taskType": row["task_type"],
        "status": STATUSES.get(state, "FAILED"),
        "priority": row["priority"],
        "createdAt": created_at(task_id),
        "latencyMs": max(settled_ms - sent_ms, 0) if is_timed else None,
        "idempotencyKey": row["custom_id"],
    }


def credits_of(state: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Its `credits` block. What never was, or failed, is free; the charge of others is null until known."""
    to_charge, charged = row["credits_to_charge"], row["credits_charged"]
    to_charge = row["credits_estimate"] if to_charge is None else to_charge
    if charged is None and state in _FREE:
        charged = Decimal(0)
    return {
        "creditsToCharge": number(to_charge),
        "creditsCharged": None if charged is None else number(charged),
    }


def error_of(state: str, row: Mapping[str, Any]) -> dict[str, str]:
    """Why it failed: the provider's words, or ours."""
    told = row["error_message"] or NOT_REPORTED.get(TaskState(state)) or "the answer is not stored any more"
    return {"code": row["error_code"] or "INTERNAL_SERVER_ERROR", "message": told}


def number(amount: Decimal) -> int | float:
    """Credits as the provider writes them: a JSON number."""
    return int(amount) if amount == amount.to_integral_value() else float(amount)


def created_at(task_id: str) -> str:
    """When a task was made: its id begins with the time."""
    return iso_utc(int(task_id.replace("-", "")[:12], 16))


def compact(document: Mapping[str, Any]) -> bytes:
    """JSON without the blanks that it does not need."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
