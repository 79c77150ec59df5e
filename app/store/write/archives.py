"""The archive's side of the store: what of a day is to be archived, and what of it is.

A day is archived as a whole once it is over: every delivery that is closed goes into blocks; ids of those
that are not (set aside, say) are noted, and go into a later block of the day when they are closed.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.time_format import DAY_MS
from app.ports import ArchivedBlock
from app.store.days import day_of, first_id, time_of
from app.store.part import StorePart, reads, writes
from app.store.tables import Id, archive_blocks, archived_days, deliveries
from app.store.write.inbox import unpack

PAGE = 100
"""Deliveries read at once: of 18 KB they are 1.8 MB."""
PAGE_BYTES_MAX = 16 * 1024 * 1024
"""And no more bodies at once than this, packed, but for one that is larger."""
IS_CLOSED = deliveries.c.state == sa.literal_column("'done'")
"""Nothing changes any more about a delivery in this state."""
_ROW = [column for column in deliveries.c if column.name != "body"]


@dataclass(frozen=True, slots=True)
class ClosedDelivery:
    """A delivery of a day that is to be archived."""

    row: dict[str, Any]
    """As it stands, without the body."""
    body: bytes
    """As it was received."""


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
        fit a page; empty at the end. Once the day is complete, those that were left out. Raises ZstdError or
        LookupError for a body that does not unpack."""
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
                page.append(ClosedDelivery(values, unpack(row.encoding, row.body)))
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
        b, d = archive_blocks.c, archived_days.c
        await self.db.insert(connection, archive_blocks, [values], ignore=True)
        stored = sa.select(b.path).where(b.day_ms == block.day_ms, b.number == number)
        if await connection.scalar(stored) != block.path:
            return False
        text = await connection.scalar(
            sa.select(d.left_out).where(d.day_ms == block.day_ms).with_for_update()
        )
        rest = sorted(set(json.loads(text or "[]")) - set(ids))
        await connection.execute(
            sa.update(archived_days).where(d.day_ms == block.day_ms).values(left_out=json.dumps(rest))
        )
        return True

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
    async def blocks_of(self, connection: AsyncConnection, ids: Iterable[str]) -> list[ArchivedBlock]:
        """The blocks that may hold any of these deliveries."""
        return await blocks_of(self.db, connection, ids)


def _is_of(day_ms: int) -> sa.ColumnElement[bool]:
    return sa.and_(deliveries.c.id >= first_id(day_ms), deliveries.c.id < first_id(day_ms + DAY_MS))


async def blocks_of(db: Any, connection: AsyncConnection, ids: Iterable[str]) -> list[ArchivedBlock]:
    """The blocks whose range any of these deliveries is in, by day and number."""
    wanted = [{"id": i, "day_ms": day_of(time_of(i))} for i in sorted(set(ids))]
    if not wanted:
        return []
    b, v = archive_blocks.c, db.batch("v", {"id": Id, "day_ms": sa.BigInteger()}, wanted)
    query = (
        sa.select(
            b.day_ms, b.path, b.first_id, b.last_id, b.deliveries, b.body_bytes, b.block_bytes, b.sha256
        )
        .join(v, sa.and_(b.day_ms == v.c.day_ms, v.c.id.between(b.first_id, b.last_id)))
        .distinct()
        .order_by(b.day_ms, b.path)
    )
    return [ArchivedBlock(*row) for row in await connection.execute(query)]
