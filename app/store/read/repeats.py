"""Reads of how many samples of a record are answered. Nothing here writes."""

from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.task import TaskState
from app.store.tables import task_repeats, tasks


class Repeated(NamedTuple):
    """Records of a run that ask for so many samples and have so many answered."""

    repeats: int
    answered: int
    records: int


def answered_samples(run_id: str) -> sa.Select[Any]:
    """`first_ordinal`, `repeats` and `answered` of each record of a run that asks for several samples."""
    r, t = task_repeats.c, tasks.c
    its_samples = t.ordinal.between(r.first_ordinal, r.first_ordinal + r.repeats - 1)
    # Not a join: a database without statistics might compare each record with each task of the run.
    answered = (
        sa.select(sa.func.count())
        .where(t.run_id == r.run_id, its_samples, t.state == TaskState.COMPLETED)
        .correlate(task_repeats)
        .scalar_subquery()
        .label("answered")
    )
    return sa.select(r.first_ordinal, r.repeats, answered).where(r.run_id == run_id)


async def repeated_of(connection: AsyncConnection, run_id: str) -> list[Repeated]:
    """Those of a run, the most samples and answers first; none where every record asks for one."""
    c = answered_samples(run_id).subquery().c
    query = (
        sa.select(c.repeats, c.answered, sa.func.count())
        .group_by(c.repeats, c.answered)
        .order_by(c.repeats.desc(), c.answered.desc())
    )
    return [Repeated(*map(int, row)) for row in await connection.execute(query)]
