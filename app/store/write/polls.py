"""Writes of the sweep: which tasks to ask the provider about, giving up on those it has forgotten, and what
polls tell of deliveries that were acknowledged and are not here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.settlement import Source
from app.domain.task import Money, TaskState
from app.domain.time_format import DAY_MS
from app.domain.verdicts import Verdict
from app.store.days import since, since_tasks, time_of
from app.store.part import StorePart, reads, writes
from app.store.tables import IS_WAITING, Id, Millis, attempts, deliveries, findings, runs, tasks
from app.store.write.inbox import unpack
from app.store.write.relay_messages import add_closed

POLL_BACKOFF_STEPS = 8
"""The interval grows by its first value at each poll, up to this many times it."""

KEPT_DAYS = 3
"""The provider forgets a task after a day. A webhook that came earlier than this before its poll is looked
for only where it seems to be missing."""


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


@dataclass(frozen=True, slots=True)
class PollWithoutDelivery:
    """A poll that settled an attempt of which no delivery is stored."""

    id: str
    """The poll's row among the deliveries; ids order by time."""
    run_id: str
    task_id: str
    attempt: int
    first_sent_at_ms: int
    body: bytes


class PollWrites(StorePart):
    """Part of the store."""

    @writes
    async def claim_due_polls(
        self, connection: AsyncConnection, *, limit: int, now_ms: int, interval_ms: int
    ) -> list[DuePoll]:
        """Attempts whose report is overdue, longest first. Each one's next time is set before it is asked,
        so one that always fails cannot hold up the rest (W12)."""
        chosen = (
            sa.select(tasks.c.id)
            .where(tasks.c.next_poll_at_ms <= now_ms)
            .order_by(tasks.c.next_poll_at_ms)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("chosen")
        )
        steps = sa.case((tasks.c.polls >= POLL_BACKOFF_STEPS, POLL_BACKOFF_STEPS), else_=tasks.c.polls + 1)
        claimed = await connection.execute(
            sa.update(tasks)
            .where(tasks.c.id.in_(sa.select(chosen.c.id)), tasks.c.next_poll_at_ms <= now_ms)
            .values(
                polls=tasks.c.polls + 1,
                next_poll_at_ms=sa.literal(now_ms, Millis) + sa.literal(interval_ms, Millis) * steps,
            )
            .returning(
                tasks.c.id,
                tasks.c.attempt,
                tasks.c.state,
                tasks.c.provider_task_id,
                tasks.c.idempotency_key,
                tasks.c.first_sent_at_ms,
                tasks.c.polls,
                sa.select(runs.c.account).where(runs.c.id == tasks.c.run_id).scalar_subquery(),
            )
        )
        return [DuePoll(r[0], r[1], TaskState(r[2]), *r[3:]) for r in claimed]

    async def expire_if_unreported(
        self, expired: Sequence[tuple[str, int]], *, code: str, reason: str
    ) -> int:
        """Close the work of attempts that the provider no longer knows. Their money stays open: a late
        report still posts."""
        return await self._expire(expired, code, reason) if expired else 0

    @writes
    async def _expire(
        self, connection: AsyncConnection, expired: Sequence[tuple[str, int]], code: str, reason: str
    ) -> int:
        data = [{"id": i, "attempt": n} for i, n in expired]
        batch = self.db.batch("v", {"id": Id, "attempt": sa.Integer()}, data)
        is_expired = tasks.c.id == batch.c.id, tasks.c.attempt == batch.c.attempt
        done = await connection.execute(
            sa.update(tasks)
            .where(*is_expired, tasks.c.state == TaskState.SUBMITTED)
            .values(state=TaskState.EXPIRED, next_poll_at_ms=None, error_code=code, error_message=reason)
        )
        await add_closed(
            self.db, connection, TaskState.EXPIRED, tasks.c.id.in_([task_id for task_id, _ in expired])
        )
        # Settled, but its charge never came: there is nobody left to ask.
        await connection.execute(
            sa.update(tasks)
            .where(*is_expired, tasks.c.reported.is_not(None), tasks.c.money == Money.HELD)
            .values(next_poll_at_ms=None)
        )
        return done.rowcount

    @reads
    async def oldest_waiting_poll(self, connection: AsyncConnection) -> str | None:
        """The id of the oldest poll that is not settled yet."""
        d = deliveries.c
        # An order that no index has: otherwise, with nothing waiting, all deliveries are gone through by id.
        in_order = sa.func.coalesce(d.id, d.task_id)
        query = sa.select(d.id).where(IS_WAITING, d.source == Source.POLL).order_by(in_order).limit(1)
        return await connection.scalar(query)

    @reads
    async def polls_without_delivery(
        self, connection: AsyncConnection, *, after: str, before: str, limit: int
    ) -> list[PollWithoutDelivery]:
        """Polls with ids in a span of time, oldest first, that found a finished task of which no delivery
        is stored."""
        poll, other = deliveries, deliveries.alias("other")
        stored = sa.exists().where(
            other.c.task_id == poll.c.task_id,
            other.c.attempt == poll.c.attempt,
            other.c.source == Source.DELIVERY,
            # One from before is found when this is noted.
            since(connection, other.c.id, time_of(after) - KEPT_DAYS * DAY_MS),
        )
        query = (
            sa.select(
                poll.c.id,
                tasks.c.run_id,
                poll.c.task_id,
                poll.c.attempt,
                sa.func.coalesce(attempts.c.first_sent_at_ms, tasks.c.first_sent_at_ms, 0),
                poll.c.encoding,
                poll.c.body,
            )
            .join(tasks, tasks.c.id == poll.c.task_id)
            .outerjoin(
                attempts, sa.and_(attempts.c.task_id == poll.c.task_id, attempts.c.attempt == poll.c.attempt)
            )
            .where(poll.c.id > after, poll.c.id < before)
            .where(poll.c.source == Source.POLL, poll.c.state == "done", ~stored)
            .order_by(poll.c.id)
            .limit(limit)
        )
        rows = await connection.execute(query)
        return [PollWithoutDelivery(*row[:5], unpack(row.encoding, row.body)) for row in rows]

    @reads
    async def webhooks_without_task(self, connection: AsyncConnection, since: str) -> set[str]:
        """Provider's task ids of deliveries with ids from `since` on that are stored and belong to no task of
        ours: not settled yet, set aside, or unmatched. Their names are in the webhook's id (C-I.2)."""
        d = deliveries.c
        query = sa.select(d.webhook_id).where(
            d.id >= since, d.source == Source.DELIVERY, d.task_id.is_(None), d.webhook_id.is_not(None)
        )
        return {webhook_id.rpartition("-")[0] for webhook_id in await connection.scalars(query)}

    @writes
    async def note_lost_after_ack(
        self, connection: AsyncConnection, lost: Sequence[tuple[PollWithoutDelivery, str]], now_ms: int
    ) -> int:
        """A finding for each poll with its detail, unless its attempt has one, or a delivery came after all;
        how many were new."""
        ids = sorted({poll.task_id for poll, _ in lost})
        batch = self.db.batch("v", {"id": Id}, [{"id": i} for i in ids])
        # Whoever notes the same tasks waits here, and then sees what was noted.
        locked = sa.select(tasks.c.id).join(batch, tasks.c.id == batch.c.id).order_by(tasks.c.id)
        await connection.execute(locked.with_for_update(of=tasks))
        noted = await connection.execute(
            sa.select(findings.c.task_id, findings.c.attempt)
            .join(batch, findings.c.task_id == batch.c.id)
            .where(findings.c.verdict == Verdict.LOST_AFTER_ACK)
        )
        came = await connection.execute(
            sa.select(deliveries.c.task_id, deliveries.c.attempt)
            .join(batch, deliveries.c.task_id == batch.c.id)
            .where(deliveries.c.source == Source.DELIVERY)
            .where(since_tasks(connection, deliveries.c.id, (poll.task_id for poll, _ in lost)))
        )
        known = {tuple(row) for row in noted} | {tuple(row) for row in came}
        rows = [
            {
                "at_ms": now_ms,
                "run_id": poll.run_id,
                "task_id": poll.task_id,
                "attempt": poll.attempt,
                "verdict": Verdict.LOST_AFTER_ACK,
                "expected": None,
                "actual": None,
                "detail": detail,
                "delivery_id": poll.id,
            }
            for poll, detail in lost
            if (poll.task_id, poll.attempt) not in known
        ]
        unique = {(row["task_id"], row["attempt"]): row for row in reversed(rows)}
        await self.db.insert(connection, findings, list(reversed(unique.values())))
        return len(unique)
