"""Dropping what is older than the policy, with receipts, and the lock of runs against it.

A receipt and what it counts change in one transaction, so whatever is killed, the two agree. Batches and
`retain` take turns: what was retained when a batch began is not in it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.retention import DONE, Elsewhere, Kind, Reason
from app.domain.time_format import DAY_MS
from app.store.by_index import there_is
from app.store.database import Database
from app.store.days import first_id
from app.store.part import StorePart, reads, writes
from app.store.tables import (
    EVERY_ATTEMPT,
    archive_blocks,
    credits_sum,
    deliveries,
    findings,
    receipts,
    results,
    runs,
    tasks,
)
from app.store.write.keeping import disputed_tasks, open_tasks, retained_tasks
from app.store.write.partitions import Partition, PartitionWrites, attach_day
from app.store.write.receipts import Dropped, add_to_receipt

BATCH = 250
"""Rows of one transaction: of 18 KB, packed to 4.5 KB, SQLite's other writers wait some 20 ms for it."""
SURVEYED = 1_000
"""Rows read at once before a partition is dropped; PostgreSQL makes their hashes."""
MOVED_MAX = 2_000
"""Rows that stay are moved to a new partition in the transaction that drops the old one: 10 MB in 0.1 s.
Where more must stay, the others are deleted."""
_ALONE = 0x7A11_4802
"""Advisory lock of who prunes or retains."""


class _ChangedError(Exception):
    """A partition is not as it was when it was looked at: it is left for the next time."""


@dataclass(slots=True)
class _Survey:
    """A day as it stood before its partition is dropped."""

    found: Dropped
    retained: frozenset[str]
    """Runs."""
    last_finding: int = 0
    kept_ids: list[str] = field(default_factory=list)
    body_bytes: int = 0
    """Of all its rows."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One transaction's share of a day."""

    dropped: Dropped
    last_id: str | None
    """Go on after it; None: the day is at its end."""


