"""Tasks whose end somebody waits for: looked at together, however many wait."""

import asyncio
from typing import TYPE_CHECKING

from app.logger import get_logger

if TYPE_CHECKING:
    from app.store import Store

log = get_logger(__name__)

LOOK_EVERY_S = 0.25


class Awaited:
    """Of one process."""

    def __init__(self, store: "Store") -> None:
        self._store = store
        self._ends: dict[str, asyncio.Event] = {}
        self._looking: asyncio.Task[None] | None = None

    async def wait(self, task_id: str, timeout_s: float) -> bool:
        """Whether the work of a task is over; False after `timeout_s`. One waits for a task at a time."""
        end = self._ends[task_id] = asyncio.Event()
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="awaited tasks")
        try:
            async with asyncio.timeout(timeout_s):
                await end.wait()
        except TimeoutError:
            return False
        finally:
            self._ends.pop(task_id, None)
        return True

    async def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _look(self) -> None:
        while self._ends:
            try:
                ended = await self._store.standing_tasks.ended(list(self._ends))
            except Exception as error:  # whoever waits has a time of his own
                log.info("awaited_not_looked_at", error=type(error).__name__)
                ended = set()
            for task_id in ended & self._ends.keys():
                self._ends[task_id].set()
            await asyncio.sleep(LOOK_EVERY_S)
