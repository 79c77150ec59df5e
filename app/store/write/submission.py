"""Writes of the producer: claim before sending, record after, give back what was not sent.

Every one is a conditional update: any number of workers may race, and a row moves only from the state in its
condition. The order is fixed: key stored (at insert), row claimed, request sent, answer recorded.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from app.store.finish_results import has_response_column
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
from app.store.write.claims import (
    add_ranges,
    claimed_credits,
    drop_empty_ranges,
    end_ranges,
    is_free,
    release_ranges,
)
from app.store.write.engine_pauses import is_held_back, paused_engines, take_probes
from app.store.write.settlement_rows import DriverId
from app.store.write.spending import spending

_UNSENT = frozenset(
    {Answer.DEFERRED, Answer.NO_CREDITS, Answer.BAD_KEY, Answer.KEY_COLLISION, Answer.MISDIRECTED}
)
"""A task that never left us, or that was refused with all others, must not look as if it might exist at the
provider. Sends that were only put off stay counted: the wait before the next one grows with them."""

_SENDING = [TaskState.PENDING, TaskState.SUBMITTING]
_ACCEPTED = frozenset({Answer.ACCEPTED, Answer.EXISTS})

_SEND_TYPES: dict[str, Any] = {"id": Id, "attempt": sa.Integer(), "sends": sa.Integer(), "first_ms": Millis()}
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


@dataclass(frozen=True, slots=True)
class _Claim:
    """One claim: whose tasks, how many at most, for whom, and until when."""

    account: str
    limit: int
    token: str
    now_ms: int
    lease_until_ms: int
    paused: Sequence[str] = ()
    """Engines whose tasks wait in the runs that want it."""


class SubmissionWrites(StorePart):
    """Part of the store."""

    _claims_ranges = False

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
        probe_after_ms: int = 60_000,
    ) -> list[ClaimedTask]:
        """Claim up to `limit` due tasks of an account's running runs for sending, highest priority first,
        within one the oldest run first, in the order of its source. A run whose budget the next task would
        exceed is paused instead. Of an engine that is paused, one task is claimed now and then, the next one
        in `probe_after_ms`."""
        paused = await paused_engines(connection, account)
        wanted = _Claim(account, limit, claim, now_ms, lease_until_ms, paused)
        probes = await take_probes(connection, account, now_ms, now_ms + probe_after_ms) if paused else []
        by_range = await self._may_claim_ranges(connection)
        for skip_locked in CLAIM_TRIES:
            due = [*probes, *await self._due(connection, wanted)][:limit]
            if not due:
                return []
            if rows := await self._claim(connection, wanted, due, by_range, skip_locked):
                return rows
        return []

    async def _may_claim_ranges(self, connection: AsyncConnection) -> bool:
        """Whether no process of the version before is left, which would not look at them."""
        if not self._claims_ranges:
            self._claims_ranges = not await connection.run_sync(has_response_column)
        return self._claims_ranges

    async def _due(self, connection: AsyncConnection, claim: _Claim) -> list[sa.Row[Any]]:
        """(id, run) of the tasks to claim. Asked run by run: what is in no running run is not looked at."""
        if self.db.is_sqlite:
            return await _first_of_runs(connection, claim)
        return list((await connection.execute(_first_due(claim))).all())

    async def _claim(
        self,
        connection: AsyncConnection,
        claim: _Claim,
        due: Sequence[sa.Row[Any]],
        by_range: bool,
        skip_locked: bool,
    ) -> list[ClaimedTask]:
        """Claim those of the due tasks that are still free: never sent ones by ranges, others row by row."""
        budgets = await self._lock_running(connection, {row.run_id for row in due})
        batch = self.db.batch("v", {"id": Id}, [{"id": row.id} for row in due])
        query = _claimable(claim).where(tasks.c.id == batch.c.id, _found(batch, IS_PENDING, is_free()))
        if not by_range:
            # The version before locks rows, not runs.
            query = query.with_for_update(of=tasks, skip_locked=skip_locked)
        found = [row for row in await connection.execute(query) if row.run_id in budgets]
        rows = [ClaimedTask(*[*row, by_range and row.sends == 1]) for row in found]
        rows.sort(key=lambda row: (-row.priority, row.run_id, row.ordinal))
        rows = await self._within_budget(connection, rows, budgets)
        taken = await self._claim_rows(connection, claim, [row for row in rows if not row.in_range])
        fresh = [row for row in rows if row.in_range]
        await add_ranges(self.db, connection, fresh, claim.lease_until_ms)
        return [row for row in rows if row.in_range or row.id in taken]

    async def _lock_running(
        self, connection: AsyncConnection, run_ids: set[str]
    ) -> dict[str, Decimal | None]:
        """The budgets of those runs that are running, locked: whoever claims of a run or ends it comes before
        or after, and reads what this one wrote."""
        found = await connection.execute(
            sa.select(runs.c.id, runs.c.budget)
            .where(runs.c.id.in_(sorted(run_ids)), runs.c.state == RunState.RUNNING)
            .order_by(runs.c.id)
            .with_for_update(key_share=True)
        )
        return {row.id: row.budget for row in found}

    async def _claim_rows(
        self, connection: AsyncConnection, claim: _Claim, rows: Sequence[ClaimedTask]
    ) -> set[str]:
        """Ids of those that are claimed now."""
        if not rows:
            return set()
        types = {"id": Id, "sends": sa.Integer(), "first_ms": Millis}
        data = [{"id": row.id, "sends": row.sends, "first_ms": row.first_sent_at_ms} for row in rows]
        batch = self.db.batch("v", types, data)
        taken = await connection.scalars(
            sa.update(tasks)
            .where(tasks.c.id == batch.c.id, _found(batch, IS_PENDING, tasks.c.sends == batch.c.sends - 1))
            .values(
                state=TaskState.SUBMITTING,
                claim=claim.token,
                lease_until_ms=claim.lease_until_ms,
                sends=batch.c.sends,
                first_sent_at_ms=batch.c.first_ms,
            )
            .returning(tasks.c.id)
        )
        return set(taken)

    async def _within_budget(
        self, connection: AsyncConnection, rows: Sequence[ClaimedTask], budgets: Mapping[str, Decimal | None]
    ) -> list[ClaimedTask]:
        limited = await self._budgets_left(connection, budgets)
        kept: list[ClaimedTask] = []
        over: set[str] = set()
        for row in rows:
            left = limited.get(row.run_id)
            # An attempt that may already exist at the provider is sent again whatever the budget says: the
            # same key cannot cost a second time.
            if left is None or row.sends > 1:
                kept.append(row)
            elif row.run_id not in over and row.credits_estimate <= left:
                kept.append(row)
                limited[row.run_id] = left - row.credits_estimate
            else:
                over.add(row.run_id)
        if over:
            await connection.execute(
                sa.update(runs)
                .where(runs.c.id.in_(sorted(over)), runs.c.state == RunState.RUNNING)
                .values(state=RunState.PAUSED, reason=BUDGET.text, reason_code=BUDGET.code)
            )
        return kept

    async def _budgets_left(
        self, connection: AsyncConnection, budgets: Mapping[str, Decimal | None]
    ) -> dict[str, Decimal]:
        limited = {run_id: budget for run_id, budget in budgets.items() if budget is not None}
        if limited:
            # After the lock, hence at a later time: what the claim before this one took is in it.
            spent = sa.select(runs.c.id, spending(runs.c.id), claimed_credits(runs.c.id))
            for run_id, *credits in await connection.execute(spent.where(runs.c.id.in_(sorted(limited)))):
                limited[run_id] -= sum(credits, Decimal(0))
        return limited

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
        shown = task.sends - 1 if task.in_range else task.sends
        return row.sends > shown or row.state not in _SENDING or row.attempt != task.attempt

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
        if tokens := {s.task.claim for s in ended if s.task.in_range}:
            unsent = [s.task for s in again if s.task.in_range and s.answer in _UNSENT]
            await end_ranges(self.db, connection, unsent)
            await drop_empty_ranges(connection, tokens)

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
        types = _SEND_TYPES | {"at_ms": Millis()}
        data = [_send_row(s) | {"at_ms": s.at_ms} for s in rejected]
        batch = self.db.batch("v", types, data)
        # Logged already, when a write whose answer was lost is repeated.
        others = self._send_values(batch)["sends"] - accounted_sends(submissions.c.at_ms != batch.c.at_ms)
        rows = await connection.execute(
            sa.select(tasks.c.idempotency_key, others).join(
                batch, sa.and_(tasks.c.id == batch.c.id, tasks.c.attempt == batch.c.attempt)
            )
        )
        return {key: max(count - 1, 0) for key, count in rows}

    async def _accept(self, connection: AsyncConnection, taken: Sequence[Submission]) -> None:
        types = _SEND_TYPES | {
            "provider_task_id": sa.Text(),
            "to_charge": Credits(),
            "at_ms": Millis(),
            "poll_ms": Millis(),
        }
        rows = [
            _send_row(s)
            | {
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
                **self._send_values(batch),
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
                **self._send_values(batch),
            )
        )

    async def _reject(self, connection: AsyncConnection, rejected: Sequence[Submission]) -> None:
        types = _SEND_TYPES | {"code": sa.Text(), "message": sa.Text()}
        rows = [
            _send_row(s) | {"code": storable_message(s.code), "message": storable_message(s.message)}
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
                **self._send_values(batch),
            )
        )

    async def _send_again(self, connection: AsyncConnection, again: Sequence[Submission]) -> None:
        types = _SEND_TYPES | {"claim": sa.Text(), "not_before_ms": Millis(), "in_range": sa.Integer()}
        rows = [_again_row(s) for s in again]
        batch = self.db.batch("v", types, rows)
        # Only the claim that sent it: a lease that ran out meanwhile belongs to somebody else now.
        by_row = sa.and_(IS_SUBMITTING, tasks.c.claim == batch.c.claim)
        by_range = sa.and_(
            IS_PENDING, batch.c.in_range == 1, tasks.c.sends == 0, tasks.c.attempt == batch.c.attempt
        )
        is_sent = sa.func.coalesce(tasks.c.first_sent_at_ms, batch.c.first_ms)
        await connection.execute(
            sa.update(tasks)
            .where(tasks.c.id == batch.c.id, _found(batch, sa.or_(by_row, by_range)))
            .values(
                state=TaskState.PENDING,
                claim=None,
                lease_until_ms=None,
                not_before_ms=batch.c.not_before_ms,
                sends=batch.c.sends,
                first_sent_at_ms=sa.case((batch.c.sends <= 0, None), else_=is_sent),
            )
        )
        # A run that was cancelled while they were on their way out takes with it what did not arrive.
        is_cancelled = sa.exists().where(runs.c.id == tasks.c.run_id, runs.c.state == RunState.CANCELLED)
        await connection.execute(
            sa.update(tasks)
            .where(tasks.c.id == batch.c.id, IS_PENDING, is_cancelled, ~perhaps_accepted())
            .values(state=TaskState.CANCELLED)
        )

    def _send_values(self, batch: Any) -> dict[str, sa.ColumnElement[Any]]:
        """How often an attempt was sent and since when, as its row says or the send that ended now."""
        greatest = sa.func.max if self.db.is_sqlite else sa.func.greatest
        return {
            "sends": greatest(tasks.c.sends, batch.c.sends),
            "first_sent_at_ms": sa.func.coalesce(tasks.c.first_sent_at_ms, batch.c.first_ms),
        }

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
        )
        return done.rowcount


def _found(batch: Any, *conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Conditions on tasks that `v` names, asked once a row is found by its id. Of all tasks, few seem to
    meet them while PostgreSQL has no statistics of a file that was just loaded; then it would go through all
    that are open for each group of ids."""
    return sa.case((tasks.c.id == batch.c.id, sa.and_(*conditions)), else_=sa.false())


