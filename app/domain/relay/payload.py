"""What is posted about a task or a run, as bytes. Pure.

An answer is put in as it was reported, byte for byte: no digit and no order changes.
"""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from app.domain.own_columns import own_document
from app.domain.provider_task import NOT_REPORTED, compact, credits_of, error_of, head_of
from app.domain.relay.message import FINISHED, Message, Scheme
from app.domain.task import TaskState
from app.domain.time_format import iso_utc

ANSWER_BYTES_MAX = 1 << 20
"""Of an answer within a message of ours, which has 10 to 30 KB; a longer one is left out, and said to be."""


def body_of(message: Message, scheme: Scheme) -> bytes:
    """The body of one message, without the blanks that JSON does not need."""
    if scheme is Scheme.PROVIDER:
        return provider_body(message)
    if message.kind == FINISHED:
        return _event("run.finished", message.at_ms, _run_data(message.about))
    answer = message.about["response"]
    is_left_out = answer is not None and len(answer) > ANSWER_BYTES_MAX
    return _event(
        f"task.{message.kind}",
        message.at_ms,
        _task_data(message, is_left_out=is_left_out),
        "null" if answer is None or is_left_out else answer,
    )


def _event(kind: str, at_ms: int, data: Mapping[str, Any], answer: str | None = None) -> bytes:
    head = json.dumps({"type": kind, "timestamp": iso_utc(at_ms)}, separators=(",", ":")).encode()
    text = compact(data)
    if answer is not None:
        text = text[:-1] + b',"answer":' + answer.encode() + b"}"
    return head[:-1] + b',"data":' + text + b"}"


def _run_data(about: Mapping[str, Any]) -> dict[str, Any]:
    return {"run": {"id": about["run_id"], "name": about["run_name"]}, "state": about["run_state"]}


def _task_data(message: Message, *, is_left_out: bool) -> dict[str, Any]:
    about = message.about
    code, text = about["error_code"], about["error_message"]
    text = text or NOT_REPORTED.get(TaskState(message.kind))
    return {
        "run": {"id": message.run_id, "name": about["run_name"]},
        "task": message.task_id,
        "attempt": message.attempt,
        "custom_id": about["custom_id"],
        "metadata": own_document(about["metadata"]),
        "task_type": about["task_type"],
        "state": message.kind,
        "verdict": about["verdict"],
        "credits_to_charge": credits_text(about["credits_to_charge"]),
        "credits_charged": credits_text(about["credits_charged"]),
        "settled_at": iso_utc(about["settled_at_ms"]),
        "error": None if code is None and text is None else {"code": code, "message": text},
        "answer_sha256": about["answer_sha256"],
        "answer_left_out": f"it has more than {ANSWER_BYTES_MAX} bytes"
        if is_left_out
        else about["response_note"],
    }


def credits_text(amount: Decimal | None) -> str | None:
    """Credits as an exact decimal, without an exponent; None: unknown."""
    if amount is None:
        return None
    return format(amount.normalize(), "f") if amount else "0"


def provider_body(message: Message) -> bytes:
    """The provider's own webhook body (C-I.1) for the caller's task: its id is ours, which the caller was
    given, and its key the caller's own."""
    about = message.about
    state, task_id = message.kind, message.task_id or ""
    text = compact({"task": head_of(task_id, state, about), "credits": credits_of(state, about)})
    answer = about["response"]
    if answer is None:
        answer = compact({"error": error_of(state, about)}).decode()
    return text[:-1] + b',"response":' + str(answer).encode() + b"}"
