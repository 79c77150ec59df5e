"""Reuse: which stored answers will do for new prompts, and giving them to the new tasks."""

from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.task import TaskState
from app.domain.verdicts import Verdict
from app.store.database import Database
from app.store.tables import Id, deliveries, findings, results, runs, tasks
from app.store.write.results import take_numbers

COPIED = ("delivery_id", "status", "answer_bytes", "answer_sha256", "answer_chars")
"""What the result of a reused answer has of the one that was bought."""


async def find_answers(
    db: Database, connection: AsyncConnection, prints: Iterable[str], account: str, since_ms: int
) -> dict[str, str]:
    """Fingerprint -> the task whose answer will do: completed for this account, after `since_ms`, with a
    result that nobody disputes, the newest. Not one that was itself answered so: age counts from the
    purchase."""
    batch = db.batch("v", {"fingerprint": sa.Text()}, [{"fingerprint": f} for f in sorted(prints)])
    t = tasks.c
    disputed = sa.exists().where(findings.c.task_id == t.id, findings.c.verdict == Verdict.CONFLICT)
    newest_first = sa.func.row_number().over(
        partition_by=t.fingerprint, order_by=(t.settled_at_ms.desc(), t.id)
    )
    found = (
        sa.select(t.fingerprint, t.id, newest_first.label("place"))
        .join(batch, t.fingerprint == batch.c.fingerprint)
        .join(runs, runs.c.id == t.run_id)
        .join(results, sa.and_(results.c.task_id == t.id, results.c.attempt == t.attempt))
        .where(
            t.state == TaskState.COMPLETED,
            t.reused_from.is_(None),
            t.settled_at_ms > since_ms,
            runs.c.account == account,
            ~disputed,
            # What is dropped answers nothing.
            sa.exists().where(deliveries.c.id == results.c.delivery_id),
        )
        .subquery()
    )
    rows = await connection.execute(sa.select(found.c.fingerprint, found.c.id).where(found.c.place == 1))
    return {row.fingerprint: row.id for row in rows}


async def point_results(db: Database, connection: AsyncConnection, ids: Sequence[str], now_ms: int) -> None:
    """Results of the run's own that point to the delivery the answer came by: whatever is done with the other
    run, this one can still be exported and explained."""
    batch = db.batch("v", {"id": Id}, [{"id": i} for i in ids])
    origin, own = tasks.alias("origin"), results.alias("own")
    c = results.c
    found = await connection.execute(
        sa.select(tasks.c.id, tasks.c.attempt, *(c[name] for name in COPIED))
        .join(batch, tasks.c.id == batch.c.id)
        .join(origin, origin.c.id == tasks.c.reused_from)
        .join(results, sa.and_(c.task_id == origin.c.id, c.attempt == origin.c.attempt))
        .outerjoin(own, sa.and_(own.c.task_id == tasks.c.id, own.c.attempt == tasks.c.attempt))
        .where(tasks.c.reused_from.is_not(None), own.c.task_id.is_(None))
        .order_by(tasks.c.ordinal)
    )
    if not (rows := found.all()):
        return
    first = await take_numbers(connection, len(rows))
    named = ("task_id", "attempt", *COPIED)
    values = [
        dict(zip(named, row, strict=True)) | {"stored_at_ms": now_ms, "seq": first + n}
        for n, row in enumerate(rows)
    ]
    await db.insert(connection, results, values)
