"""What a long run got back: its ledger is added up beside the page, once it has ended, and kept."""

import asyncio
import math
import time
from decimal import Decimal

from app.page.kept import Kept
from app.page.visit import Visit
from app.store import Store
from app.store.read.progress import RunProgress

VOIDED = "page run voided"
KEPT_MAX = 100
"""Sums of this process, the newest."""
STEP = 5_000
"""Tasks of one read: some 40 ms."""


async def voided_of(visit: Visit, run_id: str, progress: RunProgress) -> Decimal | None:
    """None: the run goes on, or it is being added up."""
    if progress.open or progress.version is None:
        return None
    kept: dict[tuple[str, str], Kept[Decimal]] = visit.parts.shared.setdefault(VOIDED, {})
    key = run_id, progress.version
    while key not in kept and len(kept) >= KEPT_MAX:
        await kept.pop(next(iter(kept))).close()
    store = visit.parts.store
    return await kept.setdefault(key, Kept(math.inf)).get(lambda: _added_up(store, run_id, progress.tasks))


async def _added_up(store: Store, run_id: str, tasks: int) -> Decimal:
    """A part at a time, and at rest between for as long as each took: others use the database too."""
    found = Decimal(0)
    for after in range(0, tasks, STEP):
        began_s = time.monotonic()
        found += await store.run_samples.voided(run_id, after, after + STEP)
        await asyncio.sleep(time.monotonic() - began_s)
    return found
