"""Every read that a person or a page asks for. Nothing here writes, and no number is kept anywhere but in the
rows it is computed from, so progress cannot disagree with the results.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.retry import Answer
from app.domain.task import OPEN_STATES
from app.store.engine import Database
from app.store.tables import (
    IS_PENDING,
    IS_WAITING,
    Credits,
    deliveries,
    findings,
    ledger,
    results,
    runs,
    submissions,
    tasks,
)

EXPORT_CHUNK = 500


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as its row says."""

    id: str
    name: str
    source: str
    state: str
    reason: str | None
    budget: Decimal | None
    bad_lines: int
    created_at_ms: int
    account: str


@dataclass(slots=True)
class RunProgress:
    """What a progress bar needs, from one pass over the run's rows."""

    tasks: int = 0
    states: dict[str, int] = field(default_factory=dict)
    verdicts: dict[str, int] = field(default_factory=dict)
    held: Decimal = Decimal(0)
    charged: Decimal = Decimal(0)
    estimate: Decimal = Decimal(0)

    @property
    def open(self) -> int:
        return sum(self.states.get(state, 0) for state in OPEN_STATES)


@dataclass(slots=True)
class RunReport:
    """All that the books say about one run."""

    run: RunRow
    progress: RunProgress
    verdicts: dict[str, int]
    """Verdicts of settled tasks, and findings of the kinds that stand beside a task's own verdict."""
    duplicates: int
    swept: int
    recovered_submits: int
    held: Decimal
    posted: Decimal
    voided: Decimal
    unknown: int
    """Tasks whose money is open though their work is closed."""
    reused: int = 0
    """Tasks that an equal result of before answers, for nothing."""