def _running(account: str) -> tuple[sa.ColumnElement[bool], ...]:
    return IS_OPEN_RUN, runs.c.account == account, runs.c.state == RunState.RUNNING


def _claimable(claim: _Claim) -> sa.Select[Any]:
    """Tasks as ClaimedTask has them, were they claimed now."""
    c = tasks.c
    return sa.select(
        c.id,
        c.run_id,
        c.attempt,
        c.idempotency_key,
        c.task_type,
        c.payload,
        c.priority,
        c.credits_estimate,
        (c.sends + 1).label("sends"),
        _first_sent(claim.now_ms).label("first_sent_at_ms"),
        sa.literal(claim.token).label("claim"),
        c.ordinal,
    )


def _due_of(run_id: Any, limit: int, now_ms: int) -> sa.Select[Any]:
    """The first due tasks of one run, in the order of the index of open tasks."""
    return (
        sa.select(tasks.c.id, tasks.c.priority, tasks.c.run_id, tasks.c.ordinal)
        .where(tasks.c.run_id == run_id, IS_OPEN, IS_PENDING, is_due(now_ms), is_free())
        .order_by(tasks.c.priority.desc(), tasks.c.ordinal)
        .limit(limit)
    )


def _first_due(claim: _Claim) -> sa.Select[Any]:
    """The first due tasks of an account; PostgreSQL."""
    passed_over = [~is_held_back(claim.paused, runs.c.pause_failing_engines)] if claim.paused else []
    due_of_run = _due_of(runs.c.id, claim.limit, claim.now_ms).where(*passed_over).lateral("each")
    return (
        sa.select(due_of_run)
        .select_from(runs.join(due_of_run, sa.true()))
        .where(*_running(claim.account))
        .order_by(due_of_run.c.priority.desc(), due_of_run.c.run_id, due_of_run.c.ordinal)
        .limit(claim.limit)
    )


