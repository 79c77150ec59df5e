"""Writes of the producer: claim before sending, record after, give back what was not sent.

Every one is a conditional update: any number of workers may race, and a row moves only from the state in its
condition. The order is fixed: key stored (at insert), row claimed, request sent, answer recorded.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.credits import to_micro
from app.domain.reconciliation import repriced_detail
from app.domain.run_reason import BUDGET
from app.domain.send_outcome import NOT_TAKEN, Answer
from app.domain.submission import ClaimedTask, Submission
from app.domain.task import Money, RunState, TaskState
from app.domain.text import storable_message
from app.domain.verdicts import Verdict
from app.store.part import StorePart, reads, writes
from app.store.tables import (
    IS_OPEN,
    IS_OPEN_RUN,
    IS_PENDING,
    IS_SENT_BEFORE,
    IS_SUBMITTING,
    Credits,
    Id,
    Millis,
    findings,
    is_due,
    ledger,
    runs,
    submissions,
    tasks,
)
from app.store.write.settlement_rows import DriverId
from app.store.write.spending import spending

_NOT_ACCEPTED = frozenset(
    {Answer.DEFERRED, Answer.NO_CREDITS, Answer.BAD_KEY, Answer.KEY_COLLISION, Answer.MISDIRECTED}
)
"""A task that never left us, or that was refused with all others, must not look as if it might exist at the
provider. Sends that were only put off stay counted: the wait before the next one grows with them."""

_SENDING = [TaskState.PENDING, TaskState.SUBMITTING]
_ACCEPTED = frozenset({Answer.ACCEPTED, Answer.EXISTS})

_HOLD_COLUMNS = ("at_ms", "run_id", "task_id", "attempt", "kind", "credits")
_LOG_COLUMNS = (
    "task_id",
    "attempt",
    "at_ms",
    "answer",
    "http_status",
    "code",
    "message",
    "provider_task_id",
    "credits_to_charge",
    "request_id",
    "open_sends",
)

CLAIM_TRIES = (True, False, False, False)
"""Whether each look for due tasks passes over those that somebody holds. Where another sender holds all, it
waits for him, and looks again."""


class SubmissionWrites(StorePart):
    """Part of the store."""

    @writes
    async def claim_pending(
        self,
        connection: AsyncConnection,
        *,
        account: str = "default",
        limit: int,
        claim: str,
        now_ms: int,
        lease_until_ms: int,
    ) -> list[ClaimedTask]:
        """Claim up to `limit` due tasks of an account's running runs for sending, highest priority first,
        within one the oldest run first, in the order of its source. A run whose budget the next task would
        exceed is paused instead."""
        due = await self._due(connection, account, limit, now_ms)
        if not due:
            return []
        batch = self.db.batch("v", {"id": Id}, [{"id": i} for i in due])
        claimed = await connection.execute(
            sa.update(tasks)
            .where(tasks.c.id == batch.c.id, _found(batch, IS_PENDING))
            .values(
                state=TaskState.SUBMITTING,
                claim=claim,
                lease_until_ms=lease_until_ms,
                sends=tasks.c.sends + 1,
                first_sent_at_ms=_first_sent(now_ms),
            )
            .returning(
                tasks.c.id,
                tasks.c.run_id,
                tasks.c.attempt,
                tasks.c.idempotency_key,
                tasks.c.task_type,
                tasks.c.payload,
                tasks.c.priority,
                tasks.c.credits_estimate,
                tasks.c.sends,
                tasks.c.first_sent_at_ms,
                tasks.c.claim,
                tasks.c.ordinal,
            )
        )
        rows = [ClaimedTask(*row) for row in claimed.all()]
        rows.sort(key=lambda row: (-row.priority, row.run_id, row.ordinal))
        return await self._within_budget(connection, rows)

    async def _due(self, connection: AsyncConnection, account: str, limit: int, now_ms: int) -> list[str]:
        """Ids of the tasks to claim, locked. Asked run by run: what is in no running run is not looked at."""
        if self.db.is_sqlite:
            return await _first_of_runs(connection, account, limit, now_ms)
        for skip_locked in CLAIM_TRIES:
            query = _first_due(account, limit, now_ms).with_for_update(of=tasks, skip_locked=skip_locked)
            due = list(await connection.scalars(query))
            if due or not await connection.scalar(_any_due(account, now_ms)):
                return due
        return []

    async def _within_budget(
        self, connection: AsyncConnection, rows: Sequence[ClaimedTask]
    ) -> list[ClaimedTask]:
        limited = await self._budgets_left(connection, {row.run_id for row in rows})
        for row in rows:
            # The rows just claimed for their first time are what is being decided.
            if row.run_id in limited and row.sends == 1:
                limited[row.run_id] += row.credits_estimate
        kept: list[ClaimedTask] = []
        over: dict[str, list[ClaimedTask]] = defaultdict(list)
        for row in rows:
            left = limited.get(row.run_id)
            # An attempt that may already exist at the provider is sent again whatever the budget says: the
            # same key cannot cost a second time.
            if left is None or (row.run_id not in over and row.credits_estimate <= left) or row.sends > 1:
                kept.append(row)
                if left is not None and row.sends == 1:
                    limited[row.run_id] = left - row.credits_estimate
            else:
                over[row.run_id].append(row)
        for run_id, unsent in over.items():
            await self._give_back(connection, [row.id for row in unsent])
            await connection.execute(
                sa.update(runs)
                .where(runs.c.id == run_id, runs.c.state == RunState.RUNNING)
                .values(state=RunState.PAUSED, reason=BUDGET.text, reason_code=BUDGET.code)
            )
        return kept

    async def _budgets_left(self, connection: AsyncConnection, run_ids: set[str]) -> dict[str, Decimal]:
        # Locked, so that two claims of one run are counted one after the other.
        found = await connection.execute(
            sa.select(runs.c.id, runs.c.budget)
            .where(runs.c.id.in_(run_ids), runs.c.budget.is_not(None))
            .order_by(runs.c.id)
            .with_for_update(key_share=True)
        )
        limited: dict[str, Decimal] = {row.id: row.budget for row in found}
        if limited:
            # After the lock, hence at a later time: what the claim before this one took is in it.
            spent = sa.select(runs.c.id, spending(runs.c.id)).where(runs.c.id.in_(limited))
            for run_id, credits in await connection.execute(spent):
                limited[run_id] -= credits
        return limited

    async def _give_back(self, connection: AsyncConnection, task_ids: Sequence[str]) -> None:
        batch = self.db.batch("v", {"id": Id}, [{"id": i} for i in task_ids])
        await connection.execute(
            sa.update(tasks)
            .where(tasks.c.id == batch.c.id, IS_SUBMITTING)
            .values(
                state=TaskState.PENDING,
                claim=None,
                lease_until_ms=None,
                sends=tasks.c.sends - 1,
                first_sent_at_ms=sa.case((tasks.c.sends <= 1, None), else_=tasks.c.first_sent_at_ms),
            )
        )

    @writes
    async def record_submissions(self, connection: AsyncConnection, ended: Sequence[Submission]) -> None:
        """Record how sends ended, many at once, in one transaction: log, state, hold."""
        for group in _once_each(ended):
            await self._record(connection, group)

    @reads
    async def was_sent_since(self, connection: AsyncConnection, task: ClaimedTask) -> bool:
        """Whether the attempt was claimed again after this claim ran out, or has come further without it."""
        query = sa.select(tasks.c.sends, tasks.c.state, tasks.c.attempt).where(tasks.c.id == task.id)
        row = (await connection.execute(query)).one()
        return row.sends > task.sends or row.state not in _SENDING or row.attempt != task.attempt

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
        rows = [_log_row(s, open_sends.get(s.task.idempotency_key), self.db.driver_id) for s in logged]
        await self.db.insert_plain(connection, submissions, _LOG_COLUMNS, rows)
        if refused := [s for s in rejected if not open_sends.get(s.task.idempotency_key)]:
            await self._reject(connection, refused)
        if again := [s for s in ended if s.answer not in (*_ACCEPTED, Answer.REJECTED)]:
            await self._send_again(connection, again)

    async def _lock_ended(self, connection: AsyncConnection, ended: Sequence[Submission]) -> None:
        """By a statement of its own, so that the next one sees what was logged while this one waited."""
        if not ended or self.db.is_sqlite:
            return
        batch = self.db.batch("v", {"id": Id}, [{"id": s.task.id} for s in ended])
        query = sa.select(tasks.c.id).join(batch, tasks.c.id == batch.c.id).order_by(tasks.c.id)
        await connection.execute(query.with_for_update(of=tasks))

    async def _open_sends(
        self, connection: AsyncConnection, rejected: Sequence[Submission]
    ) -> dict[str, int]:
        """By key: sends before the refused one that nobody answered for. Without attempts that a retry has
        replaced. The rows are locked."""
        if not rejected:
            return {}
        types = {"id": Id, "attempt": sa.Integer(), "at_ms": Millis()}
        data = [{"id": s.task.id, "attempt": s.task.attempt, "at_ms": s.at_ms} for s in rejected]
        batch = self.db.batch("v", types, data)
        # Logged already, when a write whose answer was lost is repeated.
        others = tasks.c.sends - accounted_sends(submissions.c.at_ms != batch.c.at_ms)
        rows = await connection.execute(
            sa.select(tasks.c.idempotency_key, others).join(
                batch, sa.and_(tasks.c.id == batch.c.id, tasks.c.attempt == batch.c.attempt)
            )
        )
        return {key: max(count - 1, 0) for key, count in rows}

    async def _accept(self, connection: AsyncConnection, taken: Sequence[Submission]) -> None:
        types = {
            "id": Id,
            "attempt": sa.Integer(),
            "provider_task_id": sa.Text(),
            "to_charge": Credits(),
            "at_ms": Millis(),
            "poll_ms": Millis(),
        }
        rows = [
            {
                "id": s.task.id,
                "attempt": s.task.attempt,
                "provider_task_id": storable_message(s.provider_task_id),
                "to_charge": s.credits_to_charge,
                "at_ms": s.at_ms,
                "poll_ms": s.next_poll_at_ms,
            }
            for s in taken
        ]
        batch = self.db.batch("v", types, rows)
        is_sent = tasks.c.id == batch.c.id, tasks.c.attempt == batch.c.attempt
        moved = await connection.execute(
            sa.update(tasks)
            .where(*is_sent, _found(batch, tasks.c.state.in_(_SENDING), tasks.c.money == Money.NONE))
            .values(
                state=TaskState.SUBMITTED,
                money=Money.HELD,
                submitted_at_ms=batch.c.at_ms,
                provider_task_id=batch.c.provider_task_id,
                credits_to_charge=batch.c.to_charge,
                credits_held=sa.func.coalesce(batch.c.to_charge, tasks.c.credits_estimate),
                next_poll_at_ms=batch.c.poll_ms,
                claim=None,
                lease_until_ms=None,
            )
            .returning(
                tasks.c.id,
                tasks.c.run_id,
                tasks.c.attempt,
                sa.type_coerce(tasks.c.credits_held, sa.BigInteger),
            )
        )
        held = moved.all()
        at_ms, driver_id = max(s.at_ms for s in taken), self.db.driver_id
        holds = [
            (at_ms, driver_id(run_id), driver_id(task_id), attempt, "hold", micro)
            for task_id, run_id, attempt, micro in held
        ]
        await self.db.insert_plain(connection, ledger, _HOLD_COLUMNS, holds)
        if len(held) < len(taken):
            await self._fill_blanks(connection, batch, is_sent)
        await self._note_repriced(connection, [s for s in taken if _is_repriced(s)])

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
        fresh = [_repriced_row(s) for s in repriced if (s.task.id, s.task.attempt) not in known]
        await self.db.insert(connection, findings, fresh)

    async def _fill_blanks(
        self, connection: AsyncConnection, batch: sa.Subquery, is_sent: tuple[object, ...]
    ) -> None:
        """A report overtook the submit response and won; the late response only adds what is missing."""
        await connection.execute(
            sa.update(tasks)
            .where(*is_sent, tasks.c.state.not_in(_SENDING))  # type: ignore[arg-type]
            .values(
                submitted_at_ms=sa.func.coalesce(tasks.c.submitted_at_ms, batch.c.at_ms),
                provider_task_id=sa.func.coalesce(tasks.c.provider_task_id, batch.c.provider_task_id),
                credits_to_charge=sa.func.coalesce(tasks.c.credits_to_charge, batch.c.to_charge),
            )
        )

    async def _reject(self, connection: AsyncConnection, rejected: Sequence[Submission]) -> None:
        types = {"id": Id, "attempt": sa.Integer(), "code": sa.Text(), "message": sa.Text()}
        rows = [
            {
                "id": s.task.id,
                "attempt": s.task.attempt,
                "code": storable_message(s.code),
                "message": storable_message(s.message),
            }
            for s in rejected
        ]
        batch = self.db.batch("v", types, rows)
        await connection.execute(
            sa.update(tasks)
            .where(
                tasks.c.id == batch.c.id,
                tasks.c.attempt == batch.c.attempt,
                _found(batch, tasks.c.state.in_(_SENDING)),
            )
            .values(
                state=TaskState.REJECTED,
                error_code=batch.c.code,
                error_message=batch.c.message,
                claim=None,
                lease_until_ms=None,
            )
        )

    async def _send_again(self, connection: AsyncConnection, again: Sequence[Submission]) -> None:
        types = {"id": Id, "claim": sa.Text(), "not_before_ms": Millis(), "back": sa.Integer()}
        rows = [
            {
                "id": s.task.id,
                "claim": s.task.claim,
                "not_before_ms": s.not_before_ms,
                "back": 1 if s.answer in _NOT_ACCEPTED else 0,
            }
            for s in again
        ]
        batch = self.db.batch("v", types, rows)
        await connection.execute(
            sa.update(tasks)
            # Only the claim that sent it: a lease that ran out meanwhile belongs to somebody else now.
            .where(tasks.c.id == batch.c.id, tasks.c.claim == batch.c.claim, IS_SUBMITTING)
            .values(
                state=TaskState.PENDING,
                claim=None,
                lease_until_ms=None,
                not_before_ms=batch.c.not_before_ms,
                sends=tasks.c.sends - batch.c.back,
                first_sent_at_ms=sa.case(
                    (tasks.c.sends - batch.c.back <= 0, None), else_=tasks.c.first_sent_at_ms
                ),
            )
        )
        # A run that was cancelled while they were on their way out takes with it what did not arrive.
        is_cancelled = sa.exists().where(runs.c.id == tasks.c.run_id, runs.c.state == RunState.CANCELLED)
        await connection.execute(
            sa.update(tasks)
            .where(tasks.c.id == batch.c.id, IS_PENDING, is_cancelled, ~perhaps_accepted())
            .values(state=TaskState.CANCELLED)
        )

    @writes
    async def release_overdue_claims(self, connection: AsyncConnection, now_ms: int) -> int:
        """Claims whose lease is over go back to pending, under the same key: their sender is gone."""
        done = await connection.execute(
            sa.update(tasks)
            .where(IS_SUBMITTING, tasks.c.lease_until_ms <= now_ms)
            .values(state=TaskState.PENDING, claim=None, lease_until_ms=None)
        )
        return done.rowcount

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
        )
        return done.rowcount


def _found(batch: Any, *conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Conditions on tasks that `v` names, asked once a row is found by its id. Of all tasks, few seem to
    meet them while PostgreSQL has no statistics of a file that was just loaded; then it would go through all
    that are open for each group of ids."""
    return sa.case((tasks.c.id == batch.c.id, sa.and_(*conditions)), else_=sa.false())


