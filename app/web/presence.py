"""Says in the database that this receiver runs, and where the provider reaches it: workers announce that."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator

from app.database_clock import DatabaseClock
from app.ports import StoreUnavailable
from app.store import Store
from app.store.write.health import RECEIVER

END_WITHIN_S = 1.0


@contextlib.asynccontextmanager
async def reading_clock(store: Store, clock: DatabaseClock) -> AsyncIterator[None]:
    """Meanwhile the database is asked for its time again and again, by a process that tells of nothing."""
    task = asyncio.create_task(clock.keep(store.health.database_ms), name="clock")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def stay_known(
    store: Store, clock: DatabaseClock, address: str, refused: dict[str, int] | None = None
) -> None:
    """Until it is cancelled; then it says that the receiver has ended. The clock is read by the way, and what
    was refused since (`refused`, by reason) is stored and taken out."""
    process_id = str(uuid.uuid4())

    async def beat() -> int:
        now_ms = await store.health.beat(process_id, RECEIVER, address)
        if refused:
            counts = dict(refused)
            refused.clear()
            with contextlib.suppress(StoreUnavailable):  # they are in the metrics still
                await store.refusals.add_refusals(counts, now_ms)
        return now_ms

    try:
        with contextlib.suppress(Exception):  # a database that is away is asked again
            await clock.read(beat)
        await clock.keep(beat)
    finally:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(END_WITHIN_S):
                await store.health.end_process(process_id, RECEIVER)
