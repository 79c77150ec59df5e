"""/v1/batches: runs, made of uploaded files."""

import hashlib
import json
from typing import Any

from app.api.dialects.batch.errors import wrong
from app.api.dialects.batch.ids import read_batch_id, read_file_id
from app.api.dialects.batch.models import BatchCreate, BatchesParams, BatchList, BatchObject, BatchParams
from app.api.dialects.batch.status import batch_object, status_of
from app.api.dialects.batch.visible import visible_batch
from app.api.idempotency import key_of
from app.api.problems import NOT_FOUND, FieldError, Problem
from app.api.route import Call, Params
from app.store.read.batches import BatchRow
from app.store.read.progress import RunProgress
from app.store.write.batch_files import BatchFile
from app.store.write.batches import NewBatch

HOUR_MS = 3_600_000
REPEATED_WITHIN_MS = HOUR_MS
"""A client gives up on an answer after ten minutes, and tries twice more."""
RETRY_COUNT = "X-Stainless-Retry-Count"
"""OpenAI's clients send no idempotency key, but say with this that they repeat themselves."""


async def create_batch(call: Call[Params, BatchCreate]) -> BatchObject:
    """Its file is read after the answer: a fault in it makes the batch `failed`, and nothing is sent."""
    file = await _input_file(call)
    new = _new_batch(call, file)
    run_id, request_sha256 = await call.store.batches.create_batch(
        new,
        name=file.filename,
        source=f"batch file {file.filename}",
        repeats_since_ms=new.created_at_ms - REPEATED_WITHIN_MS if _is_repetition(call) else None,
        push_to=call.caller.push_to,
    )
    if request_sha256 != new.request_sha256:
        what = "another batch was asked for under this key: use a new key for each"
        raise wrong("Idempotency-Key", "idempotency_key_reused", what)
    call.subject = run_id
    return _shown(call, *await visible_batch(call, run_id))


async def list_batches(call: Call[BatchesParams, None]) -> BatchList:
    """Newest first."""
    asked = call.params
    after = None if asked.after is None else read_batch_id(asked.after)
    rows = await call.store.batch_reads.batches(call.caller.account, after, asked.limit + 1)
    shown = [_shown(call, *row) for row in rows[: asked.limit]]
    first, last = (shown[0].id, shown[-1].id) if shown else (None, None)
    return BatchList(data=shown, first_id=first, last_id=last, has_more=len(rows) > asked.limit)


async def get_batch(call: Call[BatchParams, None]) -> BatchObject:
    """Where it stands."""
    return _shown(call, *await visible_batch(call, read_batch_id(call.params.batch_id)))


async def cancel_batch(call: Call[BatchParams, None]) -> BatchObject:
    """What was not sent is not sent any more; what is with the provider goes on, and is charged."""
    row, progress = await visible_batch(call, read_batch_id(call.params.batch_id))
    call.subject = row.run_id
    if (status := status_of(row, progress)) not in ("validating", "in_progress", "cancelling", "cancelled"):
        raise wrong("batch_id", "not_cancellable", f"the batch is {status}: there is nothing to cancel")
    await call.store.runs.cancel_run(row.run_id, "cancelled through the API")
    # Once more, for what a sender gave back while the run was being cancelled.
    await call.store.runs.cancel_run(row.run_id, "cancelled through the API")
    return batch_object(*await visible_batch(call, row.run_id))


def _shown(call: Call[Any, Any], row: BatchRow, progress: RunProgress) -> BatchObject:
    """And read on, where its file is not in the run yet."""
    made = batch_object(row, progress)
    if made.status == "validating":
        parts = call.parts
        parts.batch_loads.start(
            parts.store, parts.clock, parts.wakes.soon, row.run_id, row.input_file_id, row.endpoint
        )
    return made


async def _input_file(call: Call[Params, BatchCreate]) -> BatchFile:
    of = read_file_id(call.body.input_file_id)
    file = None if of is None or of.view is not None else await call.store.batch_files.file(of.id)
    if file is None or not call.caller.sees(file.account):
        what = "no uploaded file has this id: upload one with POST /v1/files"
        errors = [FieldError(field="input_file_id", code="file_not_found", remedy=what)]
        raise Problem(NOT_FOUND, what, errors=errors)
    return file


def _new_batch(call: Call[Params, BatchCreate], file: BatchFile) -> NewBatch:
    asked, now_ms = call.body, call.parts.clock()
    text = json.dumps(asked.model_dump(), sort_keys=True)
    return NewBatch(
        token_id=call.caller.token_id,
        account=file.account,
        idempotency_key=key_of(call.headers),
        request_sha256=hashlib.sha256(text.encode()).hexdigest(),
        input_file_id=file.id,
        endpoint=asked.endpoint,
        completion_window=asked.completion_window,
        metadata=None if asked.metadata is None else json.dumps(asked.metadata),
        created_at_ms=now_ms,
        expires_at_ms=now_ms + _window_ms(asked.completion_window),
    )


def _window_ms(window: str) -> int:
    hours = int(window[:-1]) * (24 if window[-1] == "d" else 1)
    return hours * HOUR_MS


def _is_repetition(call: Call[Any, Any]) -> bool:
    return call.headers.get(RETRY_COUNT, "0") not in ("", "0")
