"""Whether a worker runs, as the database knows it: what doctor, submit and status say of it."""

from app.domain.time_format import iso_utc
from app.store import Store
from app.views.runs import Document

KIND = "worker"
START_WORKER = "run tallyhook up, or start tallyhook worker"
"""What to do when none runs, in the same words everywhere."""


async def workers_document(store: Store) -> Document:
    """Whether a worker runs, when one was seen last (the database's time), and the same in words."""
    seen = await store.health.last_seen(KIND)
    if seen.is_running:
        message = "a worker is running"
    elif seen.seen_ms is None:
        message = "no worker is running, and none is known to have run on this database"
    else:
        message = f"no worker has run since {iso_utc(seen.seen_ms)} by the database's clock"
    return {"running": seen.is_running, "last_seen_at": iso_utc(seen.seen_ms), "message": message}
