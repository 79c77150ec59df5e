"""GET of one task: where it stands, and its answer as the provider gave it, for as long as it is kept here
(C-G.4)."""

import json
import re
from typing import Any

from app.api.dialects.provider.errors import task_not_found
from app.api.dialects.provider.models import (
    STATUSES,
    ProviderCredits,
    ProviderTask,
    ProviderTaskParams,
    created_at,
    number,
)
from app.api.route import Answer, Call
from app.domain.task import OPEN_STATES, TaskState

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_FAILED = {
    TaskState.REJECTED: "the provider refused the task",
    TaskState.EXPIRED: "the provider never reported on the task",
    TaskState.CANCELLED: "the task was cancelled before it was sent",
}
_FREE = (TaskState.FAILED, TaskState.REJECTED, TaskState.CANCELLED)


async def get_provider_task(call: Call[ProviderTaskParams, None]) -> Answer:
    """One task of the account's."""
    asked = call.params.task_id
    task_id: str | None = asked
    if not _ID.fullmatch(asked):
        task_id = await call.store.standing_tasks.task_with_key(call.caller.token_id, asked)
    row = None if task_id is None else await call.store.standing_tasks.task(task_id, call.caller.account)
    if row is None:
        raise task_not_found(asked)
    response = response_of(row)
    if response is None and row["state"] not in OPEN_STATES:
        # As the provider says once it has deleted an answer.
        raise task_not_found(asked)
    head, credits = _head(row)
    text = _compact({"task": head.model_dump(), "credits": credits.model_dump()})
    return Answer(None, body=text if response is None else text[:-1] + b',"response":' + response + b"}")


def response_of(row: dict[str, Any]) -> bytes | None:
    """The answer, or how the task failed; None: there is none, or none any more."""
    state = TaskState(row["state"])
    if row["response"] is not None:
        return str(row["response"]).encode()
    if state in OPEN_STATES or state is TaskState.COMPLETED:
        return None
    return _compact({"error": error_of(row)})


def error_of(row: dict[str, Any]) -> dict[str, str]:
    """Why a task failed: the provider's words, or ours."""
    text = row["error_message"] or _FAILED.get(row["state"]) or "Task failed"
    return {"code": row["error_code"] or "INTERNAL_SERVER_ERROR", "message": text}


def _head(row: dict[str, Any]) -> tuple[ProviderTask, ProviderCredits]:
    sent_ms, settled_ms = row["submitted_at_ms"], row["settled_at_ms"]
    is_timed = row["state"] not in OPEN_STATES and sent_ms is not None and settled_ms is not None
    head = ProviderTask(
        id=row["task_id"],
        taskType=row["task_type"],
        status=STATUSES.get(row["state"], "FAILED"),
        priority=row["priority"],
        createdAt=created_at(row["task_id"]),
        latencyMs=max(settled_ms - sent_ms, 0) if is_timed else None,
        idempotencyKey=row["custom_id"],
    )
    to_charge, charged = row["credits_to_charge"], row["credits_charged"]
    to_charge = row["credits_estimate"] if to_charge is None else to_charge
    if charged is None and row["state"] in _FREE:
        charged = to_charge * 0
    return head, ProviderCredits(
        creditsToCharge=number(to_charge), creditsCharged=None if charged is None else number(charged)
    )


def _compact(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
