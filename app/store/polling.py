"""Writes of the sweep: which tasks to ask the provider about, and giving up on those it has forgotten."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.task import Money, TaskState
from app.store.engine import Database
from app.store.tables import Id, Millis, runs, tasks

POLL_BACKOFF_STEPS = 8
"""The interval grows by its first value at each poll, up to this many times it."""


@dataclass(frozen=True, slots=True)
class DuePoll:
    """An attempt to ask the provider about."""

    task_id: str
    attempt: int
    state: TaskState
    provider_task_id: str | None
    idempotency_key: str
    first_sent_at_ms: int
    polls: int
    account: str


class PollingWrites:
    """Part of Store."""

    db: Database

    async def claim_due_polls(self, *, limit: int, now_ms: int, interval_ms: int) -> list[DuePoll]:
        """Attempts whose report is overdue, longest first. Each one's next time is set before it is asked,
        so one that always fails cannot hold up the rest (W12)."""

        async def work(connection: AsyncConnection) -> list[DuePoll]:
            chosen = (
                sa.select(tasks.c.id)
                .where(tasks.c.next_poll_at_ms <= now_ms)
                .order_by(tasks.c.next_poll_at_ms)
                .limit(limit)
                .with_for_update(skip_locked=True)
                .cte("chosen")
            )
            steps = sa.case(
                (tasks.c.polls >= POLL_BACKOFF_STEPS, POLL_BACKOFF_STEPS), else_=tasks.c.polls + 1
            )
            claimed = await connection.execute(
                sa.update(tasks)
                .where(tasks.c.id.in_(sa.select(chosen.c.id)), tasks.c.next_poll_at_ms <= now_ms)
                .values(
                    polls=tasks.c.polls + 1,
                    next_poll_at_ms=sa.literal(now_ms, Millis) + sa.literal(interval_ms, Millis) * steps,
                )
                .returning(
                    tasks.c.id, tasks.c.attempt, tasks.c.state, tasks.c.provider_task_id,
                    tasks.c.idempotency_key, tasks.c.first_sent_at_ms, tasks.c.polls,
                    sa.select(runs.c.account).where(runs.c.id == tasks.c.run_id).scalar_subquery(),
                )
            )  # fmt: skip
            return [DuePoll(r[0], r[1], TaskState(r[2]), *r[3:]) for r in claimed]

        return await self.db.write(work)

    async def expire_if_unreported(
        self, expired: Sequence[tuple[str, int]], *, code: str, reason: str
    ) -> int:
        """Close the work of attempts that the provider no longer knows. Their money stays open: a late
        report still posts."""
        if not expired:
            return 0
        data = [{"id": i, "attempt": n} for i, n in expired]

        async def work(connection: AsyncConnection) -> int:
            v = self.db.batch("v", {"id": Id, "attempt": sa.Integer()}, data)
            mine = tasks.c.id == v.c.id, tasks.c.attempt == v.c.attempt
            done = await connection.execute(
                sa.update(tasks)
                .where(*mine, tasks.c.state == TaskState.SUBMITTED)
                .values(state=TaskState.EXPIRED, next_poll_at_ms=None, error_code=code, error_message=reason)
            )
            # Settled, but its charge never came: there is nobody left to ask.
            await connection.execute(
                sa.update(tasks)
                .where(*mine, tasks.c.reported.is_not(None), tasks.c.money == Money.HELD)
                .values(next_poll_at_ms=None)
            )
            return done.rowcount

        return await self.db.write(work)
