"""What takes too long for a page: read beside it by one at a time, and shown as it was last known."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import structlog

T = TypeVar("T")
log = structlog.get_logger(__name__)

WITHIN_S = 0.15
"""From its beginning, pages wait so long for it, and are shown without where it takes longer; a later one
has it."""


class Kept(Generic[T]):
    """One thing that is read so. `for_s`: not anew for so long."""

    def __init__(self, for_s: float) -> None:
        self._for_s = for_s
        self._found: T | None = None
        self._began_s = 0.0
        self._read_s: float | None = None
        self._looking: asyncio.Task[None] | None = None

    async def get(self, look: Callable[[], Awaitable[T]]) -> T | None:
        """As it was last read; None: not yet."""
        is_old = self._read_s is None or time.monotonic() - self._read_s >= self._for_s
        if self._looking is None and (is_old or self._found is None):
            self._began_s = time.monotonic()
            self._looking = asyncio.create_task(self._look(look), name="kept for a page")
        left_s = self._began_s + WITHIN_S - time.monotonic()
        if self._looking is not None and self._found is None and left_s > 0:
            await asyncio.wait([self._looking], timeout=left_s)
        return self._found

    async def close(self) -> None:
        """Give up what goes on."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _look(self, look: Callable[[], Awaitable[T]]) -> None:
        try:
            self._found = await look()
        except Exception as error:  # what was read before is shown, and the next page looks again
            log.info("page_ahead_unknown", error=type(error).__name__)
        finally:
            self._read_s, self._looking = time.monotonic(), None
