"""The archive's side of the store: what of a day is to be archived, and what of it is.

A day is archived as a whole once it is over: every delivery that is closed goes into blocks; ids of those
that are not (set aside, say) are noted, and go into a later block of the day when they are closed.
"""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.retention import Elsewhere, Kind
from app.domain.time_format import DAY_MS
from app.ports import ArchivedBlock
from app.store.days import day_of, first_id, time_of
from app.store.part import StorePart, reads, writes
from app.store.tables import Id, archive_blocks, archived_days, deliveries, receipts
from app.store.write.inbox import unpack
from app.store.write.pruning import take_turn

PAGE = 100
"""Deliveries read at once: of 18 KB they are 1.8 MB."""
PAGE_BYTES_MAX = 16 * 1024 * 1024
"""And no more bodies at once than this, packed, but for one that is larger."""
IS_CLOSED = deliveries.c.state == sa.literal_column("'done'")
"""Nothing changes any more about a delivery in this state."""
_ROW = [column for column in deliveries.c if column.name != "body"]
_BLOCK = [
    archive_blocks.c[name]
    for name in ("day_ms", "path", "first_id", "last_id", "deliveries", "body_bytes", "block_bytes", "sha256")
]


@dataclass(frozen=True, slots=True)
class ClosedDelivery:
    """A delivery of a day that is to be archived."""

    row: dict[str, Any]
    """As it stands, without the body."""
    body: bytes | None
    """As it was received; None: what stands does not unpack."""


@dataclass(frozen=True, slots=True)
class DayArchive:
    """What of a day is in the archive."""

    blocks: int
    last_id: str | None
    """Of its last block; None: there is none."""
    left_out: tuple[str, ...]
    """Ids of deliveries that were not closed when the day was begun, and are in no block yet."""
    is_complete: bool
    """Whether all others are in blocks."""


