"""What pruning asks of the archive before it drops what is there: whether it is there, and whole.

A block was read back when it was stored. Until its day is old enough to be dropped, a month later as a rule,
it may have been lost, cut off or replaced; by then the database has the last copy of its deliveries.
"""

from typing import TYPE_CHECKING

from app.domain.retention import Elsewhere
from app.ports import BlockDamaged, ObjectsRefused

if TYPE_CHECKING:
    from app.archive import Archive
    from app.store import Store

BLOCKS_KNOWN_MAX = 10_000
ANEW = "all of the day still stands, and is archived anew"
RESTORE = "restore it"


class InArchive:
    """The archive as the place of what is pruned; used by one process that prunes."""

    def __init__(self, store: "Store", archive: "Archive") -> None:
        self._store = store
        self._archive = archive
        self._whole: set[str] = set()
        """Paths of blocks that were read whole: a turn that is cut short does not begin again."""

    async def of_day(self, day_ms: int) -> Elsewhere | None:
        """None: deliveries of the day are missing in the archive."""
        return await self._store.archives.place_of(day_ms)

    async def note_late(self, day_ms: int) -> None:
        """Let deliveries follow that came when their day was archived already: of a clock that went back by
        days. Raises as the archive does."""
        if not await self._store.archives.has_late(day_ms):
            return
        blocks, known = await self._store.archives.blocks_of_day(day_ms), set[str]()
        for block in blocks:
            known |= await self._archive.ids(block)
        await self._store.archives.leave_out_others(day_ms, known, blocks=len(blocks))

    async def fault_of(self, day_ms: int) -> str | None:
        """Why nothing of a day may be dropped; None: all its blocks are whole. A day whose block is lost is
        archived anew where all of it still stands in the database. Raises ObjectsUnavailable."""
        for block in await self._store.archives.blocks_of_day(day_ms):
            if block.path in self._whole:
                continue
            try:
                await self._archive.check(block)
            except BlockDamaged as error:
                again = await self._store.archives.forget_day(day_ms)
                return f"{error}; {ANEW if again else RESTORE}"
            except ObjectsRefused as error:
                return f"{error.message}: {error.remedy}"
            if len(self._whole) >= BLOCKS_KNOWN_MAX:
                self._whole.clear()
            self._whole.add(block.path)
        return None
