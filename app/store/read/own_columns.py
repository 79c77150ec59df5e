"""Reads of what a record of a source says, beside whatever is read of a task. Nothing here writes."""

from typing import Any

import sqlalchemy as sa

from app.store.tables import Id, task_metadata, task_repeats, tasks


def own_columns() -> tuple[sa.ColumnElement[Any], ...]:
    """`custom_id` and `metadata` (JSON text) of each row of `tasks` in a query; null without any. And which
    `sample` of how many `repeats` it is; null where its record asks for one only.

    Not by a join: a database that has no statistics of a run that was just loaded might read all of its own
    columns for every page. So each is one look by the key, which costs nothing where there are none.
    """
    m, r = task_metadata.c, task_repeats.c
    first = _of_samples(r.first_ordinal)
    of_record = m.run_id == tasks.c.run_id, m.ordinal == sa.func.coalesce(first, tasks.c.ordinal)
    own = (
        sa.select(column).where(*of_record).correlate(tasks).scalar_subquery().label(column.name)
        for column in (m.custom_id, m.metadata)
    )
    sample = tasks.c.ordinal - first + 1
    return (*own, sample.label("sample"), _of_samples(r.repeats).label("repeats"))


def first_of_samples() -> sa.ColumnElement[Any]:
    """The ordinal of the first sample of each row of `tasks` in a query; null where there is no other."""
    return _of_samples(task_repeats.c.first_ordinal)


def is_later_sample(run_id: str) -> sa.ColumnElement[bool]:
    """Whether a row of `tasks` of a run is not the first sample of its record. Most runs have none, and are
    not looked through."""
    r = task_repeats.c
    has_any = sa.exists().where(r.run_id == sa.literal(run_id, Id))
    return sa.and_(has_any, sa.func.coalesce(first_of_samples() < tasks.c.ordinal, sa.false()))


def _of_samples(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Of the last record before a task that asks for several samples, if the task is one of them."""
    r = task_repeats.c
    is_one = r.first_ordinal + r.repeats > tasks.c.ordinal
    return (
        sa.select(sa.case((is_one, column)))
        .where(r.run_id == tasks.c.run_id, r.first_ordinal <= tasks.c.ordinal)
        .order_by(r.first_ordinal.desc())
        .limit(1)
        .correlate(tasks)
        .scalar_subquery()
    )
