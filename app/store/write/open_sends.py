"""Which sends of an attempt the provider may have taken: conditions on its row and its log."""

import sqlalchemy as sa

from app.domain.send_outcome import NOT_TAKEN, Answer
from app.domain.task import Money, TaskState
from app.store.tables import submissions, tasks


def perhaps_accepted() -> sa.ColumnElement[bool]:
    """Whether some send of the current attempt was not refused, so that the provider may have it."""
    return tasks.c.sends > accounted_sends()


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