class Queries:
    """Part of Store."""

    db: Database

    async def list_runs(self, limit: int = 50) -> list[RunRow]:
        """The newest runs first."""

        async def work(connection: AsyncConnection) -> list[RunRow]:
            rows = await connection.execute(
                sa.select(*_RUN_COLUMNS).order_by(runs.c.created_at_ms.desc()).limit(limit)
            )
            return [RunRow(*row) for row in rows]

        return await self.db.read(work)

    async def find_runs(self, name_or_id: str) -> list[RunRow]:
        """Runs whose id is, or begins or ends with, the given text, or whose name it is; newest first."""
        as_text = sa.func.lower(sa.func.replace(sa.cast(runs.c.id, sa.Text), "-", ""))
        wanted = name_or_id.lower().replace("-", "")
        same = [runs.c.name == name_or_id]
        if len(wanted) >= 4 and all(c in "0123456789abcdef" for c in wanted):
            same += [as_text.startswith(wanted), as_text.endswith(wanted)]

        async def work(connection: AsyncConnection) -> list[RunRow]:
            rows = await connection.execute(
                sa.select(*_RUN_COLUMNS).where(sa.or_(*same)).order_by(runs.c.created_at_ms.desc())
            )
            return [RunRow(*row) for row in rows]

        return await self.db.read(work)

    async def progress(self, run_id: str) -> RunProgress:
        """Counts and credits of one run."""

        async def work(connection: AsyncConnection) -> RunProgress:
            return await _progress(connection, run_id)

        return await self.db.read(work)

    async def report(self, run: RunRow) -> RunReport:
        """The books of one run, all read in one transaction."""

        async def work(connection: AsyncConnection) -> RunReport:
            progress = await _progress(connection, run.id)
            sums = await _ledger_sums(connection, run.id)
            verdicts = dict(progress.verdicts)
            beside = await connection.execute(
                sa.select(findings.c.verdict, sa.func.count())
                .where(findings.c.run_id == run.id, findings.c.verdict.in_(_BESIDE))
                .group_by(findings.c.verdict)
            )
            verdicts |= {row[0]: row[1] for row in beside}
            return RunReport(
                run=run,
                progress=progress,
                verdicts=verdicts,
                duplicates=await _duplicates(connection, run.id),
                swept=await _count(connection, tasks.c.run_id == run.id, tasks.c.settled_by == "poll"),
                recovered_submits=await _recovered(connection, run.id),
                held=sums.get("hold", Decimal(0)),
                posted=sums.get("post", Decimal(0)),
                voided=sums.get("void", Decimal(0)),
                unknown=await _count(
                    connection,
                    tasks.c.run_id == run.id,
                    tasks.c.money == "held",
                    tasks.c.state.not_in(OPEN_STATES),
                ),
                reused=await _count(connection, tasks.c.run_id == run.id, tasks.c.reused_from.is_not(None)),
            )

        return await self.db.read(work)

    async def waiting_count(self) -> int:
        """Deliveries that are not settled yet."""

        async def work(connection: AsyncConnection) -> int:
            query = sa.select(sa.func.count()).where(IS_WAITING)
            return await connection.scalar(query) or 0

        return await self.db.read(work)

    async def accounts_with_due(self, now_ms: int) -> list[str]:
        """Accounts that have something to send now."""
        due = (
            sa.select(runs.c.account)
            .where(
                runs.c.state == "running",
                sa.exists().where(tasks.c.run_id == runs.c.id, IS_PENDING, tasks.c.not_before_ms <= now_ms),
            )
            .distinct()
        )

        async def work(connection: AsyncConnection) -> list[str]:
            return sorted((await connection.scalars(due)).all())

        return await self.db.read(work)

    async def findings_of(self, run_id: str, limit: int = 100) -> list[dict[str, Any]]:
        """What needs explaining in a run, oldest first."""
        c = findings.c
        query = (
            sa.select(c.verdict, c.task_id, c.attempt, c.expected, c.actual, c.detail, c.delivery_id)
            .where(c.run_id == run_id)
            .order_by(c.id)
            .limit(limit)
        )

        async def work(connection: AsyncConnection) -> list[dict[str, Any]]:
            return [dict(row._mapping) for row in await connection.execute(query)]

        return await self.db.read(work)

    async def export(self, run_id: str) -> AsyncIterator[dict[str, Any]]:
        """Every task of a run with its answer, in the order of its source; read in chunks, so that memory
        stays flat however long the run is."""
        after = 0
        while True:
            rows = await self._export_chunk(run_id, after)
            for row in rows:
                yield row
            if len(rows) < EXPORT_CHUNK:
                return
            after = rows[-1]["ordinal"]

    async def _export_chunk(self, run_id: str, after: int) -> list[dict[str, Any]]:
        t = tasks.c
        query = (
            sa.select(
                t.ordinal, t.id.label("task_id"), t.attempt, t.task_type, t.payload, t.priority, t.state,
                t.verdict, t.credits_estimate, t.credits_to_charge, t.credits_charged, t.provider_task_id,
                t.error_code, t.error_message, t.submitted_at_ms, t.settled_at_ms, t.settled_by,
                t.reused_from, results.c.response,
            )
            .outerjoin(results, sa.and_(results.c.task_id == t.id, results.c.attempt == t.attempt))
            .where(t.run_id == run_id, t.ordinal > after)
            .order_by(t.ordinal)
            .limit(EXPORT_CHUNK)
        )  # fmt: skip

        async def work(connection: AsyncConnection) -> list[dict[str, Any]]:
            return [
                dict(row._mapping) | {"payload": json.loads(row.payload)}
                for row in await connection.execute(query)
            ]

        return await self.db.read(work)

    async def charges(self, run_id: str) -> dict[str, Decimal | None]:
        """Idempotency key -> credits charged, of every accepted task of a run."""
        query = sa.select(tasks.c.idempotency_key, tasks.c.credits_charged).where(
            tasks.c.run_id == run_id, tasks.c.money != "none"
        )

        async def work(connection: AsyncConnection) -> dict[str, Decimal | None]:
            return {row[0]: row[1] for row in await connection.execute(query)}

        return await self.db.read(work)

    async def schema_revision(self) -> str | None:
        """The migration the database stands at; None when it was never migrated."""

        async def work(connection: AsyncConnection) -> str | None:
            if not await connection.run_sync(lambda sync: sa.inspect(sync).has_table("alembic_version")):
                return None
            version = await connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
            return None if version is None else str(version)

        return await self.db.read(work)


