"""A process that archives what ended before a time, and kills itself at the chosen step:
python -m tests.integration.archive.archiver DATABASE_URL ARCHIVE_URL UNTIL_MS BLOCK_BYTES STEP
"""

import asyncio
import os
import signal
import sys
from typing import Any

from app.address import read_objects_address
from app.archive import Archive
from app.objects import open_objects
from app.provider.wire import read_answer
from app.services.archive import archive_days
from app.store import Database, Store


class Steps:
    """What it wraps, but for the step that is the last: it is killed before it, or right after."""

    def __init__(self, wrapped: Any, names: tuple[str, ...], counter: list[int]) -> None:
        self._wrapped, self._names, self._counter = wrapped, names, counter

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._wrapped, name)
        if name not in self._names:
            return attribute

        async def step(*args: Any, **kwargs: Any) -> Any:
            self._die_at_zero()
            result = await attribute(*args, **kwargs)
            self._die_at_zero()
            return result

        return step

    def _die_at_zero(self) -> None:
        self._counter[0] -= 1
        if self._counter[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)


async def main(database: str, archive: str, until_ms: int, block_bytes: int, step: int) -> None:
    counter = [step]
    store: Any = Store(Database(database), read_answer)
    names = ("begin_day", "closed_page", "record_block", "complete_day")
    store.archives = Steps(store.archives, names, counter)
    objects: Any = Steps(open_objects(read_objects_address(archive)), ("put", "get_range"), counter)
    days = archive_days(
        store,
        Archive(archive, lambda: objects),
        until_ms=until_ms,
        days_max=9,
        clock=lambda: until_ms,
        block_bytes=block_bytes,
    )
    async for _ in days:
        pass
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])))
