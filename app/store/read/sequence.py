"""Reads what is wrong among the numbers of the settle sequence, within a snapshot. Never writes."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.time_format import DAY_MS
from app.domain.verification.stored_rows import Misnumbered
from app.store.database import Database
from app.store.tables import results, settle_sequence, tasks
from app.store.write.health import database_now

NAMED_MAX = 1_000
"""Results of each kind that are named."""


async def misnumbered(db: Database, connection: AsyncConnection) -> list[Misnumbered]:
    """Results whose number another one has, that no number of the sequence is, that have none a day after a
    sweep could have given it, and of a reused answer one below the answer's own."""
    value = await connection.scalar(sa.select(sa.func.max(settle_sequence.c.value))) or 0
    now = await connection.scalar(sa.select(database_now(db))) or 0
    c = results.c
    twice = sa.select(c.seq).where(c.seq.is_not(None)).group_by(c.seq).having(sa.func.count() > 1)
    answer = results.alias("answer").c
    reusing = sa.select(tasks.c.id).where(tasks.c.reused_from.is_not(None))
    behind = sa.exists().where(
        tasks.c.id == c.task_id,
        tasks.c.reused_from == answer.task_id,
        answer.delivery_id == c.delivery_id,
        answer.seq > c.seq,
    )
    reused = sa.and_(c.task_id.in_(reusing), behind)
    asked = (
        (c.seq.in_(twice), "one of its own", "another result has the same number"),
        (sa.or_(c.seq > value, c.seq < 1), f"1 to {value}", "settle_sequence never gave that number"),
        (
            sa.and_(c.seq.is_(None), c.stored_at_ms < now - DAY_MS),
            "a number",
            "what the version before stored gets one from the sweep",
        ),
        (reused, "above that of the answer", "it was reused after it was settled"),
    )
    found: list[Misnumbered] = []
    for condition, should_be, why in asked:
        query = sa.select(c.task_id, c.attempt, c.seq).where(condition).order_by(c.seq).limit(NAMED_MAX)
        found += [Misnumbered(*row, should_be, why) for row in await connection.execute(query)]
    return found
