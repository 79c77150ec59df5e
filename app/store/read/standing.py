"""Reads for callers who know a task by its id or by their own key, and of what their account has queued.
Nothing here writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.task import OPEN_STATES, TaskState
from app.store.part import reads
from app.store.read.bodies import AnswerReads
from app.store.read.exports import Row, read_results
from app.store.read.own_columns import own_columns
from app.store.read.progress import progress_of_many
from app.store.tables import IS_OPEN_RUN, IS_PENDING, Id, results, runs, task_keys, tasks

COUNTED_MAX = 10_000
"""Queued tasks whose priorities are counted; of more it is not said."""


@dataclass(frozen=True, slots=True)
class Queued:
    """What the runs of an account have before them."""

    waiting: int
    """Tasks that are not accepted yet."""
    accepted: int
    """Tasks that are, without a report."""
    credits: Decimal
    """What both will cost, as far as is known."""
    by_priority: Sequence[tuple[int, int]] | None
    """(priority, tasks that are not sent yet), the highest first; None: too many to be counted."""


class StandingReads(AnswerReads):
    """Part of the store."""

    @reads
    async def task_with_key(self, connection: AsyncConnection, token_id: str, key: str) -> str | None:
        """The id of the task for which a token gave this key."""
        k = task_keys.c
        return await connection.scalar(sa.select(k.task_id).where(k.token_id == token_id, k.key == key))

    @reads(long=True)
    async def task(self, connection: AsyncConnection, task_id: str, account: str | None) -> Row | None:
        """A task with its answer, as `SettledReads` has it; None: there is none of the account's. `account`
        None: whosever."""
        t, r = tasks.c, results.c
        query = (
            sa.select(
                t.id.label("task_id"),
                *own_columns(),
                t.task_type,
                t.payload,
                t.priority,
                t.state,
                t.attempt,
                t.credits_estimate,
                t.credits_to_charge,
                t.credits_charged,
                t.error_code,
                t.error_message,
                t.submitted_at_ms,
                t.settled_at_ms,
                r.delivery_id,
                r.answer_bytes,
                r.answer_sha256,
            )
            .join(runs, runs.c.id == t.run_id)
            .outerjoin(results, sa.and_(r.task_id == t.id, r.attempt == t.attempt))
            .where(t.id == task_id)
        )
        if account is not None:
            query = query.where(runs.c.account == account)
        rows, _ = await read_results(self.db, connection, self._read_answer, query, self._archive)
        return rows[0] if rows else None

    @reads
    async def ended(self, connection: AsyncConnection, task_ids: Sequence[str]) -> set[str]:
        """Those of some tasks whose work is over."""
        v = self.db.batch("v", {"id": Id}, [{"id": task_id} for task_id in task_ids])
        query = sa.select(tasks.c.id).join(v, v.c.id == tasks.c.id).where(tasks.c.state.not_in(OPEN_STATES))
        return set((await connection.execute(query)).scalars())

    @reads
    async def queued(self, connection: AsyncConnection, account: str | None) -> Queued:
        """Of the runs that are not over, from what is kept of them."""
        is_own = sa.true() if account is None else runs.c.account == account
        run_ids = (await connection.scalars(sa.select(runs.c.id).where(IS_OPEN_RUN, is_own))).all()
        waiting, accepted, credits = 0, 0, Decimal(0)
        for progress in (await progress_of_many(connection, run_ids)).values():
            states = progress.states
            waiting += states.get(TaskState.PENDING, 0) + states.get(TaskState.SUBMITTING, 0)
            accepted += states.get(TaskState.SUBMITTED, 0)
            credits += progress.held + sum(
                (cell.estimate for cell in progress.cells if cell.state in _NOT_HELD), Decimal(0)
            )
        by_priority = await _by_priority(connection, run_ids) if waiting <= COUNTED_MAX else None
        return Queued(waiting, accepted, credits, by_priority)


_NOT_HELD = (TaskState.PENDING, TaskState.SUBMITTING)


async def _by_priority(connection: AsyncConnection, run_ids: Sequence[str]) -> list[tuple[int, int]]:
    t = tasks.c
    query = sa.select(t.priority, sa.func.count()).where(IS_PENDING, t.run_id.in_(run_ids))
    found = await connection.execute(query.group_by(t.priority).order_by(t.priority.desc()))
    return [(row[0], row[1]) for row in found]