class ArchiveWrites(StorePart):
    """Part of the store."""

    @writes
    async def begin_day(self, connection: AsyncConnection, day_ms: int) -> DayArchive:
        """How far a day is archived. The first time, what is not closed is noted before anything is read:
        a delivery that is closed meanwhile is in that list or in a block, and never in both."""
        c, d = deliveries.c, archived_days.c
        row = (await connection.execute(sa.select(archived_days).where(d.day_ms == day_ms))).one_or_none()
        if row is None:
            of_day = sa.select(c.id).where(_is_of(day_ms), ~IS_CLOSED)
            left_out = json.dumps(sorted(await connection.scalars(of_day)))
            await self.db.insert(
                connection,
                archived_days,
                [{"day_ms": day_ms, "left_out": left_out, "archived_at_ms": None}],
                ignore=True,
            )
            row = (await connection.execute(sa.select(archived_days).where(d.day_ms == day_ms))).one()
        b = archive_blocks.c
        last = sa.select(b.number, b.last_id).where(b.day_ms == day_ms).order_by(b.number.desc()).limit(1)
        number, last_id = (await connection.execute(last)).one_or_none() or (0, None)
        return DayArchive(number, last_id, tuple(json.loads(row.left_out)), row.archived_at_ms is not None)

    @reads(long=True)
    async def closed_page(
        self, connection: AsyncConnection, day_ms: int, after: str | None, of: DayArchive
    ) -> list[ClosedDelivery]:
        """Closed deliveries of a day that are in no block, with ids above `after`, in their order, as many as
        fit a page; empty at the end. Once the day is complete, those that were left out."""
        c = deliveries.c
        query = (
            sa.select(deliveries)
            .where(
                _is_of(day_ms), IS_CLOSED, c.id.in_(of.left_out) if of.is_complete else ~c.id.in_(of.left_out)
            )
            .order_by(c.id)
            .limit(PAGE)
            .execution_options(yield_per=10)
        )
        if after is not None:
            query = query.where(c.id > after)
        page: list[ClosedDelivery] = []
        size = 0
        async with connection.stream(query) as found:
            async for row in found:
                values = {column.name: row._mapping[column.name] for column in _ROW}
                page.append(ClosedDelivery(values, _unpacked(row)))
                size += len(row.body)
                if size >= PAGE_BYTES_MAX:
                    break
        return page

    @writes
    async def record_block(
        self,
        connection: AsyncConnection,
        block: ArchivedBlock,
        ids: Iterable[str],
        *,
        number: int,
        archive: str,
        now_ms: int,
    ) -> bool:
        """Note a block that was stored, read back and compared, and that `ids` are in it. False: another
        process noted one of the same number first, and this one counts for nothing."""
        values = {
            "day_ms": block.day_ms,
            "number": number,
            "path": block.path,
            "first_id": block.first_id,
            "last_id": block.last_id,
            "deliveries": block.count,
            "body_bytes": block.body_bytes,
            "block_bytes": block.block_bytes,
            "sha256": block.sha256,
            "archive": archive,
            "stored_at_ms": now_ms,
        }
        b = archive_blocks.c
        await self.db.insert(connection, archive_blocks, [values], ignore=True)
        stored = sa.select(b.path).where(b.day_ms == block.day_ms, b.number == number)
        if await connection.scalar(stored) != block.path:
            return False
        left_out = await _left_out(connection, block.day_ms)
        await _leave_out(connection, block.day_ms, left_out - set(ids))
        return True

    @writes
    async def leave_out(self, connection: AsyncConnection, day_ms: int, ids: Iterable[str]) -> None:
        """Note deliveries that stay in the database: no block can have them."""
        await _leave_out(connection, day_ms, await _left_out(connection, day_ms) | set(ids))

    @reads
    async def blocks_of_day(self, connection: AsyncConnection, day_ms: int) -> list[ArchivedBlock]:
        """The blocks that a day is in."""
        b = archive_blocks.c
        rows = await connection.execute(sa.select(*_BLOCK).where(b.day_ms == day_ms).order_by(b.number))
        return [ArchivedBlock(*row) for row in rows]

    @writes
    async def leave_out_others(
        self, connection: AsyncConnection, day_ms: int, known: Collection[str], *, blocks: int
    ) -> int:
        """Note what stands of an archived day and is not `known`, the ids in its `blocks`: it follows in a
        further one. How many; 0 where there are other blocks by now."""
        left_out = await _left_out(connection, day_ms)
        there = sa.select(sa.func.count()).where(archive_blocks.c.day_ms == day_ms)
        if await connection.scalar(there) != blocks:
            return 0
        stand = await connection.scalars(sa.select(deliveries.c.id).where(_is_of(day_ms)))
        late = {i for i in stand if i not in known} - left_out
        await _leave_out(connection, day_ms, left_out | late)
        return len(late)

    @writes
    async def complete_day(self, connection: AsyncConnection, day_ms: int, *, now_ms: int) -> None:
        """Note that all of a day but what was left out is in its blocks."""
        d = archived_days.c
        await connection.execute(
            sa.update(archived_days)
            .where(d.day_ms == day_ms, d.archived_at_ms.is_(None))
            .values(archived_at_ms=now_ms)
        )

    @reads
    async def place_of(self, connection: AsyncConnection, day_ms: int) -> Elsewhere | None:
        """The archive that has the deliveries of a day, those that were dropped already among them, but for
        those that were not closed then; None: others are missing there too."""
        day = await _counted(connection, day_ms)
        if day is None or day.late:
            return None
        return Elsewhere(day.location, day.left_out, day.blocks)

    @reads
    async def has_late(self, connection: AsyncConnection, day_ms: int) -> bool:
        """Whether more stands of an archived day than is in its blocks or follows."""
        day = await _counted(connection, day_ms)
        return day is not None and day.late > 0

    @writes
    async def forget_day(self, connection: AsyncConnection, day_ms: int) -> bool:
        """Have a day archived anew, if nothing of it was dropped."""
        await take_turn(self.db, connection)
        c = receipts.c
        gone = sa.select(c.row_count).where(c.kind == Kind.BODIES, c.from_ms == day_ms)
        if await connection.scalar(gone):
            return False
        for table in (archive_blocks, archived_days):
            await connection.execute(sa.delete(table).where(table.c.day_ms == day_ms))
        return True

    @reads
    async def blocks_of(self, connection: AsyncConnection, ids: Iterable[str]) -> list[ArchivedBlock]:
        """The blocks that may hold any of these deliveries."""
        return await blocks_of(self.db, connection, ids)