async def _first_of_runs(connection: AsyncConnection, claim: _Claim) -> list[sa.Row[Any]]:
    """The same on SQLite, which knows no lateral join: the run with the most urgent task is asked first, and
    no further one than is needed."""
    limit, now_ms = claim.limit, claim.now_ms
    pauses = runs.c.pause_failing_engines
    passed_over = [~is_held_back(claim.paused, pauses)] if claim.paused else []
    first = _due_of(runs.c.id, 1, now_ms).where(*passed_over).with_only_columns(tasks.c.priority)
    top = first.correlate(runs).scalar_subquery()
    ranked = sa.select(runs.c.id, pauses, top.label("top")).where(*_running(claim.account)).subquery()
    heads = await connection.execute(
        sa.select(ranked.c.id, ranked.c.top, ranked.c.pause_failing_engines)
        .where(ranked.c.top.is_not(None))
        .order_by(ranked.c.top.desc(), ranked.c.id)
    )

    def place(row: sa.Row[Any]) -> tuple[int, str, int]:
        return -row.priority, row.run_id, row.ordinal

    found: list[sa.Row[Any]] = []
    for run_id, priority, is_pausing in heads:
        if len(found) == limit and place(found[-1]) < (-priority, run_id, 0):
            break
        due = _due_of(run_id, limit, now_ms)
        if is_pausing and claim.paused:
            due = due.where(~is_held_back(claim.paused, sa.true()))
        found += (await connection.execute(due)).all()
        found = sorted(found, key=place)[:limit]
    return found


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


def _send_row(s: Submission) -> dict[str, object]:
    """What each end of a send says of it, as _SEND_TYPES."""
    task = s.task
    sent = {"sends": task.sends, "first_ms": task.first_sent_at_ms}
    return {"id": task.id, "attempt": task.attempt} | sent


def _again_row(s: Submission) -> dict[str, object]:
    row = _send_row(s) | {"claim": s.task.claim, "not_before_ms": s.not_before_ms}
    sends = s.task.sends - (1 if s.answer in _UNSENT else 0)
    return row | {"sends": sends, "in_range": int(s.task.in_range)}


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