def _running(account: str) -> tuple[sa.ColumnElement[bool], ...]:
    return IS_OPEN_RUN, runs.c.account == account, runs.c.state == RunState.RUNNING


def _due_of(run_id: Any, limit: int, now_ms: int) -> sa.Select[Any]:
    """The first due tasks of one run, in the order of the index of open tasks."""
    return (
        sa.select(tasks.c.id, tasks.c.priority, tasks.c.run_id, tasks.c.ordinal)
        .where(tasks.c.run_id == run_id, IS_OPEN, IS_PENDING, is_due(now_ms))
        .order_by(tasks.c.priority.desc(), tasks.c.ordinal)
        .limit(limit)
    )


def _any_due(account: str, now_ms: int) -> sa.Select[Any]:
    due = sa.exists().where(tasks.c.run_id == runs.c.id, IS_OPEN, IS_PENDING, is_due(now_ms))
    return sa.select(sa.literal(1)).select_from(runs).where(*_running(account), due).limit(1)


def _first_due(account: str, limit: int, now_ms: int) -> sa.Select[Any]:
    """The first due tasks of an account; PostgreSQL."""
    due_of_run = _due_of(runs.c.id, limit, now_ms).lateral("each")
    first = (
        sa.select(due_of_run)
        .select_from(runs.join(due_of_run, sa.true()))
        .where(*_running(account))
        .order_by(*_order(due_of_run.c))
        .limit(limit)
        .subquery("first")
    )
    return (
        sa.select(tasks.c.id)
        .join(first, first.c.id == tasks.c.id)
        .where(IS_PENDING)
        .order_by(*_order(first.c))
    )


