"""Reads of own columns beside whatever is read of a task. Nothing here writes."""

from typing import Any

import sqlalchemy as sa

from app.store.tables import task_metadata, tasks


def own_columns() -> tuple[sa.ColumnElement[Any], ...]:
    """`custom_id` and `metadata` (JSON text) of each row of `tasks` in a query; null without any.

    Not by a join: a database that has no statistics of a run that was just loaded might read all of its own
    columns for every page. So each is one look by the key, which costs nothing where there are none.
    """
    m = task_metadata.c
    of_task = m.run_id == tasks.c.run_id, m.ordinal == tasks.c.ordinal
    return tuple(
        sa.select(column).where(*of_task).correlate(tasks).scalar_subquery().label(column.name)
        for column in (m.custom_id, m.metadata)
    )
