"""Output and error file of a batch: views over its results, made as they are read."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from app.api.dialects.batch.ids import View
from app.domain.task import TaskState
from app.store import Store
from app.store.read.batches import BatchRow

CHUNK_BYTES = 128 << 10
_CODES = {
    TaskState.FAILED: ("request_failed", "the provider could not answer"),
    TaskState.REJECTED: ("request_refused", "the provider refused the request"),
    TaskState.EXPIRED: ("no_report", "the provider never reported on the request"),
}
_EXPIRED = "batch_expired", "This request could not be executed before the completion window expired."
_CANCELLED = "batch_cancelled", "The batch was cancelled before this request was sent."


async def view(store: Store, row: BatchRow, which: View) -> AsyncIterator[bytes]:
    """The lines of one of the two, many at once."""
    chunk = bytearray()
    async for line in _answers(store, row) if which == "output" else _errors(store, row):
        chunk += line
        if len(chunk) >= CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    if chunk:
        yield bytes(chunk)


async def _answers(store: Store, row: BatchRow) -> AsyncIterator[bytes]:
    async for page in store.run_results.answers_of_run(row.run_id):
        for result in page:
            yield _answer(result)


def _answer(result: Mapping[str, Any]) -> bytes:
    """The answer itself stands as it came."""
    task_id, response = result["task_id"], result["response"]
    if response is None:
        note = result["response_note"] or "the answer is not stored any more"
        return _line(task_id, result["custom_id"], b"null", {"code": "answer_not_stored", "message": note})
    request_id = _json(result["provider_task_id"] or task_id)
    body = b'{"success":true,"result":' + response.encode() + b"}"
    told = b'{"status_code":200,"request_id":' + request_id + b',"body":' + body + b"}"
    return _line(task_id, result["custom_id"], told, None)


async def _errors(store: Store, row: BatchRow) -> AsyncIterator[bytes]:
    unsent = _EXPIRED if row.expired_at_ms is not None else _CANCELLED
    async for page in store.batch_reads.unanswered(row.run_id):
        for task in page:
            code, text = _CODES.get(task.state, unsent)
            if task.state != TaskState.CANCELLED:
                code, text = task.error_code or code, task.error_message or text
            yield _line(task.id, task.custom_id, b"null", {"code": code, "message": text})


def _line(task_id: str, custom_id: str | None, response: bytes, error: dict[str, str] | None) -> bytes:
    head = {"id": f"batch_req_{task_id.replace('-', '')}", "custom_id": custom_id}
    return _json(head)[:-1] + b',"response":' + response + b',"error":' + _json(error) + b"}\n"


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
