"""Archiving: a day's closed deliveries go out in blocks. May not delete anything; pruning does that.

Each block is stored, read back and compared before it is recorded, and a block that is recorded is never
written again. So a process may be killed anywhere: what was not recorded is done again.
"""

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.domain.time_format import DAY_MS
from app.ports import ArchivedBlock, Clock, ObjectsUnavailable

if TYPE_CHECKING:
    from app.archive import Archive
    from app.store import Store
    from app.store.write.archives import DayArchive

BLOCK_BYTES = 64 * 1024 * 1024
"""Large enough that a month is some hundred objects, small enough to be read back into memory."""
SAMPLES = 1_000
"""Bodies from the beginning of a block that its dictionary is made from."""
SAMPLE_BYTES_MAX = 32 * 1024 * 1024
Page = list[tuple[dict[str, Any], bytes]]
"""Deliveries: the row without the body, and the body as it was received."""


@dataclass(frozen=True, slots=True)
class ArchivedDay:
    """What one call did for a day."""

    day_ms: int
    blocks: int
    deliveries: int
    body_bytes: int
    block_bytes: int
    left_out: int
    """Deliveries that are not closed, or do not unpack; they stay in the database."""
    unreadable: tuple[str, ...] = ()
    """Ids of those that do not unpack."""


async def archive_days(
    store: "Store",
    archive: "Archive",
    *,
    until_ms: int,
    days_max: int,
    clock: Clock,
    block_bytes: int = BLOCK_BYTES,
) -> AsyncIterator[ArchivedDay]:
    """Archive what is not archived of the days that ended before `until_ms`, the oldest first, up to
    `days_max` of them. Raises what store and archive raise; what was recorded by then stays."""
    day_ms, done = await store.partitions.next_day(0), 0
    while day_ms is not None and day_ms + DAY_MS <= until_ms and done < days_max:
        archived = await _archive_day(store, archive, day_ms, clock, block_bytes)
        if archived is not None:
            done += 1
            yield archived
        day_ms = await store.partitions.next_day(day_ms + DAY_MS)


async def _archive_day(
    store: "Store", archive: "Archive", day_ms: int, clock: Clock, block_bytes: int
) -> ArchivedDay | None:
    """None: there was nothing to do, or somebody else does it."""
    day = await store.archives.begin_day(day_ms)
    if day.is_complete and not day.left_out:
        return None
    blocks: list[ArchivedBlock] = []
    pages = _Pages(store, day_ms, day)
    while await pages.more():
        block, ids = await _store_block(archive, pages, day_ms, block_bytes)
        number = day.blocks + len(blocks) + 1
        if not await store.archives.record_block(
            block, ids, number=number, archive=archive.display, now_ms=clock()
        ):
            return None
        blocks.append(block)
    if day.is_complete and not blocks:
        return None
    await store.archives.complete_day(day_ms, now_ms=clock())
    left = await store.archives.begin_day(day_ms)
    return ArchivedDay(
        day_ms,
        len(blocks),
        sum(block.count for block in blocks),
        sum(block.body_bytes for block in blocks),
        sum(block.block_bytes for block in blocks),
        len(left.left_out),
        tuple(pages.unreadable),
    )


async def _store_block(
    archive: "Archive", pages: "_Pages", day_ms: int, block_bytes: int
) -> tuple[ArchivedBlock, list[str]]:
    """The next block, compared with what was put in, and the ids in it."""
    try:
        return await _fill_block(archive, pages, day_ms, block_bytes)
    except OSError as error:  # of this machine's own disk
        raise ObjectsUnavailable(
            f"no block can be made on this machine: {error.strerror or error}"
        ) from error


async def _fill_block(
    archive: "Archive", pages: "_Pages", day_ms: int, block_bytes: int
) -> tuple[ArchivedBlock, list[str]]:
    ids: list[str] = []
    new = await archive.begin_block(await pages.samples())
    try:
        while (not ids or new.size_bytes < block_bytes) and (page := await pages.next()):
            await new.add(page)
            ids += [row["id"] for row, _ in page]
        return await new.store(day_ms), ids
    finally:
        new.close()


class _Pages:
    """The deliveries of a day that are in no block, page by page, with a look ahead for samples."""

    def __init__(self, store: "Store", day_ms: int, day: "DayArchive") -> None:
        self._store, self._day_ms, self._day = store, day_ms, day
        # What was left out has no place behind the last block.
        self._after = None if day.is_complete else day.last_id
        self._ahead: deque[Page] = deque()
        self._is_over = False
        self.unreadable: list[str] = []
        """Ids of what does not unpack; noted as left out, so that it holds up no other."""

    async def more(self) -> bool:
        """Whether there is another one."""
        if not self._ahead:
            await self._fetch()
        return bool(self._ahead)

    async def next(self) -> Page:
        """The next page; empty at the end."""
        return self._ahead.popleft() if await self.more() else []

    async def samples(self) -> list[bytes]:
        """Bodies of the next ones, as many as make a good dictionary."""
        while not self._is_over:
            bodies = [body for page in self._ahead for _, body in page]
            if len(bodies) >= SAMPLES or sum(map(len, bodies)) >= SAMPLE_BYTES_MAX:
                break
            await self._fetch()
        return [body for page in self._ahead for _, body in page]

    async def _fetch(self) -> None:
        while not self._is_over:
            page = await self._store.archives.closed_page(self._day_ms, self._after, self._day)
            self._is_over = not page
            if page:
                self._after = page[-1].row["id"]
            await self._leave_out([one.row["id"] for one in page if one.body is None])
            if readable := [(one.row, one.body) for one in page if one.body is not None]:
                self._ahead.append(readable)
                return

    async def _leave_out(self, ids: list[str]) -> None:
        if ids and not self._day.is_complete:
            await self._store.archives.leave_out(self._day_ms, ids)
            self.unreadable += ids
