"""What of a run was pruned, by its rows and the receipts. Never writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.retention import Kind, Receipt
from app.domain.task import Money
from app.domain.time_format import DAY_MS
from app.domain.verdicts import LAPSING_VERDICTS
from app.store.by_index import read_by_index, there_is
from app.store.days import first_id, time_of
from app.store.part import StorePart, reads
from app.store.tables import EVERY_ATTEMPT, deliveries, findings, results, runs, submissions, tasks
from app.store.write.receipts import pruned_findings_of, receipts_of


@dataclass(frozen=True, slots=True)
class PrunedOfRun:
    """What is left of a run only as counts and hashes."""

    answers: int = 0
    """Whose bodies are in no place any more."""
    sends: int = 0
    """Attempts of which it is not stored any more how their sends ended."""
    findings: int = 0
    at_ms: int | None = None
    """When the first of it was dropped, as far as is known; None: nothing was."""

    def __bool__(self) -> bool:
        return self.at_ms is not None


class PrunedReads(StorePart):
    """Part of the store."""

    @reads(long=True)
    async def pruned_of(self, connection: AsyncConnection, run_id: str) -> PrunedOfRun:
        """What of a run was pruned."""
        await read_by_index(connection)
        return await pruned_of(connection, run_id)

    @reads(long=True)
    async def disputed_bodies(self, connection: AsyncConnection, run_id: str) -> list[Receipt]:
        """For each report that a finding of a run names and that was pruned, the receipt that counts it."""
        await read_by_index(connection)
        f, d = findings.c, deliveries.c
        query = sa.select(f.delivery_id).where(f.run_id == run_id, ~there_is(d.id == f.delivery_id))
        disputed = f.delivery_id.is_not(None), f.verdict.not_in(sorted(LAPSING_VERDICTS))
        gone = set(await connection.scalars(query.where(*disputed)))
        known = await receipts_of(connection)
        found = (known.of_body(delivery_id) for delivery_id in sorted(gone))
        return [receipt for receipt in found if receipt is not None and receipt.location is None]


async def pruned_of(connection: AsyncConnection, run_id: str) -> PrunedOfRun:
    """The same within a transaction of the caller's."""
    begun_ms = await connection.scalar(sa.select(runs.c.created_at_ms).where(runs.c.id == run_id)) or 0
    receipts = [one for one in await receipts_of(connection) if one.until_ms > begun_ms - DAY_MS]
    answers, answers_ms = await _answers(connection, run_id, begun_ms, receipts)
    sends, sends_ms = await _sends(connection, run_id, receipts)
    gone = await pruned_findings_of(connection, run_id)
    times = [answers_ms, sends_ms, *(at_ms for *_, at_ms in gone)]
    known = [at_ms for at_ms in times if at_ms is not None]
    return PrunedOfRun(answers, sends, sum(count for _, count, _ in gone), min(known, default=None))


async def _answers(
    connection: AsyncConnection, run_id: str, begun_ms: int, receipts: Sequence[Receipt]
) -> tuple[int, int | None]:
    """Results whose bodies are in no place any more, and when the first of them were dropped."""
    covered = [one for one in receipts if one.kind == Kind.BODIES and one.location is None]
    if not covered:
        return 0, None
    r, d = results.c, deliveries.c
    stands = there_is(d.id == r.delivery_id, d.id >= first_id(begun_ms - DAY_MS))
    gone = (
        sa.select(sa.func.count(), sa.func.min(sa.cast(r.delivery_id, sa.Text)))
        .join(tasks, tasks.c.id == r.task_id)
        .where(tasks.c.run_id == run_id, tasks.c.reused_from.is_(None), ~stands)
    )
    count, first = (await connection.execute(gone)).one()
    at_ms = None if first is None else min(one.at_ms for one in covered if one.until_ms > time_of(first))
    return (count, at_ms) if count else (0, None)


async def pruned_send_days(connection: AsyncConnection, run_id: str) -> list[Receipt]:
    """The receipts of days of which sends of a run may have been dropped."""
    begun_ms = await connection.scalar(sa.select(runs.c.created_at_ms).where(runs.c.id == run_id)) or 0
    return [r for r in await receipts_of(connection) if r.kind == Kind.SUBMISSIONS and r.until_ms > begun_ms]


def are_sends_pruned(
    attempt: sa.ColumnCollection[str, Any], receipts: Sequence[Receipt]
) -> sa.ColumnElement[bool]:
    """Whether the sends of an attempt of `tasks` are gone. Those of an attempt go together, on the day it was
    accepted, and only of one that was accepted by its create call."""
    s = submissions.c
    stand = there_is(s.task_id == tasks.c.id, s.attempt == attempt.attempt)
    on_a_day = sa.or_(*(attempt.submitted_at_ms.between(r.from_ms, r.until_ms - 1) for r in receipts))
    # Without the second it would be null of an attempt that was never accepted, and so would its opposite.
    is_known = attempt.submitted_at_ms.is_not(None)
    return sa.and_(attempt.money.in_((Money.POSTED, Money.VOIDED)), is_known, on_a_day, ~stand)


async def _sends(
    connection: AsyncConnection, run_id: str, receipts: Sequence[Receipt]
) -> tuple[int, int | None]:
    covered = [one for one in receipts if one.kind == Kind.SUBMISSIONS]
    count, first_ms = 0, None
    for table, source in EVERY_ATTEMPT if covered else ():
        c = table.c
        gone = sa.select(sa.func.count(), sa.func.min(c.submitted_at_ms)).select_from(source)
        query = gone.where(tasks.c.run_id == run_id, are_sends_pruned(c, covered))
        found, at_ms = (await connection.execute(query)).one()
        count += found
        first_ms = min((ms for ms in (first_ms, at_ms) if ms is not None), default=None)
    if first_ms is None:
        return 0, None
    return count, min(one.begun_at_ms for one in covered if one.until_ms > first_ms)
