"""Reads of a run's books: sums, verdicts and findings. Every number is a sum that the database makes over the
rows; nothing here writes, and nothing loads a run's rows one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.send_outcome import Answer
from app.domain.settlement import Source
from app.domain.task import OPEN_STATES, Money, idempotency_key
from app.domain.text import USABLE_CHARS_MIN
from app.domain.verdicts import ALONGSIDE_VERDICTS
from app.store.by_index import read_by_index, the_only, there_is
from app.store.days import since_tasks
from app.store.part import StorePart, reads
from app.store.read.breakdown import Breakdown, read_breakdown
from app.store.read.own_columns import own_columns
from app.store.read.progress import progress_of
from app.store.read.pruned import PrunedOfRun, are_sends_pruned, pruned_of, pruned_send_days
from app.store.read.repeats import Repeated, repeated_of
from app.store.read.runs import RunReport, RunRow
from app.store.tables import EVERY_ATTEMPT, credits_sum, deliveries, findings, ledger, submissions, tasks
from app.store.write.partitions import hold_partitions
from app.store.write.receipts import count_findings


@dataclass(frozen=True, slots=True)
class FullReport:
    """A run's books, what stands behind their sums, and its first findings."""

    report: RunReport
    breakdown: Breakdown
    findings: list[dict[str, Any]]
    """Each with the place, the engine and the payload (JSON text) of its task."""
    pruned: PrunedOfRun
    repeated: list[Repeated]


class ReportReads(StorePart):
    """Part of the store."""

    @reads(long=True)
    async def report(self, connection: AsyncConnection, run: RunRow) -> RunReport:
        """The books of one run, all read in one transaction."""
        await read_by_index(connection)
        return await _report(connection, run)

    @reads(long=True)
    async def full_report(
        self,
        connection: AsyncConnection,
        run: RunRow,
        findings_max: int,
        usable_chars_min: int = USABLE_CHARS_MIN,
    ) -> FullReport:
        """The same with what its sums are made of, all in one snapshot. An answer whose text is shorter is
        counted as too short to use."""
        if not self.db.is_sqlite:
            # Otherwise each statement sees what was committed before it, and the sums would not agree.
            await connection.execution_options(isolation_level="REPEATABLE READ")
            await hold_partitions(connection)
        await read_by_index(connection)
        return FullReport(
            await _report(connection, run),
            await read_breakdown(connection, run.id, usable_chars_min),
            await _findings(connection, run.id, findings_max),
            await pruned_of(connection, run.id),
            await repeated_of(connection, run.id),
        )

    @reads(long=True)
    async def findings_of(
        self, connection: AsyncConnection, run_id: str, limit: int = 100
    ) -> list[dict[str, Any]]:
        """What needs explaining in a run, oldest first."""
        return await _findings(connection, run_id, limit)

    @reads(long=True)
    async def charges(self, connection: AsyncConnection, run_id: str) -> dict[str, Decimal | None]:
        """Idempotency key -> credits charged, of every accepted attempt of a run."""
        query = sa.union_all(
            *(
                sa.select(tasks.c.id, table.c.attempt, table.c.credits_charged)
                .select_from(source)
                .where(tasks.c.run_id == run_id, table.c.money != Money.NONE)
                for table, source in EVERY_ATTEMPT
            )
        )
        rows = await connection.execute(query)
        return {idempotency_key(row[0], row[1]): row[2] for row in rows}


async def _report(connection: AsyncConnection, run: RunRow) -> RunReport:
    progress = await progress_of(connection, run.id)
    sums = await _ledger_sums(connection, run.id)
    verdicts = dict(progress.verdicts)
    found = await count_findings(connection, run.id)
    passed = await _go_through(connection, run.id)
    verdicts |= {verdict: count for verdict, count in found.items() if verdict in ALONGSIDE_VERDICTS}
    return RunReport(
        run=run,
        progress=progress,
        verdicts=verdicts,
        duplicates=await _duplicates(connection, run.id, passed.first, passed.last) if passed.first else 0,
        swept=int(passed.swept),
        recovered_submits=int(passed.recovered),
        held=sums["hold"],
        posted=sums["post"],
        voided=sums["void"],
        unknown=int(passed.unknown),
        reused=int(passed.reused),
    )


async def _findings(connection: AsyncConnection, run_id: str, limit: int) -> list[dict[str, Any]]:
    c, t = findings.c, tasks.c
    query = (
        sa.select(c.verdict, c.task_id, c.attempt, c.expected, c.actual, c.detail, c.delivery_id)
        .add_columns(t.ordinal, t.task_type, t.payload, *own_columns())
        .outerjoin(tasks, t.id == c.task_id)
        .where(c.run_id == run_id)
        .order_by(c.id)
        .limit(limit)
    )
    return [dict(row._mapping) for row in await connection.execute(query)]


