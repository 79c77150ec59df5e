"""Forgets idempotency keys some days after their use, and clears away runs whose upload never ended."""

import uuid

import structlog

from app.domain.time_format import DAY_MS
from workers.context import Context
from workers.periodic import run_every

log = structlog.get_logger(__name__)

EVERY_S = 900.0
LEFT_MS = DAY_MS // 24
"""Nobody has gone on with an upload for so long: it is discarded, and its key is free."""
LEASE_MS = 60_000
BATCH = 500
UPLOADS_MAX = 20


async def run_key_cleaning(context: Context) -> None:
    """Look every so often until the process stops; two workers at once do no harm."""
    owner = uuid.uuid4().hex
    await run_every(
        lambda: clean_keys(context, owner),
        name="key_cleaning",
        every_s=EVERY_S,
        stopping=context.stopping,
        watch=context.signals,
    )


async def clean_keys(context: Context, owner: str) -> None:
    """One turn."""
    keys, now = context.store.idempotency, context.clock()
    left = await keys.take_left(owner, left_ms=LEFT_MS, now_ms=now, lease_ms=LEASE_MS, limit=UPLOADS_MAX)
    for row in left:
        if row.run_id is not None and await context.store.runs.discard_run(row.run_id):
            log.info("unfinished_upload_discarded", run_id=row.run_id)
        await keys.forget_left(row.token_id, row.key, owner)
    before_ms = now - context.settings.api_idempotency_days * DAY_MS
    while await keys.forget(before_ms=before_ms, limit=BATCH) == BATCH:
        if context.stopping.is_set():
            return
