"""What a bulk change is done to, a bounded part at a time: runs in the order of their ids, and in each its
tasks in the order of its source. Runs are chosen by what is kept of them, so that those of which no task
matches cost one look-up.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.bulk_change import STATES_OF, Aim, Figures, Place, Verb
from app.domain.task import RETRYABLE_STATES, Money, RunState, TaskState
from app.store.by_index import there_is
from app.store.read.task_matching import RANGE, bounds, conditions
from app.store.tables import (
    HAS_CUSTOM_ID,
    IS_OPEN,
    IS_PENDING,
    IS_RETRYABLE,
    rollup_changes,
    run_rollup,
    runs,
    task_metadata,
    tasks,
)
from app.store.write.claims import is_free
from app.store.write.open_sends import perhaps_accepted
from app.store.write.retries import RETRYING, with_attempt

_RUNS_OF = {
    Verb.RETRY: RETRYING,
    Verb.CANCEL: (RunState.RUNNING, RunState.PAUSED, RunState.STOPPED),
    Verb.PAUSE: (RunState.RUNNING,),
    Verb.RESUME: (RunState.PAUSED, RunState.STOPPED),
}
_IS_LOOKED_AT = {Verb.RETRY: IS_RETRYABLE, Verb.CANCEL: IS_OPEN}
"""The states of STATES_OF, as an index has them."""
_CLAIMABLE = (TaskState.PENDING, TaskState.SUBMITTING)
"""Of what a sender has claimed the row says `pending` still."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some tasks of a run: those behind one ordinal, through another."""

    run_id: str
    after: int
    through: int
    is_last: bool
    """Of its run."""

    @property
    def place(self) -> Place:
        """Where what comes behind it begins."""
        return Place(self.run_id, None if self.is_last else self.through)


def matching_runs(aim: Aim, place: Place) -> sa.Select[Any]:
    """Ids of runs behind a place, or at it, in order: those of which tasks may match; for a verb that is done
    to runs, those of which one does."""
    wanted, r = aim.wanted, runs.c
    query = sa.select(r.id).where(is_allowed(aim)).order_by(r.id)
    if aim.before_id is not None:
        query = query.where(r.id < aim.before_id)
    if aim.account is not None:
        query = query.where(r.account == aim.account)
    if place.run_id is not None:
        query = query.where(r.id > place.run_id if place.ordinal is None else r.id >= place.run_id)
    if wanted.run is not None:
        query = query.where(r.id == wanted.run)
    if wanted.custom_id is not None:
        m = task_metadata.c
        query = query.where(there_is(m.run_id == r.id, m.custom_id == wanted.custom_id, HAS_CUSTOM_ID))
    states = _states(aim)
    if states or wanted.task_type or wanted.verdict:
        query = query.where(_has_tasks(aim, states))
    return query


def is_allowed(aim: Aim) -> sa.ColumnElement[bool]:
    """Of a row of runs: whether its state allows it."""
    return runs.c.state.in_(_RUNS_OF[aim.verb])


async def next_part(connection: AsyncConnection, aim: Aim, place: Place) -> Part | None:
    """What is to be looked at behind a place; None: there is no more."""
    run_id = await connection.scalar(matching_runs(aim, place).limit(1))
    if run_id is None:
        return None
    first, last = await bounds(connection, run_id, aim.wanted.custom_id)
    behind = (place.ordinal or 0) if place.run_id == run_id else 0
    after = max(behind, first - 1)
    # An index of those that may be retried leads to few of them at once, however long the run is.
    is_few = aim.verb is Verb.RETRY and await _has_few_to_retry(connection, run_id)
    wide = last if is_few else after + RANGE
    through = max(min(wide, last), after)
    return Part(run_id, after, through, is_last=through >= last)


