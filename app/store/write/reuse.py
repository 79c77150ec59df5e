"""Reuse: which stored answers will do for new prompts, and giving the new tasks a copy of them."""

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.task import TaskState
from app.domain.verdicts import Verdict
from app.store.database import Database
from app.store.tables import Id, Millis, findings, results, runs, tasks


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
        )
        .subquery()
    )
    rows = await connection.execute(sa.select(found.c.fingerprint, found.c.id).where(found.c.place == 1))
    return {row.fingerprint: row.id for row in rows}


async def copy_results(db: Database, connection: AsyncConnection, ids: Sequence[str], now_ms: int) -> None:
    """The answer becomes the run's own, with the delivery it came by: whatever is done with the other
    run, this one can still be exported and explained."""
    batch = db.batch("v", {"id": Id}, [{"id": i} for i in ids])
    origin = tasks.alias("origin")
    chosen = (
        sa.select(
            tasks.c.id,
            tasks.c.attempt,
            results.c.delivery_id,
            results.c.status,
            results.c.response,
            sa.literal(now_ms, Millis),
        )
        .join(batch, tasks.c.id == batch.c.id)
        .join(origin, origin.c.id == tasks.c.reused_from)
        .join(results, sa.and_(results.c.task_id == origin.c.id, results.c.attempt == origin.c.attempt))
        .where(tasks.c.reused_from.is_not(None))
    )
    columns = ["task_id", "attempt", "delivery_id", "status", "response", "stored_at_ms"]
    insert: Any = (sqlite if db.is_sqlite else postgresql).insert(results)
    await connection.execute(insert.from_select(columns, chosen).on_conflict_do_nothing())
