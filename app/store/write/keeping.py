"""Why rows about a task stay, however old they are: conditions that all kinds of rows share."""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from app.domain.task import OPEN_STATES, Money
from app.domain.verdicts import LAPSING_VERDICTS, Verdict
from app.store.by_index import there_is
from app.store.tables import account_entries, attempts, findings, runs, tasks

# Of their own, so that none of them is taken for a table that a statement reads besides.
_task, _past, _run, _finding = (
    tasks.alias("own_task"),
    attempts.alias("own_attempt"),
    runs.alias("own_run"),
    findings.alias("own_finding"),
)
_NEVER_OPEN = (*sorted(LAPSING_VERDICTS), Verdict.UNMATCHED, Verdict.LOST_AFTER_ACK)
"""Verdicts of findings that hold nothing up: while a charge is unknown the money is open anyway, and the
others put no credit of a task in dispute."""


def open_tasks(task_id: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Whether a task, or the money of one of its attempts, is open."""
    t, a = _task.c, _past.c
    is_open = sa.or_(t.state.in_(sorted(OPEN_STATES)), t.money == Money.HELD)
    current = there_is(t.id == task_id, is_open)
    return sa.or_(current, there_is(a.task_id == task_id, a.money == Money.HELD))


def retained_tasks(task_id: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Whether a task is of a retained run, or its answer was reused for one."""
    is_retained = _run.c.retained_at_ms.is_not(None)
    own = there_is(_task.c.id == task_id, _task.c.run_id == _run.c.id, is_retained)
    # Not correlated: made once for a statement, from the few runs that are retained and reuse answers.
    reuse, its_run = tasks.alias("reuse").c, runs.alias("its_run").c
    reusing = sa.select(its_run.id).where(
        its_run.retained_at_ms.is_not(None), its_run.reuse_within_ms.is_not(None)
    )
    origins = sa.select(reuse.reused_from).where(reuse.run_id.in_(reusing), reuse.reused_from.is_not(None))
    # As a rule there is none, and no task is looked at.
    return sa.or_(own, sa.and_(sa.exists(reusing), task_id.in_(origins)))


def disputed_tasks(task_id: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Whether a finding about a task needs explaining still."""
    return disputed_findings(lambda f: f.task_id == task_id)


def disputed_findings(
    which: Callable[[sa.ColumnCollection[str, Any]], sa.ColumnElement[bool]],
) -> sa.ColumnElement[bool]:
    """Whether one of these findings needs explaining: no adjustment of its attempt answers it."""
    f, e = _finding.c, account_entries.alias("answer").c
    answered = sa.select(e.task_id, e.attempt).where(e.task_id.is_not(None), e.attempt.is_not(None))
    unanswered = sa.tuple_(f.task_id, f.attempt).not_in(answered)
    return there_is(which(f), f.verdict.not_in(_NEVER_OPEN), unanswered)
