"""Reuse: which stored answers will do for new prompts, and giving them to the new tasks."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.task import TaskSpec, TaskState
from app.domain.verdicts import Verdict
from app.store.database import Database
from app.store.tables import Id, deliveries, findings, results, runs, tasks
from app.store.write.results import take_numbers

COPIED = ("delivery_id", "status", "answer_bytes", "answer_sha256", "answer_chars")
"""What the result of a reused answer has of the one that was bought."""


class Answers:
    """Which task answers which new one. Each sample of a record takes another answer, else they would be one
    sample several times; records that ask the same take the same ones."""

    def __init__(self, newest_first: Mapping[str, list[str]], taken: Mapping[int, set[str]]) -> None:
        self._newest_first = newest_first
        self._taken: defaultdict[int, set[str]] = defaultdict(set, taken)

    def take(self, spec: TaskSpec) -> str | None:
        """The newest answer that no other sample of the same record has; None: there is none."""
        taken = self._taken[spec.first_ordinal]
        found = self._newest_first.get(spec.fingerprint(), ())
        origin = next((task_id for task_id in found if task_id not in taken), None)
        if origin is not None:
            taken.add(origin)
        return origin


async def find_answers(
    db: Database, connection: AsyncConnection, run: sa.Row[Any], specs: Sequence[TaskSpec], since_ms: int
) -> Answers:
    """Tasks whose answers will do for those of `specs`: completed for the run's account, after `since_ms`,
    with a result that nobody disputes, the newest, as many as a record wants samples. Not those that were
    themselves answered so: age counts from the purchase."""
    wanted: Counter[str] = Counter()
    for spec in specs:
        wanted[spec.fingerprint()] = max(spec.repeats, wanted[spec.fingerprint()])
    newest_first = await _newest_answers(db, connection, wanted, run.account, since_ms)
    # Its samples so far stand in an earlier chunk.
    begun = specs[0]
    taken = await _taken(connection, run.id, begun) if begun.sample > 1 else set()
    return Answers(newest_first, {begun.first_ordinal: taken})


async def _taken(connection: AsyncConnection, run_id: str, spec: TaskSpec) -> set[str]:
    t = tasks.c
    query = sa.select(t.reused_from).where(
        t.run_id == run_id, t.ordinal.between(spec.first_ordinal, spec.ordinal), t.reused_from.is_not(None)
    )
    return set((await connection.scalars(query)).all())


async def _newest_answers(
    db: Database, connection: AsyncConnection, wanted: Mapping[str, int], account: str, since_ms: int
) -> dict[str, list[str]]:
    """Fingerprint -> so many tasks as are wanted, if there are."""
    rows = [{"fingerprint": print_, "wanted": count} for print_, count in sorted(wanted.items())]
    batch = db.batch("v", {"fingerprint": sa.Text(), "wanted": sa.Integer()}, rows)
    t = tasks.c
    disputed = sa.exists().where(findings.c.task_id == t.id, findings.c.verdict == Verdict.CONFLICT)
    newest_first = sa.func.row_number().over(
        partition_by=t.fingerprint, order_by=(t.settled_at_ms.desc(), t.id)
    )
    found = (
        sa.select(t.fingerprint, t.id, newest_first.label("place"), batch.c.wanted)
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
    f = found.c
    query = sa.select(f.fingerprint, f.id).where(f.place <= f.wanted).order_by(f.fingerprint, f.place)
    answers: defaultdict[str, list[str]] = defaultdict(list)
    for row in await connection.execute(query):
        answers[row.fingerprint].append(row.id)
    return answers


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
