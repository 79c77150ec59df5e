"""Where a batch stands, from its run. Pure."""

import json

from app.api.dialects.batch.ids import batch_id, file_id
from app.api.dialects.batch.models import BatchErrors, BatchLineError, BatchObject, BatchRequestCounts, Status
from app.domain.task import RunState, TaskState
from app.store.read.batches import BatchRow
from app.store.read.progress import RunProgress

ENDED = ("completed", "expired", "cancelled")
_UNANSWERED = (TaskState.FAILED, TaskState.REJECTED, TaskState.EXPIRED, TaskState.CANCELLED)


def status_of(row: BatchRow, progress: RunProgress) -> Status:
    """One of OpenAI's words."""
    if row.failed_at_ms is not None:
        return "failed"
    if row.state == RunState.LOADING:
        return "validating"
    if row.state != RunState.CANCELLED:
        if progress.open:
            return "in_progress"
        return "finalizing" if row.finished_at_ms is None else "completed"
    if row.expired_at_ms is not None:
        if progress.open:
            return "finalizing"
        return "expired" if progress.states.get(TaskState.CANCELLED) else "completed"
    return "cancelling" if progress.open else "cancelled"


def batch_object(row: BatchRow, progress: RunProgress) -> BatchObject:
    """As it is answered. What is with the provider when a batch expires or is cancelled goes on, and is
    answered and charged: until then it is `finalizing`, or `cancelling`."""
    status = status_of(row, progress)
    completed = progress.states.get(TaskState.COMPLETED, 0)
    failed = sum(progress.states.get(state, 0) for state in _UNANSWERED)
    has_ended = status in ENDED
    ended_s = _seconds(row.finished_at_ms or row.expired_at_ms or row.cancelled_at_ms)
    return BatchObject(
        id=batch_id(row.run_id),
        endpoint=row.endpoint,
        errors=_errors(row),
        input_file_id=file_id(row.input_file_id),
        completion_window=row.completion_window,
        status=status,
        output_file_id=file_id(row.run_id, "output") if has_ended and completed else None,
        error_file_id=file_id(row.run_id, "errors") if has_ended and failed else None,
        created_at=row.created_at_ms // 1_000,
        in_progress_at=_seconds(row.started_at_ms),
        expires_at=row.expires_at_ms // 1_000,
        finalizing_at=ended_s if has_ended or status == "finalizing" else None,
        completed_at=ended_s if status == "completed" else None,
        failed_at=_seconds(row.failed_at_ms),
        expired_at=_seconds(row.expired_at_ms) if status == "expired" else None,
        cancelling_at=_seconds(row.cancelled_at_ms) if status in ("cancelling", "cancelled") else None,
        cancelled_at=ended_s if status == "cancelled" else None,
        request_counts=BatchRequestCounts(total=progress.tasks, completed=completed, failed=failed),
        metadata=None if row.metadata is None else json.loads(row.metadata),
    )


def _errors(row: BatchRow) -> BatchErrors | None:
    if row.errors is None:
        return None
    return BatchErrors(data=[BatchLineError(**error) for error in json.loads(row.errors)])


def _seconds(at_ms: int | None) -> int | None:
    return None if at_ms is None else at_ms // 1_000
