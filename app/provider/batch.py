"""POST /v1/async/task/batch (C-G.3): up to 500 tasks in one request, each answered for itself.

HTTP 200 is not success here. An item that the answer does not mention, mentions twice, or pairs with another
item's key is taken as lost: the same key, sent again, shows (S6, S7).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from app.domain.send_outcome import Answer, classify
from app.domain.submission import ClaimedTask
from app.ports import CreateAnswer
from app.provider import wire

BATCH_MAX = 500
"""The provider's own bound."""
UNKNOWN_CODE_STATUS = 500
"""An item refused with a code we do not know is sent again: its key makes that safe."""


class _Results(msgspec.Struct):
    results: Any = None


_results = msgspec.json.Decoder(_Results)


def encode_batch(tasks: Sequence[ClaimedTask], webhook_url: str | None) -> bytes:
    """The bare JSON array of create bodies."""
    return b"[" + b",".join(wire.encode_create(task, webhook_url) for task in tasks) + b"]"


def read_batch(
    tasks: Sequence[ClaimedTask], status: int, body: bytes, request_id: str | None
) -> list[CreateAnswer]:
    """One answer for each task, in their order."""
    lost = CreateAnswer(Answer.LOST, status, message="not in the batch's answer", request_id=request_id)
    answers: list[CreateAnswer] = [lost] * len(tasks)
    seen: set[int] = set()
    for item in _items(body):
        index = item.get("index")
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(tasks):
            continue
        again = index in seen
        seen.add(index)
        answers[index] = lost if again else _item(tasks[index], item, status, request_id)
    return answers


def _items(body: bytes) -> list[Mapping[str, Any]]:
    try:
        found = wire.decode(_results, body).results
    except wire.UNREADABLE:
        return []
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []


def _item(task: ClaimedTask, item: Mapping[str, Any], status: int, request_id: str | None) -> CreateAnswer:
    if item.get("success") is True:
        made: Any = item.get("task")
        key = made.get("idempotencyKey") if isinstance(made, Mapping) else None
        task_id, to_charge = wire.read_created(msgspec.json.encode(item))
        if task_id is None or key not in (None, task.idempotency_key):
            return CreateAnswer(Answer.LOST, status, message="another item's task", request_id=request_id)
        return CreateAnswer(
            Answer.ACCEPTED,
            status,
            provider_task_id=task_id,
            credits_to_charge=to_charge,
            request_id=request_id,
        )
    error = wire.read_item_error(item, status)
    known = 400 if error.code == "VALIDATION_ERROR" else UNKNOWN_CODE_STATUS
    return CreateAnswer(classify(known, error.code), status, error.code, error.message, request_id=request_id)
