"""Writes of the producer: claim before sending (`due_claims`), record after, give back what was not sent.

Every one is a conditional update: any number of workers may race, and a row moves only from the state in its
condition. The order is fixed: key stored (at insert), row claimed, request sent, answer recorded.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.send_outcome import Answer
from app.domain.submission import ClaimedTask, Submission
from app.domain.task import TaskState
from app.domain.verdicts import Verdict
from app.store.database import Database
from app.store.part import reads, writes
from app.store.tables import IS_SENT_BEFORE, IS_SUBMITTING, findings, ledger, submissions, tasks
from app.store.write.claims import drop_empty_ranges, end_ranges, release_ranges
from app.store.write.due_claims import ClaimWrites
from app.store.write.open_sends import perhaps_accepted
from app.store.write.relay_messages import add_closed
from app.store.write.send_rows import (
    HOLD_COLUMNS,
    LOG_COLUMNS,
    UNSENT,
    accepted_row,
    again_row,
    is_repriced,
    log_row,
    once_each,
    rejected_row,
    repriced_row,
    send_row,
)
from app.store.write.send_statements import SENDING, EndStatements

_ACCEPTED = frozenset({Answer.ACCEPTED, Answer.EXISTS})


class SubmissionWrites(ClaimWrites):
    """Part of the store."""

    def __init__(self, db: Database) -> None:
        super().__init__(db)
        self._end_statements = EndStatements(db)

    @writes
    async def record_submissions(self, connection: AsyncConnection, ended: Sequence[Submission]) -> None:
        """Record how sends ended, many at once, in one transaction: log, state, hold."""
        for group in once_each(ended):
            await self._record(connection, group)

    @reads
    async def was_sent_since(self, connection: AsyncConnection, task: ClaimedTask) -> bool:
        """Whether the attempt was claimed again after this claim ran out, or has come further without it."""
        query = sa.select(tasks.c.sends, tasks.c.state, tasks.c.attempt).where(tasks.c.id == task.id)
        row = (await connection.execute(query)).one()
        shown = task.sends - 1 if task.in_range else task.sends
        return row.sends > shown or row.state not in SENDING or row.attempt != task.attempt

    async def _record(self, connection: AsyncConnection, ended: Sequence[Submission]) -> None:
        # Its row is locked before an end is logged: of two processes that end one attempt, the log's order
        # is the order of what they did, which is what `verify` derives it from.
        await self._lock_ended(connection, [s for s in ended if s.answer not in _ACCEPTED])
        rejected = [s for s in ended if s.answer is Answer.REJECTED]
        open_sends = await self._open_sends(connection, rejected)
        # A refusal says nothing of an earlier send of the same key that may have been accepted: the task
        # stays open, as after a 409, and what becomes of it a report tells, or its age.
        doubtful = [s for s in rejected if open_sends.get(s.task.idempotency_key)]
        taken = [s for s in ended if s.answer in _ACCEPTED] + doubtful
        if taken:
            await self._accept(connection, taken)
        logged = [s for s in ended if s.answer is not Answer.DEFERRED]
        rows = [log_row(s, open_sends.get(s.task.idempotency_key), self.db.driver_id) for s in logged]
        await self.db.insert_plain(connection, submissions, LOG_COLUMNS, rows)
        if refused := [s for s in rejected if not open_sends.get(s.task.idempotency_key)]:
            await self._reject(connection, refused)
        if again := [s for s in ended if s.answer not in (*_ACCEPTED, Answer.REJECTED)]:
            await self._send_again(connection, again)
        if tokens := {s.task.claim for s in ended if s.task.in_range}:
            unsent = [s.task for s in again if s.task.in_range and s.answer in UNSENT]
            await end_ranges(self.db, connection, unsent)
            await drop_empty_ranges(connection, tokens)

    async def _lock_ended(self, connection: AsyncConnection, ended: Sequence[Submission]) -> None:
        """By a statement of its own, so that the next one sees what was logged while this one waited."""
        if not ended or self.db.is_sqlite:
            return
        its = self._end_statements
        await connection.execute(its.lock, its.ids.parameters([{"id": s.task.id} for s in ended]))

    async def _open_sends(
        self, connection: AsyncConnection, rejected: Sequence[Submission]
    ) -> dict[str, int]:
        """By key: sends before the refused one that nobody answered for. Without attempts that a retry has
        replaced. The rows are locked."""
        if not rejected:
            return {}
        its = self._end_statements
        data = its.refused.parameters([send_row(s) | {"at_ms": s.at_ms} for s in rejected])
        return {key: max(count - 1, 0) for key, count in await connection.execute(its.open_sends, data)}

    async def _accept(self, connection: AsyncConnection, taken: Sequence[Submission]) -> None:
        its = self._end_statements
        data = its.accepted.parameters([accepted_row(s) for s in taken])
        held = (await connection.execute(its.accept, data)).all()
        at_ms, driver_id = max(s.at_ms for s in taken), self.db.driver_id
        holds = [
            (at_ms, driver_id(run_id), driver_id(task_id), attempt, "hold", micro)
            for task_id, run_id, attempt, micro in held
        ]
        await self.db.insert_plain(connection, ledger, HOLD_COLUMNS, holds)
        if len(held) < len(taken):
            await connection.execute(its.fill_blanks, data)
        await self._note_repriced(connection, [s for s in taken if is_repriced(s)])

    async def _note_repriced(self, connection: AsyncConnection, repriced: Sequence[Submission]) -> None:
        """A finding for each price that is not ours, unless an earlier recording wrote it, or a report that
        overtook the submit response."""
        if not repriced:
            return
        noted = await connection.execute(
            sa.select(findings.c.task_id, findings.c.attempt).where(
                findings.c.task_id.in_([s.task.id for s in repriced]), findings.c.verdict == Verdict.REPRICED
            )
        )
        known = {(row.task_id, row.attempt) for row in noted}
        fresh = [repriced_row(s) for s in repriced if (s.task.id, s.task.attempt) not in known]
        await self.db.insert(connection, findings, fresh)

    async def _reject(self, connection: AsyncConnection, rejected: Sequence[Submission]) -> None:
        its = self._end_statements
        await connection.execute(its.reject, its.rejected.parameters([rejected_row(s) for s in rejected]))
        await self._push_closed(connection, TaskState.REJECTED, [s.task.id for s in rejected])

    async def _push_closed(self, connection: AsyncConnection, state: TaskState, ids: Sequence[str]) -> None:
        if ids:
            await add_closed(self.db, connection, state, tasks.c.id.in_(ids))

    async def _send_again(self, connection: AsyncConnection, again: Sequence[Submission]) -> None:
        its = self._end_statements
        data = its.again.parameters([again_row(s) for s in again])
        await connection.execute(its.send_again, data)
        cancelled = await connection.execute(its.cancel, data)
        await self._push_closed(connection, TaskState.CANCELLED, cancelled.scalars().all())

    @writes
    async def release_overdue_claims(self, connection: AsyncConnection, now_ms: int) -> int:
        """Claims whose lease is over go back to pending, under the same key: their sender is gone."""
        done = await connection.execute(
            sa.update(tasks)
            .where(IS_SUBMITTING, tasks.c.lease_until_ms <= now_ms)
            .values(state=TaskState.PENDING, claim=None, lease_until_ms=None)
        )
        return done.rowcount + await release_ranges(connection, now_ms)

    @writes
    async def expire_unidentified(
        self, connection: AsyncConnection, *, sent_before_ms: int, reason: str
    ) -> int:
        """Attempts sent so long ago that the provider may have forgotten their key: sending it again could
        buy a second task (P2), so they are closed and a person or a retry decides."""
        done = await connection.execute(
            sa.update(tasks)
            .where(IS_SENT_BEFORE, tasks.c.first_sent_at_ms <= sent_before_ms, perhaps_accepted())
            .values(state=TaskState.EXPIRED, error_code="unidentified", error_message=reason)
            .returning(tasks.c.id)
        )
        ids = done.scalars().all()
        await self._push_closed(connection, TaskState.EXPIRED, ids)
        return len(ids)