async def _ledger_sums(connection: AsyncConnection, run_id: str) -> dict[str, Decimal]:
    """Open holds, posts and voids, from the ledger alone: `hold` is what no closing entry follows yet."""
    c = ledger.c

    def of(kind: str) -> sa.ColumnElement[Any]:
        return sa.func.sum(sa.case((c.kind == kind, c.credits))).label(kind)

    # Attempt by attempt, and no look for the closing entry of each hold, which costs more the longer the
    # ledger is.
    closed = sa.func.max(sa.case((c.kind != "hold", 1), else_=0)).label("closed")
    each = (
        sa.select(*map(of, ("hold", "post", "void")), closed)
        .where(c.run_id == run_id)
        .group_by(c.task_id, c.attempt)
        .subquery()
        .c
    )
    still_held = sa.case((each.closed == 0, each.hold))
    sums = {"hold": still_held, "post": each.post, "void": each.void}
    rows = await connection.execute(
        sa.select(*(credits_sum(credits).label(kind) for kind, credits in sums.items()))
    )
    return dict(rows.one()._mapping)


async def _go_through(connection: AsyncConnection, run_id: str) -> Any:
    """Figures of a run's attempts, and the first and the last id of its tasks (null: it has none); by one
    pass, as each takes as long as all else of a report on a run of thousands."""

    days = await pruned_send_days(connection, run_id)

    def counted(table: sa.Table, source: sa.FromClause) -> Any:
        c, t, n = table.c, tasks.c, sa.func.count()
        ids = sa.cast(t.id, sa.Text)
        return (
            sa.select(
                n.filter(c.settled_by == Source.POLL).label("swept"),
                n.filter(c.money == Money.HELD, c.state.not_in(OPEN_STATES)).label("unknown"),
                (sa.func.count(t.reused_from) if table is tasks else sa.literal(0)).label("reused"),
                n.filter(_is_recovered(c, days)).label("recovered"),
                sa.func.min(ids).label("first"),
                sa.func.max(ids).label("last"),
            )
            .select_from(source)
            .where(t.run_id == run_id)
        )

    each = sa.union_all(*(counted(*part) for part in EVERY_ATTEMPT)).subquery().c
    sums = (sa.func.sum(each[name]).label(name) for name in ("swept", "unknown", "reused", "recovered"))
    ends = sa.func.min(each.first).label("first"), sa.func.max(each.last).label("last")
    return (await connection.execute(sa.select(*sums, *ends))).one()


async def _duplicates(connection: AsyncConnection, run_id: str, first: str, last: str) -> int:
    """Webhook deliveries beyond the first of each attempt, those that were only counted among them. `first`
    and `last`: ids of tasks of the run."""
    t, d = tasks.c, deliveries.c
    # By the span of the run's tasks, which others may share: a look for each task, in each day since the run
    # began, is as many looks as days times tasks. Whose it is, is asked of the few that came again.
    n = sa.func.count() + sa.func.sum(d.repeats)
    again = (
        sa.select(d.task_id, n.label("n"))
        .where(d.task_id.between(first, last), since_tasks(connection, d.id, [run_id]))
        .where(d.source == "delivery", d.state == "done")
        .group_by(d.task_id, d.attempt)
        .having(n > 1)
        .subquery()
    )
    is_own = the_only(t.run_id, t.id == again.c.task_id) == run_id
    return int(await connection.scalar(sa.select(sa.func.sum(again.c.n - 1)).where(is_own)) or 0)


def _is_recovered(c: sa.ColumnCollection[str, Any], pruned_days: Sequence[Any]) -> sa.ColumnElement[bool]:
    """That the provider has an attempt, though no create call of ours was ever answered with success: learnt
    by a 409 or from its report. Not known of sends that were pruned since."""

    def answered(answer: Answer) -> sa.ColumnElement[bool]:
        return there_is(
            submissions.c.task_id == tasks.c.id,
            submissions.c.attempt == c.attempt,
            submissions.c.answer == answer,
        )

    # A sync call is held before it is answered, so a hold alone does not say that the provider has it.
    learnt = sa.or_(c.reported.is_not(None), answered(Answer.EXISTS))
    gone = [~are_sends_pruned(c, pruned_days)] if pruned_days else []
    return sa.and_(c.money != Money.NONE, *gone, learnt, ~answered(Answer.ACCEPTED))
