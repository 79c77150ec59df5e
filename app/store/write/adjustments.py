"""The write of an adjustment: one more entry, never an edit."""

from dataclasses import dataclass
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.text import storable
from app.store.part import StorePart, reads, writes
from app.store.tables import account_entries, runs, tasks


@dataclass(frozen=True, slots=True)
class AdjustedTask:
    """The task that an adjustment is about."""

    id: str
    run_id: str
    account: str
    attempt: int
    """Its current one."""


class AdjustmentWrites(StorePart):
    """Part of the store."""

    @reads
    async def find_task(self, connection: AsyncConnection, task_id: str) -> AdjustedTask | None:
        """A task by its id; None: there is none."""
        query = (
            sa.select(tasks.c.id, tasks.c.run_id, runs.c.account, tasks.c.attempt)
            .join(runs, runs.c.id == tasks.c.run_id)
            .where(tasks.c.id == task_id)
        )
        row = (await connection.execute(query)).first()
        return None if row is None else AdjustedTask(*row)

    @writes
    async def add_adjustment(
        self,
        connection: AsyncConnection,
        credits: Decimal,
        reason: str,
        *,
        account: str,
        run_id: str,
        task_id: str | None,
        attempt: int | None,
        now_ms: int,
    ) -> Decimal:
        """Append it; the sum of all adjustments of the same task, or of the same run if no task is named."""
        c = account_entries.c
        row = {
            "at_ms": now_ms,
            "account": account,
            "kind": "adjustment",
            "credits": credits,
            "cycle_ms": None,
            "run_id": run_id,
            "task_id": task_id,
            "attempt": attempt,
            "reason": storable(reason),
        }
        about = c.run_id == run_id if task_id is None else c.task_id == task_id
        total = sa.select(sa.func.sum(c.credits)).where(c.kind == "adjustment", about)
        # Two equal rows are two entries: a repeated write, after a commit whose answer was lost, must find
        # its own.
        same = sa.select(c.id).where(*(c[name] == value for name, value in row.items()))
        if await connection.scalar(same) is None:
            await self.db.insert(connection, account_entries, [row])
        return await connection.scalar(total) or Decimal(0)