def tasks_of(aim: Aim, part: Part, *, is_sqlite: bool) -> sa.Select[Any]:
    """Tasks of a part that match, with their estimates and money; `may_be_charged`: it is left alone unless
    that is wanted; `is_answered`: it is left alone in any case."""
    t = tasks.c
    is_answered: sa.ColumnElement[bool] = sa.false()
    if aim.verb is Verb.RETRY:
        query, is_answered = with_attempt(), sa.func.coalesce(t.reported, "") == TaskState.COMPLETED
    else:
        is_unsent = sa.and_(IS_PENDING, ~perhaps_accepted(), is_free())
        charged = sa.case((is_unsent, sa.false()), else_=sa.true()).label("may_be_charged")
        query = sa.select(t.id, t.ordinal, t.money, t.credits_estimate, t.credits_held, charged)
    query = query.where(t.run_id == part.run_id, t.ordinal > part.after, t.ordinal <= part.through)
    query = query.where(_IS_LOOKED_AT[aim.verb], *conditions(aim.wanted, is_sqlite=is_sqlite))
    return query.add_columns(is_answered.label("is_answered"))


async def figures_of(connection: AsyncConnection, aim: Aim, part: Part, *, is_sqlite: bool) -> Figures:
    """What would be done to a part."""
    each = tasks_of(aim, part, is_sqlite=is_sqlite).subquery().c
    is_left = sa.and_(~each.is_answered, each.may_be_charged, sa.literal(not aim.even_if_held))
    is_changed = sa.and_(~each.is_answered, ~is_left)
    is_held = sa.and_(is_left, each.money == Money.HELD)
    count, total = sa.func.count(), sa.func.sum
    row = (
        await connection.execute(
            sa.select(
                count.filter(is_changed),
                total(each.credits_estimate).filter(is_changed),
                count.filter(is_left),
                count.filter(each.is_answered),
                total(each.credits_held).filter(is_held),
            )
        )
    ).one()
    nothing = Figures()
    return Figures(row[0], row[1] or nothing.credits, row[2], row[3], row[4] or nothing.held)


def _states(aim: Aim) -> tuple[TaskState, ...]:
    """By the rows; none: whatever it is."""
    if aim.wanted.state is not None:
        state = TaskState(aim.wanted.state)
        return _CLAIMABLE if state in _CLAIMABLE else (state,)
    return tuple(sorted(STATES_OF.get(aim.verb, ())))


def _has_tasks(aim: Aim, states: tuple[TaskState, ...]) -> sa.ColumnElement[bool]:
    """By what is kept of a run; of one of which not all is kept yet, by its rows."""

    def those(c: Any) -> list[sa.ColumnElement[bool]]:
        found = [c.state.in_(states)] if states else []
        found += [c.task_type == aim.wanted.task_type] if aim.wanted.task_type else []
        return found + ([c.verdict == aim.wanted.verdict] if aim.wanted.verdict else [])

    by_rows = sa.and_(~runs.c.has_rollup, there_is(tasks.c.run_id == runs.c.id, *those(tasks.c)))
    return sa.or_(_kept(those) > 0, by_rows)


async def _has_few_to_retry(connection: AsyncConnection, run_id: str) -> bool:
    """Whether all tasks of a run that may be retried are as many as one statement looks through, at most."""
    states = sorted(RETRYABLE_STATES)
    found = sa.select(_kept(lambda c: [c.state.in_(states)])).where(runs.c.id == run_id, runs.c.has_rollup)
    count = await connection.scalar(found)
    return count is not None and count <= RANGE


def _kept(those: Callable[[Any], list[sa.ColumnElement[bool]]]) -> sa.ColumnElement[int]:
    """How many tasks of a row of runs are of those, by what is kept of it."""

    def kept(table: sa.Table) -> sa.ColumnElement[int]:
        c = table.c
        attempts = sa.select(sa.func.sum(c.attempts)).where(c.run_id == runs.c.id, *those(c), c.is_current)
        return sa.func.coalesce(attempts.scalar_subquery(), 0)

    return kept(run_rollup) + kept(rollup_changes)