_RUN_COLUMNS = (
    runs.c.id, runs.c.name, runs.c.source, runs.c.state, runs.c.reason, runs.c.budget, runs.c.bad_lines,
    runs.c.created_at_ms, runs.c.account,
)  # fmt: skip
_BESIDE = ("conflict", "repriced", "double_charged")


def _credits_sum(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.type_coerce(sa.func.coalesce(sa.func.sum(column), 0), Credits)


async def _progress(connection: AsyncConnection, run_id: str) -> RunProgress:
    held = sa.case((tasks.c.money == "held", tasks.c.credits_held), else_=None)
    rows = await connection.execute(
        sa.select(
            tasks.c.state, tasks.c.verdict, sa.func.count(), _credits_sum(held),
            _credits_sum(tasks.c.credits_charged), _credits_sum(tasks.c.credits_estimate),
        )
        .where(tasks.c.run_id == run_id)
        .group_by(tasks.c.state, tasks.c.verdict)
    )  # fmt: skip
    progress = RunProgress()
    for state, verdict, count, held_sum, charged_sum, estimate_sum in rows:
        progress.tasks += count
        progress.states[state] = progress.states.get(state, 0) + count
        if verdict is not None:
            progress.verdicts[verdict] = progress.verdicts.get(verdict, 0) + count
        progress.held += held_sum
        progress.charged += charged_sum
        progress.estimate += estimate_sum
    return progress


async def _ledger_sums(connection: AsyncConnection, run_id: str) -> dict[str, Decimal]:
    """Open holds, posts and voids, from the ledger alone: `hold` is what no closing entry follows yet."""
    closing = ledger.alias("closing")
    closed = sa.exists().where(
        closing.c.task_id == ledger.c.task_id,
        closing.c.attempt == ledger.c.attempt,
        closing.c.kind.in_(("post", "void")),
    )
    counted = sa.or_(ledger.c.kind != "hold", ~closed)
    rows = await connection.execute(
        sa.select(ledger.c.kind, _credits_sum(ledger.c.credits))
        .where(ledger.c.run_id == run_id, counted)
        .group_by(ledger.c.kind)
    )
    return {row[0]: row[1] for row in rows}


async def _count(connection: AsyncConnection, *conditions: sa.ColumnElement[bool]) -> int:
    return await connection.scalar(sa.select(sa.func.count()).select_from(tasks).where(*conditions)) or 0


async def _duplicates(connection: AsyncConnection, run_id: str) -> int:
    """Webhook deliveries beyond the first of each attempt."""
    per_attempt = (
        sa.select(sa.func.count().label("n"))
        .select_from(deliveries.join(tasks, deliveries.c.task_id == tasks.c.id))
        .where(tasks.c.run_id == run_id, deliveries.c.source == "delivery", deliveries.c.state == "done")
        .group_by(deliveries.c.task_id, deliveries.c.attempt)
        .subquery()
    )
    extra = await connection.scalar(sa.select(sa.func.coalesce(sa.func.sum(per_attempt.c.n - 1), 0)))
    return int(extra or 0)


async def _recovered(connection: AsyncConnection, run_id: str) -> int:
    """Attempts that the provider has, though no create call of ours was ever answered with success: learnt
    by a 409 or from their report."""

    def answered(answer: Answer) -> sa.ColumnElement[bool]:
        return sa.exists().where(
            submissions.c.task_id == tasks.c.id,
            submissions.c.attempt == tasks.c.attempt,
            submissions.c.answer == answer,
        )

    # A sync call is held before it is answered, so a hold alone does not say that the provider has it.
    learnt = sa.or_(answered(Answer.EXISTS), tasks.c.reported.is_not(None))
    return await _count(
        connection, tasks.c.run_id == run_id, tasks.c.money != "none", learnt, ~answered(Answer.ACCEPTED)
    )
