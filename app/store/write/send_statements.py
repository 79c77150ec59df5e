"""The statements of claims, and of how sends ended. Each is made once for a store: making one costs several
times as much as running it.
"""

import functools
from typing import Any

import sqlalchemy as sa

from app.domain.task import Money, RunState, TaskState
from app.store.database import Database
from app.store.tables import (
    IS_OPEN,
    IS_OPEN_RUN,
    IS_PENDING,
    IS_SUBMITTING,
    Credits,
    Id,
    Millis,
    is_due,
    runs,
    submissions,
    tasks,
)
from app.store.write.claims import is_free
from app.store.write.open_sends import accounted_sends, perhaps_accepted

SENDING = [TaskState.PENDING, TaskState.SUBMITTING]
SEND_TYPES: dict[str, Any] = {"id": Id, "attempt": sa.Integer(), "sends": sa.Integer(), "first_ms": Millis()}
_NOW, _LIMIT = sa.bindparam("now_ms", type_=Millis), sa.bindparam("limit", type_=sa.Integer())
_ACCOUNT, _CLAIM = sa.bindparam("account", type_=sa.Text()), sa.bindparam("claim_token", type_=sa.Text())
RUNNING = IS_OPEN_RUN, runs.c.account == _ACCOUNT, runs.c.state == RunState.RUNNING
"""Runs of the account `account` whose tasks are sent."""


class ClaimStatements:
    """What a claim asks and writes; `ids` and `claimed` give the parameters of rows."""

    def __init__(self, db: Database) -> None:
        self.ids = db.shape("v", {"id": Id})
        self.claimed = db.shape("v", {"id": Id, "sends": sa.Integer(), "first_ms": Millis})

    @functools.cached_property
    def lock_running(self) -> sa.Select[Any]:
        """Of the runs `run_ids`."""
        ids = sa.bindparam("run_ids", expanding=True, type_=Id)
        return (
            sa.select(runs.c.id, runs.c.budget)
            .where(runs.c.id.in_(ids), runs.c.state == RunState.RUNNING)
            .order_by(runs.c.id)
            .with_for_update(key_share=True)
        )

    @functools.cached_property
    def claimable(self) -> sa.Select[Any]:
        """Tasks as ClaimedTask has them, were they claimed now."""
        c, v = tasks.c, self.ids.table
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
            _first_sent().label("first_sent_at_ms"),
            _CLAIM.label("claim"),
            c.ordinal,
        ).where(c.id == v.c.id, if_found(v, IS_PENDING, is_free()))

    @functools.cached_property
    def first_due(self) -> sa.Select[Any]:
        """The first due tasks of an account; PostgreSQL."""
        return first_due()

    @functools.cached_property
    def due_of_run(self) -> sa.Select[Any]:
        """Of the run `run_id`."""
        return due_of(sa.bindparam("run_id", type_=Id))

    @functools.cached_property
    def heads(self) -> sa.Select[Any]:
        """The runs of an account that have due tasks, with the priority of their most urgent one; SQLite."""
        return heads()

    @functools.cached_property
    def claim_rows(self) -> sa.Update:
        """Until `until_ms`; those that are claimed now."""
        v = self.claimed.table
        return (
            sa.update(tasks)
            .where(tasks.c.id == v.c.id, if_found(v, IS_PENDING, tasks.c.sends == v.c.sends - 1))
            .values(
                state=TaskState.SUBMITTING,
                claim=_CLAIM,
                lease_until_ms=sa.bindparam("until_ms", type_=Millis),
                sends=v.c.sends,
                first_sent_at_ms=v.c.first_ms,
            )
            .returning(tasks.c.id)
        )