def _order(c: Any) -> tuple[sa.ColumnElement[Any], ...]:
    return c.priority.desc(), c.run_id, c.ordinal


async def _first_of_runs(connection: AsyncConnection, account: str, limit: int, now_ms: int) -> list[str]:
    """The same on SQLite, which knows no lateral join: the run with the most urgent task is asked first, and
    no further one than is needed."""
    top = _due_of(runs.c.id, 1, now_ms).with_only_columns(tasks.c.priority).scalar_subquery()
    ranked = sa.select(runs.c.id, top.label("top")).where(*_running(account)).subquery()
    heads = await connection.execute(
        sa.select(ranked.c.id, ranked.c.top)
        .where(ranked.c.top.is_not(None))
        .order_by(ranked.c.top.desc(), ranked.c.id)
    )

    def place(row: sa.Row[Any]) -> tuple[int, str, int]:
        return -row.priority, row.run_id, row.ordinal

    found: list[sa.Row[Any]] = []
    for run_id, priority in heads:
        if len(found) == limit and place(found[-1]) < (-priority, run_id, 0):
            break
        found += (await connection.execute(_due_of(run_id, limit, now_ms))).all()
        found = sorted(found, key=place)[:limit]
    return [row.id for row in found]


def perhaps_accepted() -> sa.ColumnElement[bool]:
    """Whether some send of the current attempt was not refused, so that the provider may have it."""
    return tasks.c.sends > accounted_sends()


