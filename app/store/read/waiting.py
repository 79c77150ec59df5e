"""What the open tasks of a run wait for."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.task import TaskState
from app.store.part import StorePart, reads
from app.store.tables import IS_OPEN, is_due, tasks
from app.store.write.health import database_now


@dataclass(slots=True)
class Waiting:
    """By the database's clock."""

    now_ms: int
    to_send: int = 0
    """Tasks that may be sent now."""
    put_off: int = 0
    """Tasks that are to be sent later, because of an earlier answer."""
    send_at_ms: int | None = None
    """When the first of those may be."""
    unreported: int = 0
    """Tasks that the provider has, without a report."""
    ask_at_ms: int | None = None
    """When the first of those is asked for, unless it is late by the run's own measure before."""


class WaitingReads(StorePart):
    """Part of the store."""

    @reads
    async def waiting(self, connection: AsyncConnection, run_id: str) -> Waiting:
        """Of one run, through the index of its open tasks."""
        now = int(await connection.scalar(sa.select(database_now(self.db))) or 0)
        found, t = Waiting(now), tasks.c
        due = sa.case((is_due(now), 1), else_=0)
        rows = await connection.execute(
            sa.select(
                t.state, due, sa.func.count(), sa.func.min(t.not_before_ms), sa.func.min(t.next_poll_at_ms)
            )
            .where(t.run_id == run_id, IS_OPEN)
            .group_by(t.state, due)
        )
        for state, is_now, count, send_at_ms, ask_at_ms in rows:
            if state == TaskState.SUBMITTED:
                found.unreported += count
                found.ask_at_ms = min(filter(None, (found.ask_at_ms, ask_at_ms)), default=None)
            elif state == TaskState.PENDING and not is_now:
                found.put_off, found.send_at_ms = count, send_at_ms
            elif state == TaskState.PENDING:
                found.to_send = count
        return found
