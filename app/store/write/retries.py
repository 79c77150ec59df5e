"""Writes of a retry: the next attempt of a task whose work is closed. Same row, new key; the old attempt is
kept with it, because its money may still move.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.task import RETRYABLE_STATES, Money, RunState, TaskState, idempotency_key
from app.store.database import Database
from app.store.part import StorePart, writes
from app.store.tables import IS_RETRYABLE, Id, attempts, runs, tasks
from app.store.write.open_sends import is_refusal_in_doubt
from app.store.write.run_ends import reopen_runs

_ARCHIVED = [c.name for c in attempts.c if c.name not in ("task_id", "attempt")]
RETRYING = (RunState.RUNNING, RunState.PAUSED, RunState.STOPPED, RunState.FINISHED)
"""Runs whose tasks may be sent again."""


@dataclass(frozen=True, slots=True)
class RetriedChunk:
    """What became of some tasks of a run that were to be retried."""

    last: int
    """Ordinal of the last task looked at; 0: there was none."""
    retried: int = 0
    estimate: Decimal = Decimal(0)
    """Credits of the new attempts."""
    held: int = 0
    """Left alone: the old attempt may still be charged."""
    answered: int = 0
    """Left alone: the report came late, but it came, and it was a success."""


class RetryWrites(StorePart):
    """Part of the store."""

    @writes(long=True)
    async def retry_tasks_if_closed(
        self, connection: AsyncConnection, task_ids: Sequence[str], now_ms: int
    ) -> int:
        """Give failed, expired or rejected tasks their next attempt, under a new key; how many."""
        batch = self.db.batch("v", {"id": Id}, [{"id": i} for i in sorted(set(task_ids))])
        theirs = sa.select(tasks.c.run_id).join(batch, tasks.c.id == batch.c.id)
        locked = sa.select(runs.c.id).where(runs.c.id.in_(theirs)).order_by(runs.c.id)
        await connection.execute(locked.with_for_update(key_share=True))
        chosen = await connection.execute(
            with_attempt()
            .join(batch, tasks.c.id == batch.c.id)
            .where(tasks.c.state.in_(RETRYABLE_STATES))
            .order_by(tasks.c.id)
            .with_for_update(of=tasks)
        )
        rows = chosen.all()
        await add_attempts(self.db, connection, rows, now_ms)
        await reopen_runs(connection, sorted({row.run_id for row in rows}))
        return len(rows)

    @writes(long=True)
    async def retry_chunk(
        self,
        connection: AsyncConnection,
        run_id: str,
        states: Sequence[TaskState],
        *,
        after: int,
        limit: int,
        even_if_held: bool,
        now_ms: int,
        is_dry_run: bool = False,
    ) -> RetriedChunk:
        """Retry up to `limit` tasks of a run that are in one of `states`, in the order of its source from
        ordinal `after` on. A run that was cancelled meanwhile gets no new attempts. With `is_dry_run` none
        does, and it is said which would."""
        # Nobody cancels or ends the run before the new attempts stand there.
        run = sa.select(runs.c.state).where(runs.c.id == run_id).with_for_update(key_share=True)
        if await connection.scalar(run) not in RETRYING:
            return RetriedChunk(0)
        chosen = await connection.execute(
            with_attempt()
            .where(tasks.c.run_id == run_id, tasks.c.ordinal > after)
            .where(tasks.c.state.in_(states), IS_RETRYABLE)
            .order_by(tasks.c.ordinal)
            .limit(limit)
            .with_for_update(of=tasks)
        )
        rows = chosen.all()
        closed = [row for row in rows if row.reported != TaskState.COMPLETED]
        retried = [row for row in closed if even_if_held or not row.may_be_charged]
        if retried and not is_dry_run:
            await add_attempts(self.db, connection, retried, now_ms)
            await reopen_runs(connection, [run_id])
        return RetriedChunk(
            rows[-1].ordinal if rows else 0,
            len(retried),
            sum((row.credits_estimate for row in retried), Decimal(0)),
            held=len(closed) - len(retried),
            answered=len(rows) - len(closed),
        )


async def add_attempts(
    db: Database, connection: AsyncConnection, rows: Sequence[sa.Row[Any]], now_ms: int
) -> None:
    """Give tasks, as `with_attempt` reads them, their next attempt, within a transaction of the caller's, who
    has locked them and their runs."""
    if not rows:
        return
    archived = [
        {"task_id": row.id, "attempt": row.attempt} | {name: row._mapping[name] for name in _ARCHIVED}
        for row in rows
    ]
    await db.insert(connection, attempts, archived)
    types = {"id": Id, "attempt": sa.Integer(), "key": sa.Text()}
    data = [
        {"id": row.id, "attempt": row.attempt + 1, "key": idempotency_key(row.id, row.attempt + 1)}
        for row in rows
    ]
    batch = db.batch("v", types, data)
    blank = dict.fromkeys(
        (
            "credits_to_charge",
            "credits_held",
            "credits_charged",
            "reported",
            "verdict",
            "provider_task_id",
            "error_code",
            "error_message",
            "first_sent_at_ms",
            "submitted_at_ms",
            "settled_at_ms",
            "settled_by",
            "claim",
            "lease_until_ms",
            "next_poll_at_ms",
        )
    )
    await connection.execute(
        sa.update(tasks)
        .where(tasks.c.id == batch.c.id, tasks.c.attempt == batch.c.attempt - 1)
        .values(
            state=TaskState.PENDING,
            attempt=batch.c.attempt,
            idempotency_key=batch.c.key,
            money=Money.NONE,
            sends=0,
            polls=0,
            not_before_ms=now_ms,
            **blank,
        )
    )


def with_attempt() -> sa.Select[Any]:
    """Tasks with their current attempts, and `may_be_charged`."""
    columns = (tasks.c[name] for name in _ARCHIVED)
    charged = may_be_charged().label("may_be_charged")
    return sa.select(tasks.c.id, tasks.c.run_id, tasks.c.ordinal, tasks.c.attempt, charged, *columns)


def may_be_charged() -> sa.ColumnElement[bool]:
    """Of a closed task: the hold is open; or the task expired without our ever learning whether it was
    accepted, or was refused after such a send, by a version that closed it all the same."""
    is_unknown = sa.or_(tasks.c.state == TaskState.EXPIRED, is_refusal_in_doubt())
    return sa.or_(tasks.c.money == Money.HELD, sa.and_(tasks.c.money == Money.NONE, is_unknown))
