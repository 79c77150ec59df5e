"""The database's own time, who has worked on it lately, and whether it takes a write."""

import os
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.database import Database
from app.store.part import StorePart, reads, writes
from app.store.tables import SLACK_MS, Millis, leases, processes

KEPT_MS = 24 * 3_600_000
"""A process that was not seen for longer is forgotten once another one starts."""
PROBE = "probe"
RECEIVER = "web"
"""The kind of a process that takes deliveries."""
ENDED = "-ended"
"""Behind the kind of a process that ended in order."""
RUNS_WITHIN_MS = 30_000
"""So long after its last word a process is believed to run: it says so every 5 s, and a statement may take
10 s before it fails and is tried again 5 s later."""


@dataclass(frozen=True, slots=True)
class LastSeen:
    """When a process of a kind last reported that it runs."""

    now_ms: int
    """The database's time."""
    seen_ms: int | None
    """None: never, as far as anybody remembers."""
    is_running: bool


@dataclass(frozen=True, slots=True)
class Receiver:
    """A `web` process, as it told of itself."""

    address: str
    """Where the provider reaches it, without our path."""
    is_running: bool


class _RolledBackError(Exception):
    """Ends a transaction that was only to be tried."""


class HealthWrites(StorePart):
    """Part of the store."""

    @reads
    async def database_ms(self, connection: AsyncConnection) -> int:
        """The database's time: UTC milliseconds since 1970."""
        return int(await connection.scalar(sa.select(database_now(self.db))) or 0)

    @writes
    async def beat(
        self, connection: AsyncConnection, process_id: str, kind: str, address: str | None = None
    ) -> int:
        """Say that a process runs, and at what address it is reached; the database's time."""
        now = int(await connection.scalar(sa.select(database_now(self.db))) or 0)
        own = processes.c.id == process_id
        seen = await connection.execute(
            sa.update(processes).where(own).values(seen_at_ms=now, address=address)
        )
        if not seen.rowcount:
            old = processes.c.seen_at_ms < now - KEPT_MS
            await connection.execute(sa.delete(processes).where(old))
            times = {"started_at_ms": now, "seen_at_ms": now}
            row = {"id": process_id, "kind": kind, "address": address, **times}
            await self.db.insert(connection, processes, [row], known="id")
        return now

    @writes(tries=1)
    async def end_process(self, connection: AsyncConnection, process_id: str, kind: str) -> None:
        """Say that a process does not run any more."""
        own = processes.c.id == process_id
        values = {"kind": kind + ENDED, "seen_at_ms": database_now(self.db)}
        await connection.execute(sa.update(processes).where(own).values(values))

    @reads
    async def receivers(self, connection: AsyncConnection) -> list[Receiver]:
        """Every `web` that said where it is reached, those that run first, of each the newest first."""
        c = processes.c
        now = int(await connection.scalar(sa.select(database_now(self.db))) or 0)
        told = (
            sa.select(c.kind, c.address, c.started_at_ms, c.seen_at_ms)
            .where(c.kind.in_((RECEIVER, RECEIVER + ENDED)), c.address.is_not(None))
            .where(c.seen_at_ms <= now + SLACK_MS)
            .order_by(c.started_at_ms.desc())
        )
        found = [
            Receiver(row.address, row.kind == RECEIVER and now - row.seen_at_ms <= RUNS_WITHIN_MS)
            for row in await connection.execute(told)
        ]
        return sorted(found, key=lambda receiver: not receiver.is_running)

    @reads
    async def last_seen(self, connection: AsyncConnection, kind: str) -> LastSeen:
        """When a process of this kind was seen last. What lies ahead was written while the database's clock
        was wrong, and says nothing."""
        c = processes.c
        now = int(await connection.scalar(sa.select(database_now(self.db))) or 0)
        newest = (
            sa.select(c.kind, sa.func.max(c.seen_at_ms))
            .where(c.kind.in_((kind, kind + ENDED)), c.seen_at_ms <= now + SLACK_MS)
            .group_by(c.kind)
        )
        seen = {row[0]: int(row[1]) for row in await connection.execute(newest)}
        is_running = kind in seen and now - seen[kind] <= RUNS_WITHIN_MS
        return LastSeen(now, max(seen.values(), default=None), is_running)

    async def try_write(self, *, keep: bool = False, bytes_wanted: int = 0) -> None:
        """Write a row of no meaning, of so many bytes; raises as every write does, at the first trouble.
        Rolled back, unless `keep`: a full disk often shows only at the commit."""
        try:
            await self._write_probe(keep, bytes_wanted)
        except _RolledBackError:
            return
        if bytes_wanted:
            await self._delete_probe()

    @writes(tries=1)
    async def _write_probe(self, connection: AsyncConnection, keep: bool, bytes_wanted: int) -> None:
        await connection.execute(sa.delete(leases).where(leases.c.name == PROBE))
        # Random, or it would be compressed to nothing.
        row = {"name": PROBE, "owner": os.urandom(bytes_wanted // 2).hex(), "until_ms": 0}
        await self.db.insert(connection, leases, [row], known="name")
        if not keep:
            raise _RolledBackError

    @writes(tries=1)
    async def _delete_probe(self, connection: AsyncConnection) -> None:
        await connection.execute(sa.delete(leases).where(leases.c.name == PROBE))


def database_now(db: Database) -> sa.ColumnElement[int]:
    """The database's time: UTC milliseconds since 1970."""
    if db.is_sqlite:
        days = sa.func.julianday("now") - sa.literal_column("2440587.5")
        return sa.cast(days * 86_400_000, Millis)
    return sa.cast(sa.func.extract("epoch", sa.func.clock_timestamp()) * 1000, Millis)
