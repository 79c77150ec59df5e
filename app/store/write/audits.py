"""What an audit keeps and reads: balance snapshots, and the entries of the account itself.

Entries are appended, never edited. The start and the end of a cycle are written once, by a unique key; the
rest by how much is missing of what they should add up to, under a lock on the cycle, so that any number of
audits at once write it once.
"""

from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.accounting.balances import Balance
from app.domain.accounting.billing import AccountEntry, EntryKind, SeenReset
from app.store.part import StorePart, reads, writes
from app.store.tables import account_entries, balances, credits_sum, is_not_ahead, ledger, runs


class AuditWrites(StorePart):
    """Part of the store."""

    @reads(long=True)
    async def seen_resets(self, connection: AsyncConnection, account: str) -> list[SeenReset]:
        """Every end of cycle that the provider reported, with the time it first did."""
        c = balances.c
        query = (
            sa.select(c.resets_at_ms, sa.func.min(c.at_ms))
            .where(c.account == account, c.resets_at_ms.is_not(None))
            .group_by(c.resets_at_ms)
        )
        return [SeenReset(*row) for row in await connection.execute(query)]

    @reads(long=True)
    async def snapshots(
        self, connection: AsyncConnection, account: str, from_ms: int, to_ms: int
    ) -> list[Balance]:
        """Balances reported between two times, both included, oldest first."""
        c = balances.c
        query = (
            sa.select(c.at_ms, c.remaining, c.per_cycle, c.resets_at_ms, c.source)
            .where(c.account == account, c.at_ms >= from_ms, c.at_ms <= to_ms)
            .order_by(c.at_ms, c.id)
        )
        return [Balance(*row) for row in await connection.execute(query)]

    @reads(long=True)
    async def plan_snapshots(
        self, connection: AsyncConnection, account: str, from_ms: int, to_ms: int
    ) -> list[Balance]:
        """The first and the last balance reported of each plan and cycle between two times, oldest first."""
        c = balances.c
        inside = c.account == account, c.at_ms >= from_ms, c.at_ms <= to_ms, c.per_cycle.is_not(None)
        edges = (
            sa.select(sa.func.min(c.at_ms).label("first"), sa.func.max(c.at_ms).label("last"))
            .where(*inside)
            .group_by(c.per_cycle, c.resets_at_ms)
            .subquery()
        )
        reported = sa.select(c.at_ms, c.remaining, c.per_cycle, c.resets_at_ms, c.source).where(
            *inside, c.at_ms.in_(sa.union(sa.select(edges.c.first), sa.select(edges.c.last)))
        )
        rows = await connection.execute(reported.order_by(c.at_ms, c.id))
        return [Balance(*row) for row in rows]

    @reads(long=True)
    async def last_snapshot(self, connection: AsyncConnection, account: str, now_ms: int) -> Balance | None:
        """The newest that was asked for; a header says nothing of cycles."""
        c = balances.c
        query = (
            sa.select(c.at_ms, c.remaining, c.per_cycle, c.resets_at_ms, c.source)
            .where(c.account == account, c.source == "credits", is_not_ahead(c.at_ms, now_ms))
            .order_by(c.at_ms.desc(), c.id.desc())
            .limit(1)
        )
        row = (await connection.execute(query)).first()
        return None if row is None else Balance(*row)

    @reads(long=True)
    async def account_entries(self, connection: AsyncConnection, account: str) -> list[AccountEntry]:
        """All entries of the account, and corrections of its tasks', oldest first."""
        c = account_entries.c
        query = (
            sa.select(c.at_ms, c.kind, c.credits, c.cycle_ms, c.reason)
            .where(c.account == account)
            .order_by(c.id)
        )
        rows = await connection.execute(query)
        return [AccountEntry(row[0], EntryKind(row[1]), *row[2:]) for row in rows]

    @writes(long=True)
    async def append_if_first(self, connection: AsyncConnection, account: str, entry: AccountEntry) -> bool:
        """Write an allocation or an expiry, unless its cycle has one. Whether it was written."""
        row = {"account": account, **_row(entry)}
        before = await connection.scalar(_count_of(account, entry))
        await self.db.insert(connection, account_entries, [row], ignore=True)
        return not before

    @writes(long=True)
    async def append_missing(
        self, connection: AsyncConnection, account: str, target: AccountEntry
    ) -> Decimal:
        """Write what is missing for the entries of this kind, cycle and cause to add up to the target's
        credits. What was written; 0 when they do already."""
        c = account_entries.c
        cycle = c.account == account, c.cycle_ms == target.cycle_ms
        same_cause = sa.or_(c.reason == target.cause, c.reason.startswith(f"{target.cause}:"))
        booked = sa.select(credits_sum(c.credits)).where(*cycle, c.kind == target.kind, same_cause)
        # The allocation stands for its cycle: whoever else audits it waits here, and then finds it done.
        lock = sa.select(c.id).where(*cycle, c.kind == EntryKind.ALLOCATION).with_for_update()
        await connection.execute(lock)
        missing = target.credits - (await connection.scalar(booked) or Decimal(0))
        if missing:
            row = {"account": account, **_row(target), "credits": missing}
            await self.db.insert(connection, account_entries, [row])
        return missing

    @reads(long=True)
    async def accounts_with_runs(self, connection: AsyncConnection) -> list[str]:
        """Accounts that ever had something to pay for."""
        return sorted((await connection.scalars(sa.select(runs.c.account).distinct())).all())

    @reads(long=True)
    async def last_ledger_ms(self, connection: AsyncConnection) -> int | None:
        """When the ledger was written last, whoever's the entry; None: never."""
        query = sa.select(ledger.c.at_ms).order_by(ledger.c.id.desc()).limit(1)
        return await connection.scalar(query)


def _count_of(account: str, entry: AccountEntry) -> sa.Select[Any]:
    c = account_entries.c
    return (
        sa.select(sa.func.count())
        .select_from(account_entries)
        .where(c.account == account, c.kind == entry.kind, c.cycle_ms == entry.cycle_ms)
    )


def _row(entry: AccountEntry) -> dict[str, Any]:
    return {
        "at_ms": entry.at_ms,
        "kind": entry.kind,
        "credits": entry.credits,
        "cycle_ms": entry.cycle_ms,
        "reason": entry.reason,
    }
