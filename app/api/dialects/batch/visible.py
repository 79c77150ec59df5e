"""Which batches a caller may see."""

from typing import Any

from app.api.problems import not_found
from app.api.route import Call
from app.store.read.batches import BatchRow
from app.store.read.progress import RunProgress


async def visible_batch(call: Call[Any, Any], run_id: str | None) -> tuple[BatchRow, RunProgress]:
    """One with its counts. Raises Problem; so for None."""
    found = None if run_id is None else await call.store.batch_reads.batch(run_id)
    if found is None or not call.caller.sees(found[0].account):
        raise not_found("batch")
    return found