def _unpacked(row: sa.Row[Any]) -> bytes | None:
    try:
        return unpack(row.encoding, row.body)
    except Exception:  # whatever an altered body makes of its reader; verify says what it is
        return None


def _is_of(day_ms: int) -> sa.ColumnElement[bool]:
    return sa.and_(deliveries.c.id >= first_id(day_ms), deliveries.c.id < first_id(day_ms + DAY_MS))


@dataclass(frozen=True, slots=True)
class _Counted:
    """An archived day."""

    location: str
    """Where its last block went; empty: it has none, as nothing of it was closed."""
    blocks: int
    left_out: frozenset[str]
    late: int
    """Deliveries of it that are in no block, and do not follow; negative: some are gone without a receipt."""


async def _counted(connection: AsyncConnection, day_ms: int) -> _Counted | None:
    """None: the day is not archived whole."""
    b, a, c, d = archive_blocks.c, archived_days.c, receipts.c, deliveries.c
    complete = sa.select(a.left_out).where(a.day_ms == day_ms, a.archived_at_ms.is_not(None))
    if (text := await connection.scalar(complete)) is None:
        return None
    left_out = frozenset(json.loads(text))
    last = sa.select(b.archive).where(b.day_ms == day_ms).order_by(b.number.desc()).limit(1)
    counts = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(b.deliveries), 0))
    blocks, archived = (await connection.execute(counts.where(b.day_ms == day_ms))).one()
    to_come = sa.func.count().filter(d.id.in_(sorted(left_out)))
    query = sa.select(sa.func.count(), to_come).where(_is_of(day_ms))
    stand, waiting = (await connection.execute(query)).one()
    gone = sa.select(c.row_count).where(c.kind == Kind.BODIES, c.from_ms == day_ms)
    late = stand + (await connection.scalar(gone) or 0) - int(archived) - waiting
    return _Counted(await connection.scalar(last) or "", blocks, left_out, late)


async def _left_out(connection: AsyncConnection, day_ms: int) -> set[str]:
    """Of a day; nobody else changes it until the transaction ends."""
    d = archived_days.c
    query = sa.select(d.left_out).where(d.day_ms == day_ms).with_for_update()
    return set(json.loads(await connection.scalar(query) or "[]"))


async def _leave_out(connection: AsyncConnection, day_ms: int, ids: Iterable[str]) -> None:
    of_day = sa.update(archived_days).where(archived_days.c.day_ms == day_ms)
    await connection.execute(of_day.values(left_out=json.dumps(sorted(ids))))


async def blocks_of(db: Any, connection: AsyncConnection, ids: Iterable[str]) -> list[ArchivedBlock]:
    """The blocks whose range any of these deliveries is in, by day and number."""
    wanted = [{"id": i, "day_ms": day_of(time_of(i))} for i in sorted(set(ids))]
    if not wanted:
        return []
    b, v = archive_blocks.c, db.batch("v", {"id": Id, "day_ms": sa.BigInteger()}, wanted)
    query = (
        sa.select(*_BLOCK)
        .join(v, sa.and_(b.day_ms == v.c.day_ms, v.c.id.between(b.first_id, b.last_id)))
        .distinct()
        .order_by(b.day_ms, b.path)
    )
    return [ArchivedBlock(*row) for row in await connection.execute(query)]
