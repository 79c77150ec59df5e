"""Which tasks of a run a filter means, as conditions on their rows and a range of ordinals. Writes nothing.

A range of ordinals is looked through by the index of run and ordinal, whatever is filtered: hardly a filter
needs an index of its own, which every send and every settlement would pay for. Only tasks that may be sent
again have one: few are in it, and no other task pays for it.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.task import RETRYABLE_STATES, TaskState
from app.domain.task_filter import TaskFilter
from app.store.tables import (
    IS_PENDING,
    IS_RETRYABLE,
    asked_from,
    payload_text,
    task_metadata,
    task_repeats,
    tasks,
)
from app.store.write.claims import is_free

RANGE = 20_000
"""Ordinals that one statement looks through: 50 ms where each payload is read for its country."""
RANGES_MAX = 5
"""Of one transaction."""
SHOWN_STATE = sa.case((sa.and_(IS_PENDING, ~is_free()), TaskState.SUBMITTING.value), else_=tasks.c.state)
"""What a sender has claimed counts as on its way; its row says so later."""
_SUBJECTS = ("prompt", "query", "url")


def conditions(wanted: TaskFilter, *, is_sqlite: bool) -> list[sa.ColumnElement[bool]]:
    """Of a row of tasks; its run and its `custom_id` are said by `bounds`."""
    t = tasks.c
    found: list[sa.ColumnElement[bool]] = [IS_RETRYABLE] if wanted.state in RETRYABLE_STATES else []
    found += [
        expression == value
        for expression, value in (
            (SHOWN_STATE, wanted.state),
            (t.task_type, wanted.task_type),
            (t.verdict, wanted.verdict),
            (asked_from(is_sqlite), wanted.country),
        )
        if value is not None
    ]
    if wanted.text is not None:
        found.append(sa.func.lower(asked_for(is_sqlite)).contains(wanted.text.lower(), autoescape=True))
    return found


def asked_for(is_sqlite: bool) -> sa.ColumnElement[str]:
    """What a task asks for: its prompt, its query, or an address."""
    return sa.func.coalesce(*(payload_text(name, is_sqlite) for name in _SUBJECTS), "")


async def bounds(connection: AsyncConnection, run_id: str, custom_id: str | None) -> tuple[int, int]:
    """The first and the last ordinal that there may be; of none the last one is 0."""
    if custom_id is None:
        highest = sa.select(sa.func.max(tasks.c.ordinal)).where(tasks.c.run_id == run_id)
        return 1, await connection.scalar(highest) or 0
    m, r = task_metadata.c, task_repeats.c
    samples = sa.select(r.repeats).where(r.run_id == m.run_id, r.first_ordinal == m.ordinal)
    query = sa.select(m.ordinal, samples.scalar_subquery().label("repeats"))
    found: sa.CursorResult[Any] = await connection.execute(
        query.where(m.run_id == run_id, m.custom_id == custom_id)
    )
    row = found.one_or_none()
    return (1, 0) if row is None else (row.ordinal, row.ordinal + (row.repeats or 1) - 1)
