"""Ends of runs: a run none of whose tasks is open is over, until a retry opens one again."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.standing import OPEN_AFTER_MS
from app.domain.task import RunState
from app.domain.time_format import DAY_MS
from app.store.part import StorePart, writes
from app.store.tables import (
    IS_CANCELLED_OPEN_RUN,
    IS_OPEN,
    IS_OPEN_RUN,
    REASON_CODE,
    runs,
    standing_runs,
    tasks,
)
from app.store.write.relay_messages import reopen_endpoints

FINISHED_MAX = 20
"""Runs that one call ends: the tasks of each are gone through once, to learn when it ended."""


_IS_REMARK = sa.and_(runs.c.state.in_((RunState.CANCELLED, RunState.RUNNING)), REASON_CODE.is_(None))


def has_open_task() -> sa.ColumnElement[bool]:
    """Of a row of runs; by the index of open tasks, which begins with the run."""
    return sa.exists().where(tasks.c.run_id == runs.c.id, IS_OPEN)


class RunEndWrites(StorePart):
    """Part of the store."""

    async def finish_runs(self, now_ms: int) -> int:
        """Mark runs that are over; how many. Found among those that are not marked, so that it costs the same
        however many are; only read while there is none."""
        ids = await self.db.read(lambda connection: _over(connection, now_ms))
        return await self._finish_if_over(ids, now_ms) if ids else 0

    @writes(long=True)
    async def _finish_if_over(self, connection: AsyncConnection, ids: Sequence[str], now_ms: int) -> int:
        # First: whoever opens a task of one holds its row, and is waited for.
        held = sa.select(runs.c.id).where(runs.c.id.in_(ids)).order_by(runs.c.id)
        await connection.execute(held.with_for_update(key_share=True))
        ended = await _ended(connection, ids)
        done = 0
        for run_id in ids:
            done += await _finish(connection, run_id, ended.get(run_id) or now_ms)
        return done


async def reopen_runs(connection: AsyncConnection, run_ids: Sequence[str]) -> None:
    """Let finished runs go on, in which a task was opened again. Their rows are locked by the caller."""
    await connection.execute(
        sa.update(runs)
        .where(runs.c.id.in_(run_ids), runs.c.finished_at_ms.is_not(None))
        .values(
            state=sa.case((runs.c.state == RunState.FINISHED, RunState.RUNNING), else_=runs.c.state),
            finished_at_ms=None,
        )
    )
    await reopen_endpoints(connection, run_ids)


def may_get_tasks(now_ms: int) -> sa.ColumnElement[bool]:
    """Of a row of runs: it is a standing run whose day is not over."""
    is_of_today = standing_runs.c.day_ms > now_ms - DAY_MS - OPEN_AFTER_MS
    return sa.exists().where(standing_runs.c.run_id == runs.c.id, is_of_today)


async def _over(connection: AsyncConnection, now_ms: int) -> list[str]:
    is_begun = runs.c.state != RunState.LOADING, ~may_get_tasks(now_ms)
    queries = (
        sa.select(runs.c.id).where(IS_OPEN_RUN, *is_begun, ~has_open_task()),
        sa.select(runs.c.id).where(IS_CANCELLED_OPEN_RUN, ~has_open_task()),
    )
    found: list[str] = []
    for query in queries:
        found += await connection.scalars(query.limit(FINISHED_MAX))
    return sorted(found)


async def _ended(connection: AsyncConnection, run_ids: Sequence[str]) -> dict[str, int | None]:
    """When the last task was settled, of runs in which each was: other ends (rejected, expired, cancelled)
    keep no time."""
    rows = await connection.execute(
        sa.select(tasks.c.run_id, sa.func.max(tasks.c.settled_at_ms))
        .where(tasks.c.run_id.in_(run_ids))
        .group_by(tasks.c.run_id)
        .having(sa.func.count() == sa.func.count(tasks.c.settled_at_ms))
    )
    return {row[0]: row[1] for row in rows}


async def _finish(connection: AsyncConnection, run_id: str, at_ms: int) -> int:
    done: sa.CursorResult[Any] = await connection.execute(
        sa.update(runs)
        .where(runs.c.id == run_id, sa.or_(IS_OPEN_RUN, IS_CANCELLED_OPEN_RUN), ~has_open_task())
        .where(runs.c.state != RunState.LOADING)
        .values(
            state=sa.case((runs.c.state == RunState.CANCELLED, runs.c.state), else_=RunState.FINISHED),
            # A run that was over before this column was there has its time from the migration.
            finished_at_ms=sa.func.coalesce(runs.c.finished_at_ms, at_ms),
            # What it waited for is over with it; a remark, which has no code, stays.
            reason=sa.case((_IS_REMARK, runs.c.reason)),
            reason_code=None,
        )
    )
    return done.rowcount