class EndStatements:
    """What is run for ended sends; `ids`, `accepted`, `rejected` and `again` give the parameters."""

    def __init__(self, db: Database) -> None:
        self._greatest = sa.func.max if db.is_sqlite else sa.func.greatest
        self.ids = db.shape("v", {"id": Id})
        self.refused = db.shape("v", SEND_TYPES | {"at_ms": Millis()})
        self.accepted = db.shape(
            "v",
            SEND_TYPES
            | {"provider_task_id": sa.Text(), "to_charge": Credits(), "at_ms": Millis(), "poll_ms": Millis()},
        )
        self.rejected = db.shape("v", SEND_TYPES | {"code": sa.Text(), "message": sa.Text()})
        self.again = db.shape(
            "v", SEND_TYPES | {"claim": sa.Text(), "not_before_ms": Millis(), "in_range": sa.Integer()}
        )

    @functools.cached_property
    def lock(self) -> sa.Select[Any]:
        query = sa.select(tasks.c.id).join(self.ids.table, tasks.c.id == self.ids.table.c.id)
        return query.order_by(tasks.c.id).with_for_update(of=tasks)

    @functools.cached_property
    def open_sends(self) -> sa.Select[Any]:
        """Key, and sends that nobody answered for, the refused one included."""
        v = self.refused.table
        # Logged already, when a write whose answer was lost is repeated.
        others = self._sent(v)["sends"] - accounted_sends(submissions.c.at_ms != v.c.at_ms)
        return sa.select(tasks.c.idempotency_key, others).join(
            v, sa.and_(tasks.c.id == v.c.id, tasks.c.attempt == v.c.attempt)
        )

    @functools.cached_property
    def accept(self) -> sa.Update:
        """Those whose money is held now, with their run and millionths of a credit."""
        v = self.accepted.table
        return (
            sa.update(tasks)
            .where(*_is_sent(v), if_found(v, tasks.c.state.in_(SENDING), tasks.c.money == Money.NONE))
            .values(
                state=TaskState.SUBMITTED,
                money=Money.HELD,
                submitted_at_ms=v.c.at_ms,
                provider_task_id=v.c.provider_task_id,
                credits_to_charge=v.c.to_charge,
                credits_held=sa.func.coalesce(v.c.to_charge, tasks.c.credits_estimate),
                next_poll_at_ms=v.c.poll_ms,
                claim=None,
                lease_until_ms=None,
                **self._sent(v),
            )
            .returning(
                tasks.c.id,
                tasks.c.run_id,
                tasks.c.attempt,
                sa.type_coerce(tasks.c.credits_held, sa.BigInteger),
            )
        )

    @functools.cached_property
    def fill_blanks(self) -> sa.Update:
        """A report overtook the submit response and won; the late response only adds what is missing."""
        v = self.accepted.table
        return (
            sa.update(tasks)
            .where(*_is_sent(v), tasks.c.state.not_in(SENDING))
            .values(
                submitted_at_ms=sa.func.coalesce(tasks.c.submitted_at_ms, v.c.at_ms),
                provider_task_id=sa.func.coalesce(tasks.c.provider_task_id, v.c.provider_task_id),
                credits_to_charge=sa.func.coalesce(tasks.c.credits_to_charge, v.c.to_charge),
                **self._sent(v),
            )
        )

    @functools.cached_property
    def reject(self) -> sa.Update:
        v = self.rejected.table
        return (
            sa.update(tasks)
            .where(*_is_sent(v), if_found(v, tasks.c.state.in_(SENDING)))
            .values(
                state=TaskState.REJECTED,
                error_code=v.c.code,
                error_message=v.c.message,
                claim=None,
                lease_until_ms=None,
                **self._sent(v),
            )
        )

    @functools.cached_property
    def send_again(self) -> sa.Update:
        v = self.again.table
        # Only the claim that sent it: a lease that ran out meanwhile belongs to somebody else now.
        by_row = sa.and_(IS_SUBMITTING, tasks.c.claim == v.c.claim)
        by_range = sa.and_(IS_PENDING, v.c.in_range == 1, tasks.c.sends == 0, tasks.c.attempt == v.c.attempt)
        is_sent = sa.func.coalesce(tasks.c.first_sent_at_ms, v.c.first_ms)
        return (
            sa.update(tasks)
            .where(tasks.c.id == v.c.id, if_found(v, sa.or_(by_row, by_range)))
            .values(
                state=TaskState.PENDING,
                claim=None,
                lease_until_ms=None,
                not_before_ms=v.c.not_before_ms,
                sends=v.c.sends,
                first_sent_at_ms=sa.case((v.c.sends <= 0, None), else_=is_sent),
            )
        )

    @functools.cached_property
    def cancel(self) -> sa.Update:
        """A run that was cancelled while they were on their way out takes with it what did not arrive."""
        v = self.again.table
        is_cancelled = sa.exists().where(runs.c.id == tasks.c.run_id, runs.c.state == RunState.CANCELLED)
        return (
            sa.update(tasks)
            .where(tasks.c.id == v.c.id, IS_PENDING, is_cancelled, ~perhaps_accepted())
            .values(state=TaskState.CANCELLED)
            .returning(tasks.c.id)
        )

    def _sent(self, v: Any) -> dict[str, sa.ColumnElement[Any]]:
        """How often an attempt was sent and since when, as its row says or the send that ended now."""
        return {
            "sends": self._greatest(tasks.c.sends, v.c.sends),
            "first_sent_at_ms": sa.func.coalesce(tasks.c.first_sent_at_ms, v.c.first_ms),
        }


