"""The days of deliveries: partitions on PostgreSQL, which are made ahead and dropped whole; on SQLite ranges
of ids, which are deleted in batches.

Whatever takes a lock that others wait behind waits for it `LOCK_MS` at most, gives up, and tries again: so
nobody is held up for longer by somebody who reads for minutes.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.time_format import DAY_MS
from app.ports import StoreUnavailable
from app.store.database import Database
from app.store.days import day_of, first_id, time_of
from app.store.driver_errors import sqlstate_of
from app.store.part import StorePart, reads
from app.store.tables import deliveries

T = TypeVar("T")
AHEAD_DAYS = 7
"""Partitions are made for so many days after today: a worker, or `tallyhook migrate`, may be away for a week
before a delivery finds none and goes to DEFAULT."""
BEHIND_DAYS = 1
"""What was signed before midnight comes after it."""
MOVED_DAYS_MAX = 60
"""Days of rows in DEFAULT that one call looks after."""
LOCK_MS = 250
"""A delivery may wait so long for its commit: the provider waits 10 s for its 2xx."""
LOCK_TRIES = 6
LOCK_PAUSE_S = 0.25
"""After the first try; twice as long after each: 8 s in all, longer than any transaction but one that reads a
whole run."""
DEFAULT = "deliveries_default"
_ALONE = 0x7A11_4801
"""Advisory lock of who makes partitions."""
_GIVEN_UP = ("55P03", "40P01")
"""lock_not_available; deadlock_detected."""
_LAST_MS = 253_402_214_400_000
"""The last day that a date can name."""
_BOUND = re.compile(r"\((MINVALUE|'[0-9a-f-]{36}')\)")
_PARTITIONS = """
    SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) AS bounds FROM pg_inherits i
    JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass('deliveries')
"""
_OWNER = """
    SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class
    WHERE oid = to_regclass('deliveries') AND pg_get_userbyid(relowner) <> current_user