class PruneWrites(StorePart):
    """Part of the store."""

    @writes
    async def retain_run(
        self, connection: AsyncConnection, run_id: str, retained_at_ms: int | None
    ) -> int | None:
        """Lock a run against pruning, or with None let it be pruned again; since when it is locked. Asking
        twice changes nothing."""
        await take_turn(self.db, connection)
        kept_at = runs.c.retained_at_ms
        value = None if retained_at_ms is None else sa.func.coalesce(kept_at, retained_at_ms)
        change = sa.update(runs).where(runs.c.id == run_id).values(retained_at_ms=value)
        since: int | None = await connection.scalar(change.returning(kept_at))
        return since

    @reads
    async def grown_since(self, connection: AsyncConnection, since_ms: int) -> tuple[int, int]:
        """Deliveries whose ids are younger, and the bytes of their bodies."""
        grown = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(_size()), 0))
        row = (await connection.execute(grown.where(deliveries.c.id >= first_id(since_ms)))).one()
        return int(row[0]), int(row[1])

    @reads(long=True)
    async def survey_bodies(self, connection: AsyncConnection, day_ms: int, elsewhere: Elsewhere) -> Dropped:
        """What would go of a day, and what would stay."""
        found = (await self._survey_day(connection, day_ms, elsewhere, hashed=False)).found
        found.rows_of = []
        return found

    @writes
    async def drop_bodies(
        self,
        connection: AsyncConnection,
        day_ms: int,
        after_id: str | None,
        now_ms: int,
        elsewhere: Elsewhere,
    ) -> Batch:
        """Look at up to `BATCH` deliveries of a day, drop those that may go, and add them to its receipt."""
        await take_turn(self.db, connection)
        if not await _is_there(connection, day_ms, elsewhere):
            return Batch(Dropped(Kind.BODIES, day_ms), None)
        rows = await self._page(connection, day_ms, after_id, BATCH, elsewhere, hashed=True)
        dropped = _sorted_out(day_ms, rows)
        ids = [row_id for row_id, _ in dropped.rows_of]
        if ids:
            dropped.credits_charged = await _charged(connection, ids)
            d = deliveries.c
            await connection.execute(
                sa.delete(deliveries).where(d.id.in_(ids), d.id.between(ids[0], ids[-1]))
            )
            await add_to_receipt(connection, dropped, now_ms, elsewhere.location)
            dropped.rows_of = []
        return Batch(dropped, rows[-1].id if len(rows) == BATCH else None)

    @writes
    async def close_bodies(self, connection: AsyncConnection, day_ms: int) -> None:
        """A day was gone through: its receipt says how many rows stayed."""
        await take_turn(self.db, connection)
        left = sa.select(sa.func.count()).select_from(deliveries).where(_of_day(day_ms)).scalar_subquery()
        c = receipts.c
        of_day = c.kind == Kind.BODIES, c.from_ms == day_ms
        await connection.execute(sa.update(receipts).where(*of_day).values(state=DONE, kept=left))

    async def drop_day(self, partition: Partition, now_ms: int, elsewhere: Elsewhere) -> Dropped | None:
        """Drop a day's partition whole; what must stay moves to a new one in the same transaction. None: too
        much must stay, somebody holds a lock, or something changed meanwhile, and all is as it was."""
        day_ms = partition.from_ms
        survey = await self.db.read(lambda c: self._survey_day(c, day_ms, elsewhere, hashed=True), long=True)
        found = survey.found
        if not found.rows and found.kept:
            return found
        if len(survey.kept_ids) > MOVED_MAX:
            return None

        async def before(connection: AsyncConnection) -> None:
            await take_turn(self.db, connection)
            if not await _is_there(connection, day_ms, elsewhere):
                raise _ChangedError
            await _refuse_changed(connection, survey)
            if found.rows:
                await add_to_receipt(connection, found, now_ms, elsewhere.location, len(survey.kept_ids))
            if survey.kept_ids:
                await _copy_kept(connection, survey.kept_ids)

        async def after(connection: AsyncConnection) -> None:
            if survey.kept_ids:
                await attach_day(connection, day_ms)
                moved = sa.insert(deliveries).from_select(list(_kept.c.keys()), sa.select(_kept))
                await connection.execute(moved)

        try:
            gone = await PartitionWrites(self.db).drop_partition(partition, before, after)
        except _ChangedError:
            return None
        if not gone:
            return None
        found.rows_of = []
        return found

    async def drop_empty(self, partition: Partition) -> bool:
        """Drop a partition of which no row is left."""

        async def before(connection: AsyncConnection) -> None:
            query = sa.text(f"SELECT EXISTS (SELECT 1 FROM {partition.name})")  # noqa: S608
            if await connection.scalar(query):
                raise _ChangedError

        try:
            return await PartitionWrites(self.db).drop_partition(partition, before)
        except _ChangedError:
            return False

    async def _survey_day(
        self, connection: AsyncConnection, day_ms: int, elsewhere: Elsewhere, *, hashed: bool
    ) -> "_Survey":
        """Everything that the drop needs and that would take too long under its locks."""
        survey = _Survey(Dropped(Kind.BODIES, day_ms), await _retained(connection))
        survey.last_finding = await connection.scalar(sa.select(sa.func.max(findings.c.id))) or 0
        after_id = None
        while rows := await self._page(connection, day_ms, after_id, SURVEYED, elsewhere, hashed=hashed):
            after_id = rows[-1].id
            survey.found = survey.found.plus(_sorted_out(day_ms, rows))
            survey.kept_ids += [row.id for row in rows if row.reason is not None]
            survey.body_bytes += sum(row.size for row in rows)
            goes = [row.id for row in rows if row.reason is None]
            if goes:
                survey.found.credits_charged += await _charged(connection, goes)
        return survey

    async def _page(
        self,
        connection: AsyncConnection,
        day_ms: int,
        after_id: str | None,
        limit: int,
        elsewhere: Elsewhere,
        *,
        hashed: bool,
    ) -> Sequence[sa.Row[Any]]:
        """Rows of (id, bytes, reason, sha256), in the order of ids."""
        d = deliveries.c
        # Chosen first: PostgreSQL would prepare the reasons for all rows of the day.
        page = sa.select(d.id).where(_of_day(day_ms), *([] if after_id is None else [d.id > after_id]))
        chosen = page.order_by(d.id).limit(limit).cte("page")
        sha256: Any = sa.null()
        if hashed:
            sha256 = d.body if self.db.is_sqlite else sa.func.encode(sa.func.sha256(d.body), "hex")
        query = (
            sa.select(d.id, _size().label("size"), _reason(elsewhere).label("reason"), sha256.label("sha256"))
            .join(chosen, chosen.c.id == d.id)
            .where(_of_day(day_ms))
            .order_by(d.id)
        )
        return (await connection.execute(query)).all()


async def take_turn(db: Database, connection: AsyncConnection) -> None:
    """Who prunes or retains waits here for who does."""
    if not db.is_sqlite:  # which has one writer at a time
        await connection.execute(sa.text("SELECT pg_advisory_xact_lock(:id)"), {"id": _ALONE})


async def _is_there(connection: AsyncConnection, day_ms: int, elsewhere: Elsewhere) -> bool:
    """Whether what stands elsewhere of a day is the same that was looked at."""
    there = sa.select(sa.func.count()).where(archive_blocks.c.day_ms == day_ms)
    return elsewhere.location is None or await connection.scalar(there) == elsewhere.blocks