def due_of(run_id: Any, *which: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """The first `limit` due tasks of one run at `now_ms`, in the order of the index of open tasks."""
    # The time is asked of what that index gives. Otherwise PostgreSQL, which thinks that few are pending
    # while its statistics are of before the run, fetches and sorts all that are, by both conditions of it.
    has_come = sa.case((tasks.c.run_id == run_id, is_due(_NOW)), else_=sa.false())
    return (
        sa.select(tasks.c.id, tasks.c.priority, tasks.c.run_id, tasks.c.ordinal)
        .where(tasks.c.run_id == run_id, IS_OPEN, IS_PENDING, has_come, is_free(), *which)
        .order_by(tasks.c.priority.desc(), tasks.c.ordinal)
        .limit(_LIMIT)
    )


def first_due(*which: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """The first due tasks of an account of which all `which` is true; PostgreSQL."""
    due_of_run = due_of(runs.c.id, *which).lateral("each")
    return (
        sa.select(due_of_run)
        .select_from(runs.join(due_of_run, sa.true()))
        .where(*RUNNING)
        .order_by(due_of_run.c.priority.desc(), due_of_run.c.run_id, due_of_run.c.ordinal)
        .limit(_LIMIT)
    )


def heads(*which: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """The runs of an account that have due tasks, the most urgent one's priority with them; SQLite."""
    first = due_of(runs.c.id, *which).limit(1).with_only_columns(tasks.c.priority)
    top = first.correlate(runs).scalar_subquery()
    ranked = sa.select(runs.c.id, runs.c.pause_failing_engines, top.label("top")).where(*RUNNING).subquery()
    return (
        sa.select(ranked.c.id, ranked.c.top, ranked.c.pause_failing_engines)
        .where(ranked.c.top.is_not(None))
        .order_by(ranked.c.top.desc(), ranked.c.id)
    )


def if_found(v: Any, *conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Conditions on tasks that `v` names, asked once a row is found by its id. Of all tasks, few seem to
    meet them while PostgreSQL has no statistics of a file that was just loaded; then it would go through all
    that are open for each group of ids."""
    return sa.case((tasks.c.id == v.c.id, sa.and_(*conditions)), else_=sa.false())


def _is_sent(v: Any) -> tuple[sa.ColumnElement[bool], ...]:
    return tasks.c.id == v.c.id, tasks.c.attempt == v.c.attempt


def _first_sent() -> sa.ColumnElement[int]:
    """For a claim: the age of a key counts from the first send that the provider may have taken. Refused for
    hours, by its limits say, it may be sent as on the first day."""
    again = sa.case((perhaps_accepted(), sa.func.coalesce(tasks.c.first_sent_at_ms, _NOW)), else_=_NOW)
    return sa.case((tasks.c.sends > 0, again), else_=_NOW)