def _first_sent(now_ms: int) -> sa.ColumnElement[int]:
    """For a claim: the age of a key counts from the first send that the provider may have taken. Refused for
    hours, by its limits say, it may be sent as on the first day."""
    now = sa.literal(now_ms, Millis)
    again = sa.case((perhaps_accepted(), sa.func.coalesce(tasks.c.first_sent_at_ms, now)), else_=now)
    return sa.case((tasks.c.sends > 0, again), else_=now)


def accounted_sends(*which: sa.ColumnElement[bool], of: sa.Table = tasks) -> sa.ScalarSelect[int]:
    """Sends of an attempt that tell that the provider does not have it, as `accounts_for` says. `of`: where
    the attempt stands."""
    c, task_id = submissions.c, of.c.id if of is tasks else of.c.task_id
    by_itself = c.answer.in_((Answer.REJECTED, Answer.RATE_LIMITED, Answer.QUEUE_FULL))
    is_unavailable = sa.and_(
        c.answer == Answer.UNAVAILABLE, sa.or_(c.http_status.is_(None), c.code == NOT_TAKEN)
    )
    return (
        # A write that was repeated may have logged one end twice.
        sa.select(sa.func.count(c.at_ms.distinct()))
        .where(c.task_id == task_id, c.attempt == of.c.attempt, sa.or_(by_itself, is_unavailable), *which)
        .correlate_except(submissions)
        .scalar_subquery()
    )


