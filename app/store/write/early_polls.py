"""Runs of which all but a few tasks are in, and polls of those few that are brought forward.

What is read of a run is bounded, however large it is.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.early_polls import EARLY_POLLS_MAX, FEW_MAX, Late, few_of
from app.domain.settlement import Source
from app.domain.task import TaskState
from app.store.part import StorePart, reads, writes
from app.store.tables import IS_CANCELLED_OPEN_RUN, IS_OPEN, IS_OPEN_RUN, runs, tasks


class EarlyPollWrites(StorePart):
    """Part of the store."""

    @reads
    async def runs_nearly_in(self, connection: AsyncConnection) -> list[tuple[str, int, list[str]]]:
        """Runs with few open tasks: id, last ordinal, engines of those that may be asked for early."""
        of_run = tasks.c.run_id == runs.c.id
        open_tasks = sa.select(sa.literal(1)).where(of_run, IS_OPEN).limit(FEW_MAX + 1).correlate(runs)
        last = sa.select(sa.func.max(tasks.c.ordinal)).where(of_run).scalar_subquery()
        count = sa.select(sa.func.count()).select_from(open_tasks.subquery()).scalar_subquery()
        waits = sa.exists().where(of_run, *_WAITS)
        is_open = sa.or_(IS_OPEN_RUN, IS_CANCELLED_OPEN_RUN)
        found = await connection.execute(sa.select(runs.c.id, last, count).where(is_open, waits))
        nearly = [(run_id, last) for run_id, last, count in found if count <= few_of(last)]
        return [(run_id, last, await _engines(connection, run_id)) for run_id, last in nearly]

    @reads
    async def report_times(
        self, connection: AsyncConnection, run_id: str, ordinals: Sequence[int]
    ) -> list[tuple[str, int]]:
        """(engine, ms from sending to the report) of those of the tasks whose report a webhook brought."""
        t = tasks.c
        query = sa.select(t.task_type, t.settled_at_ms - t.first_sent_at_ms).where(
            t.run_id == run_id, t.ordinal.in_(ordinals), t.settled_by == Source.DELIVERY
        )
        return [(engine, ms) for engine, ms in await connection.execute(query) if ms is not None]

    async def bring_polls_forward(
        self, late: Sequence[Late], *, now_ms: int, interval_ms: int, limit: int
    ) -> int:
        """Make polls of late tasks due now, the longest sent first; how many. `interval_ms`: that with which
        the last poll set the time of the next one."""
        ids = await self._late_tasks(late, now_ms, interval_ms, limit) if late else []
        return await self._bring_forward(ids, now_ms) if ids else 0

    @reads
    async def _late_tasks(
        self, connection: AsyncConnection, late: Sequence[Late], now_ms: int, interval_ms: int, limit: int
    ) -> list[str]:
        t = tasks.c
        is_late = sa.or_(
            *(
                sa.and_(
                    t.run_id == part.run_id,
                    t.task_type == part.task_type,
                    t.polls == polls,
                    t.next_poll_at_ms <= now_ms - wait_ms + interval_ms * polls
                    if polls
                    else t.first_sent_at_ms <= now_ms - wait_ms,
                )
                for part in late
                for polls, wait_ms in enumerate(part.waits_ms)
            )
        )
        of_runs = t.run_id.in_(sorted({part.run_id for part in late}))
        query = sa.select(t.id).where(of_runs, *_MAY_BE_ASKED, is_late, t.next_poll_at_ms > now_ms)
        return list(await connection.scalars(query.order_by(t.first_sent_at_ms).limit(limit)))

    @writes
    async def _bring_forward(self, connection: AsyncConnection, ids: Sequence[str], now_ms: int) -> int:
        moved = await connection.execute(
            sa.update(tasks)
            .where(tasks.c.id.in_(ids), *_MAY_BE_ASKED, tasks.c.next_poll_at_ms > now_ms)
            .values(next_poll_at_ms=now_ms)
        )
        return moved.rowcount


_WAITS = (IS_OPEN, tasks.c.state == TaskState.SUBMITTED)
_MAY_BE_ASKED = (
    *_WAITS,
    # Where no id is known most editions have nothing to ask for; a sync call has none either.
    tasks.c.provider_task_id.is_not(None),
    tasks.c.polls < EARLY_POLLS_MAX,
)


async def _engines(connection: AsyncConnection, run_id: str) -> list[str]:
    waiting = sa.select(tasks.c.task_type).where(tasks.c.run_id == run_id, *_MAY_BE_ASKED).distinct()
    return sorted(await connection.scalars(waiting))