def _reason(elsewhere: Elsewhere) -> sa.ColumnElement[Any]:
    """Why a delivery stays; null: it may go."""
    d, r = deliveries.c, results.alias("own_result").c
    # Written by a version before, and not looked after yet.
    unhashed = there_is(r.task_id == d.task_id, r.answer_sha256.is_(None))
    return sa.case(
        (d.state != "done", sa.literal_column(f"'{Reason.WAITING}'")),
        (open_tasks(d.task_id), sa.literal_column(f"'{Reason.OPEN}'")),
        (retained_tasks(d.task_id), sa.literal_column(f"'{Reason.RETAINED}'")),
        (disputed_tasks(d.task_id), sa.literal_column(f"'{Reason.DISPUTED}'")),
        (unhashed, sa.literal_column(f"'{Reason.NEEDED}'")),
        # Set aside when its day was archived, and settled since: it follows into the archive first.
        (d.id.in_(sorted(elsewhere.missing)), sa.literal_column(f"'{Reason.WAITING}'")),
    )


_kept = deliveries.to_metadata(sa.MetaData(), name="kept_deliveries")
"""Where those that stay wait until their partition is made anew."""


async def _copy_kept(connection: AsyncConnection, ids: Sequence[str]) -> None:
    make = f"CREATE TEMP TABLE {_kept.name} (LIKE deliveries) ON COMMIT DROP"
    await connection.execute(sa.text(make))
    d = deliveries.c.id
    chosen = sa.select(deliveries).where(d.in_(ids), d.between(ids[0], ids[-1]))
    await connection.execute(sa.insert(_kept).from_select(list(_kept.c.keys()), chosen))


async def _retained(connection: AsyncConnection) -> frozenset[str]:
    query = sa.select(runs.c.id).where(runs.c.retained_at_ms.is_not(None))
    return frozenset(await connection.scalars(query))


async def _refuse_changed(connection: AsyncConnection, survey: _Survey) -> None:
    """Raises _ChangedError unless the day is as it was surveyed. Who waits behind the locks waits for this,
    so it goes through the day once, and asks for nothing else than what may have changed: money that was
    closed stays closed."""
    d, f, day_ms = deliveries.c, findings.c, survey.found.day_ms
    waiting = sa.func.count().filter(d.state != "done", d.id.not_in(survey.kept_ids or [first_id(0)]))
    query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(_size()), 0), waiting)
    found = (await connection.execute(query.where(_of_day(day_ms)))).one()
    if tuple(map(int, found)) != (survey.found.rows + len(survey.kept_ids), survey.body_bytes, 0):
        raise _ChangedError
    newly = sa.exists().where(f.id > survey.last_finding, f.task_id == d.task_id, _of_day(day_ms))
    if await connection.scalar(sa.select(newly)) or await _retained(connection) != survey.retained:
        raise _ChangedError


def _size() -> sa.ColumnElement[int]:
    return sa.func.length(deliveries.c.body)


def _of_day(day_ms: int) -> sa.ColumnElement[bool]:
    id_ = deliveries.c.id
    return sa.and_(id_ >= first_id(day_ms), id_ < first_id(day_ms + DAY_MS))


def _sorted_out(day_ms: int, rows: Sequence[sa.Row[Any]]) -> Dropped:
    found = Dropped(Kind.BODIES, day_ms)
    for row in rows:
        if row.reason is not None:
            found.kept[Reason(row.reason)] += 1
            continue
        found.rows += 1
        found.body_bytes += row.size
        if row.sha256 is not None:
            is_body = isinstance(row.sha256, bytes)
            found.rows_of.append((row.id, hashlib.sha256(row.sha256).hexdigest() if is_body else row.sha256))
    return found


async def _charged(connection: AsyncConnection, ids: Sequence[str]) -> Decimal:
    """Credits charged for the attempts whose result came from these deliveries, given in their order."""
    d, r = deliveries.c, results.c
    total = Decimal(0)
    for table, source in EVERY_ATTEMPT:
        task_id = table.c.id if table is tasks else table.c.task_id
        query = (
            sa.select(credits_sum(table.c.credits_charged))
            .select_from(deliveries)
            .join(results, sa.and_(r.task_id == d.task_id, r.attempt == d.attempt, r.delivery_id == d.id))
            .join(source, sa.and_(task_id == r.task_id, table.c.attempt == r.attempt))
            .where(d.id.in_(ids), d.id.between(ids[0], ids[-1]))
        )
        total += await connection.scalar(query) or Decimal(0)
    return total