"""

Work = Callable[[AsyncConnection], Awaitable[T]]


@dataclass(frozen=True, slots=True)
class Partition:
    """Where deliveries stand whose ids are of a span of time: as a rule of one day."""

    name: str
    from_ms: int
    """0: from the beginning."""
    until_ms: int

    def has(self, day_ms: int) -> bool:
        """Whether the day is in it."""
        return self.from_ms <= day_ms < self.until_ms


@dataclass(frozen=True, slots=True)
class PartitionState:
    """What doctor and metrics tell of."""

    days_ahead: int
    """Days after today, without a gap, that have their partition; -1: today has none."""
    has_rows_in_default: bool


class PartitionWrites(StorePart):
    """Part of the store."""

    @reads
    async def partitions(self, connection: AsyncConnection) -> list[Partition]:
        """All but DEFAULT, the oldest first; none on SQLite, and while the table is not partitioned."""
        return [] if self.db.is_sqlite else await partitions_of(connection)

    @reads
    async def partition_state(self, connection: AsyncConnection, now_ms: int) -> PartitionState | None:
        """None where nothing is partitioned."""
        if self.db.is_sqlite or not await is_partitioned(connection):
            return None
        known, day_ms = await partitions_of(connection), day_of(now_ms)
        while any(each.has(day_ms) for each in known):
            day_ms += DAY_MS
        filled = await connection.scalar(sa.text(f"SELECT EXISTS (SELECT 1 FROM {DEFAULT})"))  # noqa: S608
        return PartitionState((day_ms - day_of(now_ms)) // DAY_MS - 1, bool(filled))

    async def add_partitions(self, now_ms: int) -> list[str]:
        """Make what is missing from yesterday to `AHEAD_DAYS` from now, and for each day of which DEFAULT
        holds rows, which move there. Names of those made; fewer where somebody kept the locks."""
        made = []
        for day_ms in [] if self.db.is_sqlite else await self._missing_days(now_ms):

            async def work(connection: AsyncConnection, day_ms: int = day_ms) -> str | None:
                return await _add_partition(connection, day_ms)

            if (name := await in_turn(self.db, work)) is not None:
                made.append(name)
        return made

    @reads
    async def _missing_days(self, connection: AsyncConnection, now_ms: int) -> list[int]:
        if not await is_partitioned(connection):
            return []
        known = await partitions_of(connection)
        missing = missing_days(known, now_ms)
        return missing + [day for day in await _days_in_default(connection) if day not in missing]

    @reads
    async def next_day(self, connection: AsyncConnection, from_ms: int) -> int | None:
        """The first day (its midnight, UTC, in ms) of which a delivery is stored, at or after a time."""
        d = deliveries.c
        query = sa.select(d.id).where(d.id >= first_id(from_ms)).order_by(d.id).limit(1)
        found = await connection.scalar(query)
        return None if found is None else day_of(time_of(found))

    async def drop_partition(
        self, partition: Partition, before: Work[None] | None = None, after: Work[None] | None = None
    ) -> bool:
        """Drop a partition with all its rows. `before` runs in the same transaction, when nobody else can use
        any delivery, `after` when the partition is gone: they may take milliseconds, and what they raise
        keeps the partition, and is raised. False: somebody else has dropped it, or holds a lock for longer
        than is waited, and all is as it was; try again later."""

        async def work(connection: AsyncConnection) -> bool:
            # The parent first, as everybody does: the other way round, a statement that has the parent and
            # wants the partition would wait for us, and we for it.
            await connection.execute(sa.text("LOCK TABLE ONLY deliveries IN ACCESS EXCLUSIVE MODE"))
            # Of two that prune, one was first.
            if partition not in await partitions_of(connection):
                return False
            await connection.execute(sa.text(f"LOCK TABLE {partition.name} IN ACCESS EXCLUSIVE MODE"))
            if before is not None:
                await before(connection)
            # Not CONCURRENTLY, which PostgreSQL refuses beside a DEFAULT partition.
            await connection.execute(sa.text(f"ALTER TABLE deliveries DETACH PARTITION {partition.name}"))
            await connection.execute(sa.text(f"DROP TABLE {partition.name}"))
            if after is not None:
                await after(connection)
            return True

        return await in_turn(self.db, work) or False


def missing_days(known: Iterable[Partition], now_ms: int) -> list[int]:
    """Days, as their midnight in ms, that should have a partition by now and have none."""
    first, last = day_of(now_ms) - BEHIND_DAYS * DAY_MS, day_of(now_ms) + AHEAD_DAYS * DAY_MS
    known = list(known)
    return [day for day in range(first, last + 1, DAY_MS) if not any(each.has(day) for each in known)]


async def is_partitioned(connection: AsyncConnection) -> bool:
    """Whether `deliveries` is a partitioned table of PostgreSQL."""
    query = sa.text("SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass('deliveries')")
    return bool(await connection.scalar(query))


async def hold_partitions(connection: AsyncConnection) -> None:
    """Keep every partition while the transaction lasts; to be asked before its snapshot is taken, by the
    first statement. What a snapshot has not touched yet would else be dropped under it, and what stays of a
    dropped day is in a table that it sees empty. Rows that are pruned one by one it goes on seeing."""
    await connection.execute(sa.text("LOCK TABLE deliveries IN ACCESS SHARE MODE"))


async def partitions_of(connection: AsyncConnection) -> list[Partition]:
    """All but DEFAULT, the oldest first."""
    found = []
    for row in await connection.execute(sa.text(_PARTITIONS)):
        ends = _BOUND.findall(row.bounds or "")  # null of one that is dropped just now
        if len(ends) == 2:
            times = [0 if end == "MINVALUE" else time_of(end.strip("'")) for end in ends]
            found.append(Partition(row.relname, *times))
    return sorted(found, key=lambda each: each.from_ms)


async def _days_in_default(connection: AsyncConnection) -> list[int]:
    days: list[int] = []
    after = first_id(0)
    while len(days) < MOVED_DAYS_MAX:
        query = sa.text(f"SELECT id FROM {DEFAULT} WHERE id >= :after ORDER BY id LIMIT 1")  # noqa: S608
        lowest = await connection.scalar(query, {"after": after})
        if lowest is None:
            break
        days.append(day_of(time_of(str(lowest))))
        after = first_id(days[-1] + DAY_MS)
    return days


def day_name(day_ms: int) -> str:
    """As in 20261127; of a clock beyond all calendars the milliseconds."""
    if day_ms >= _LAST_MS:
        return str(day_ms)
    return datetime.fromtimestamp(day_ms / 1000, UTC).strftime("%Y%m%d")


async def create_like_deliveries(connection: AsyncConnection, name: str) -> None:
    """A table of the same columns and indexes, that belongs to the same role."""
    await connection.execute(sa.text(f"CREATE TABLE {name} (LIKE deliveries INCLUDING ALL)"))
    if (owner := await connection.scalar(sa.text(_OWNER))) is not None:
        await connection.execute(sa.text(f"ALTER TABLE {name} OWNER TO {owner}"))


async def attach_day(connection: AsyncConnection, day_ms: int) -> str:
    """Make and attach the partition of a day, and move there what DEFAULT holds of it; its name."""
    name = f"deliveries_p{day_name(day_ms)}"
    low, high = first_id(day_ms), first_id(day_ms + DAY_MS)
    # Not CREATE … PARTITION OF, which locks the parent against everybody.
    await create_like_deliveries(connection, name)
    await connection.execute(sa.text(f"LOCK TABLE {DEFAULT} IN ACCESS EXCLUSIVE MODE"))
    move = (
        f"WITH moved AS (DELETE FROM {DEFAULT} WHERE id >= '{low}' AND id < '{high}' RETURNING *)"  # noqa: S608
        f" INSERT INTO {name} SELECT * FROM moved"
    )
    await connection.execute(sa.text(move))
    await connection.execute(
        sa.text(f"ALTER TABLE deliveries ATTACH PARTITION {name} FOR VALUES FROM ('{low}') TO ('{high}')")
    )
    return name


async def _add_partition(connection: AsyncConnection, day_ms: int) -> str | None:
    """None: it is there, or somebody else is about to make it."""
    if not await connection.scalar(sa.text("SELECT pg_try_advisory_xact_lock(:id)"), {"id": _ALONE}):
        return None
    if any(each.has(day_ms) for each in await partitions_of(connection)):
        return None
    return await attach_day(connection, day_ms)


async def in_turn(db: Database, work: Work[T]) -> T | None:
    """Run `work` in a transaction that waits for no lock longer than `LOCK_MS`, again after a pause when it
    had to give up. None: it had to each time, and nothing is changed. Raises as `Database.write` does."""

    async def limited(connection: AsyncConnection) -> T:
        await connection.execute(sa.text(f"SET LOCAL lock_timeout = {LOCK_MS}"))
        return await work(connection)

    for attempt in range(LOCK_TRIES):
        try:
            return await db.write(limited, tries=1, long=True)
        except StoreUnavailable as error:
            if error.__cause__ is None or sqlstate_of(error.__cause__) not in _GIVEN_UP:
                raise
        if attempt + 1 < LOCK_TRIES:
            await asyncio.sleep(LOCK_PAUSE_S * 2**attempt)
    return None
