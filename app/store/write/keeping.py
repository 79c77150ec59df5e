"""Why rows about a task stay, however old they are: conditions that all kinds of rows share."""

from typing import Any

import sqlalchemy as sa

from app.domain.task import OPEN_STATES, Money
from app.domain.verdicts import LAPSING_VERDICTS, Verdict
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
    current = sa.exists().where(t.id == task_id, is_open)
    return sa.or_(current, sa.exists().where(a.task_id == task_id, a.money == Money.HELD))


def retained_tasks(task_id: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Whether a task is of a retained run, or its answer was reused for one."""
    is_retained = _run.c.retained_at_ms.is_not(None)
    own = sa.exists().where(_task.c.id == task_id, _task.c.run_id == _run.c.id, is_retained)
    # Not correlated: made once for a statement, from the few runs that are retained.
    reuse, its_run = tasks.alias("reuse"), runs.alias("its_run")
    origins = (
        sa.select(reuse.c.reused_from)
        .join(its_run, its_run.c.id == reuse.c.run_id)
        .where(its_run.c.retained_at_ms.is_not(None), reuse.c.reused_from.is_not(None))
    )
    return sa.or_(own, task_id.in_(origins))


def disputed_tasks(task_id: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Whether a finding about a task needs explaining still: no adjustment of its attempt answers it."""
    f, e = _finding.c, account_entries.alias("answer").c
    answered = sa.select(e.task_id, e.attempt).where(e.task_id.is_not(None), e.attempt.is_not(None))
    return sa.exists().where(
        f.task_id == task_id, f.verdict.not_in(_NEVER_OPEN), sa.tuple_(f.task_id, f.attempt).not_in(answered)
    )