def is_refusal_in_doubt(of: sa.Table = tasks) -> sa.ColumnElement[bool]:
    """Whether an attempt was refused after a send that nobody answered for, and was closed all the same, as
    versions before did; nothing came of it since. Looks at the log for refused attempts only."""
    is_refused = sa.and_(of.c.state == TaskState.REJECTED, of.c.money == Money.NONE, of.c.sends > 0)
    return sa.case((is_refused, of.c.sends > accounted_sends(of=of)), else_=sa.false())


def _once_each(ended: Sequence[Submission]) -> list[list[Submission]]:
    """In groups that hold each attempt once: what the first end of one did counts for the next."""
    groups: list[list[Submission]] = []
    seen: Counter[str] = Counter()
    for s in ended:
        n = seen[s.task.idempotency_key]
        seen[s.task.idempotency_key] += 1
        if n == len(groups):
            groups.append([])
        groups[n].append(s)
    return groups


def _is_repriced(s: Submission) -> bool:
    return s.credits_to_charge is not None and s.credits_to_charge != s.task.credits_estimate


def _repriced_row(s: Submission) -> dict[str, object]:
    detail = repriced_detail(
        s.task.task_type,
        json.loads(s.task.payload_json),
        estimate=s.task.credits_estimate,
        to_charge=s.credits_to_charge or Decimal(0),
    )
    return {
        "at_ms": s.at_ms,
        "run_id": s.task.run_id,
        "task_id": s.task.id,
        "attempt": s.task.attempt,
        "verdict": Verdict.REPRICED,
        "expected": s.task.credits_estimate,
        "actual": s.credits_to_charge,
        "detail": detail,
        "delivery_id": None,
    }


def _log_row(s: Submission, open_sends: int | None, driver_id: DriverId) -> tuple[Any, ...]:
    """The end of a send as _LOG_COLUMNS."""
    return (
        driver_id(s.task.id),
        s.task.attempt,
        s.at_ms,
        s.answer,
        s.http_status,
        storable_message(s.code),
        storable_message(s.message),
        storable_message(s.provider_task_id),
        None if s.credits_to_charge is None else to_micro(s.credits_to_charge),
        storable_message(s.request_id),
        open_sends,
    )
