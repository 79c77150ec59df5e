"""Batches whose time is over send nothing more, and files whose time is over go."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.store import Store

FILES_AT_ONCE = 20
REASON = "its completion window is over"


async def expire_batches(store: "Store", now_ms: int) -> int:
    """Cancel what batches whose time is over have not sent; how many of these there were."""
    overdue = await store.batches.overdue(now_ms)
    for run_id in overdue:
        await store.batches.expire_batch(run_id, now_ms)
        await store.runs.cancel_run(run_id, REASON)
        # Once more, for what a sender gave back while the run was being cancelled.
        await store.runs.cancel_run(run_id, REASON)
    return len(overdue)


async def delete_expired_files(store: "Store", now_ms: int) -> int:
    """Delete files whose time is over, and uploads that were never ended; how many."""
    expired = await store.batch_files.expired_files(now_ms, FILES_AT_ONCE)
    for file_id in expired:
        await store.batch_files.delete_file(file_id)
    return len(expired)
