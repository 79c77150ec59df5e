"""What runs have spent, as their budgets and the monthly ones count it.

Kept by the database itself: triggers on `tasks` and `attempts` (migration 0008) note what each statement
changed, whichever version of ours runs it. On PostgreSQL they append a row for each statement and run, so
that no writer waits for another, and `fold_spending` adds those up. At every commit sum and changes are
together what the rows of the run give; `tallyhook verify` checks it.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.task import TaskState
from app.store.part import StorePart, reads, writes
from app.store.tables import EVERY_ATTEMPT, Id, credits_sum, run_spending, spending_changes, tasks

FOLDED_MAX = 5_000
"""Changes added up by one call: some 50 ms."""


def spent(table: sa.Table) -> sa.ColumnElement[Decimal]:
    """Credits of an attempt that is charged, held, or perhaps accepted though we do not know it yet. The
    triggers say the same; a change here needs a migration that changes them."""
    harmless = TaskState.REJECTED, TaskState.CANCELLED
    perhaps = sa.case(
        (sa.and_(table.c.sends > 0, table.c.state.not_in(harmless)), table.c.credits_estimate), else_=0
    )
    return sa.func.coalesce(table.c.credits_charged, table.c.credits_held, perhaps)


def spending(run_id: sa.ColumnElement[str]) -> sa.ColumnElement[Decimal]:
    """What a run has spent so far, for a select in one snapshot."""
    changed = sa.select(sa.func.sum(spending_changes.c.credits)).where(spending_changes.c.run_id == run_id)
    kept = sa.select(run_spending.c.credits).where(run_spending.c.run_id == run_id)
    parts = [sa.func.coalesce(part.scalar_subquery(), 0) for part in (kept, changed)]
    return sa.type_coerce(parts[0] + parts[1], run_spending.c.credits.type)


def spending_from_rows(run_ids: Sequence[str]) -> sa.Select[Any]:
    """(run id, what it has spent) as its attempts say, all of them gone through."""
    parts = sa.union_all(
        *(
            sa.select(tasks.c.run_id, credits_sum(spent(table)).label("credits"))
            .select_from(source)
            .where(tasks.c.run_id.in_(run_ids))
            .group_by(tasks.c.run_id)
            for table, source in EVERY_ATTEMPT
        )
    ).subquery()
    return sa.select(parts.c.run_id, credits_sum(parts.c.credits)).group_by(parts.c.run_id)


class SpendingWrites(StorePart):
    """Part of the store."""

    async def fold_spending(self) -> int:
        """Add noted changes to the sums of their runs, the oldest first; how many. Readers see all of it or
        nothing."""
        if self.db.is_sqlite:
            return 0  # one writer at a time: its triggers keep the sums themselves
        return await self._fold_oldest() if await self._is_any_left() else 0

    @reads
    async def _is_any_left(self, connection: AsyncConnection) -> bool:
        return await connection.scalar(sa.select(spending_changes.c.id).limit(1)) is not None

    @writes
    async def _fold_oldest(self, connection: AsyncConnection) -> int:
        oldest = sa.select(spending_changes.c.id).order_by(spending_changes.c.id).limit(FOLDED_MAX)
        oldest = oldest.with_for_update(skip_locked=True)
        taken = await connection.execute(
            sa.delete(spending_changes)
            .where(spending_changes.c.id.in_(oldest))
            .returning(spending_changes.c.run_id, spending_changes.c.credits)
        )
        rows = taken.all()
        sums: dict[str, Decimal] = {}
        for run_id, credits in rows:
            sums[run_id] = sums.get(run_id, Decimal(0)) + credits
        await self._add(connection, sums)
        return len(rows)

    async def _add(self, connection: AsyncConnection, sums: dict[str, Decimal]) -> None:
        # In one order, so that two that fold at once wait for each other and no more.
        data = [{"run_id": run_id, "credits": credits} for run_id, credits in sorted(sums.items())]
        new = [row | {"credits": Decimal(0)} for row in data]
        await self.db.insert(connection, run_spending, new, known="run_id")
        batch = self.db.batch("v", {"run_id": Id, "credits": run_spending.c.credits.type}, data)
        await connection.execute(
            sa.update(run_spending)
            .where(run_spending.c.run_id == batch.c.run_id)
            .values(credits=run_spending.c.credits + batch.c.credits)
        )
