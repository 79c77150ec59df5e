"""Reads for a certificate: every attempt and ledger entry of a run, in one snapshot. Never writes."""

import hashlib
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.evidence.certificate import AttemptRecord, LedgerRecord, RunFacts, RunTotals
from app.store.part import StorePart, reads
from app.store.read.set_aside import set_aside_about
from app.store.tables import account_entries, attempts, findings, ledger, results, runs, tasks
from app.store.write.submission import is_refusal_in_doubt

PAGE = 250
"""Tasks read at once: on SQLite their answers, 18 KB each, come with them to be hashed."""

_ATTEMPT_COLUMNS = (
    "state",
    "money",
    "credits_estimate",
    "credits_to_charge",
    "credits_held",
    "credits_charged",
    "reported",
    "verdict",
    "sends",
)


class CertificateReads(StorePart):
    """Part of the store."""

    @reads(long=True)
    async def total_run(self, connection: AsyncConnection, run_id: str) -> tuple[RunTotals, RunFacts]:
        """A run folded page by page, so that memory stays flat, in one snapshot."""
        if not self.db.is_sqlite:
            await connection.execution_options(isolation_level="REPEATABLE READ")
        totals, after, answer = RunTotals(), 0, _answer(self.db.is_sqlite)
        while current := await _current(connection, run_id, after, answer):
            after = current[-1].ordinal
            ids = [record.task_id for record in current]
            past = await _past(connection, ids, answer)
            every = sorted([*current, *past], key=lambda record: (record.ordinal, record.attempt))
            totals.page(every, await _entries(connection, ids))
        totals.adjustments(await _adjustments(connection, run_id))
        return totals, await _facts(connection, run_id)


async def _current(
    connection: AsyncConnection, run_id: str, after: int, answer: sa.ColumnElement[Any]
) -> list[AttemptRecord]:
    t = tasks.c
    query = (
        sa.select(
            t.ordinal,
            t.id,
            t.attempt,
            sa.true(),
            *(t[name] for name in _ATTEMPT_COLUMNS),
            answer,
            is_refusal_in_doubt(),
        )
        .outerjoin(results, sa.and_(results.c.task_id == t.id, results.c.attempt == t.attempt))
        .where(t.run_id == run_id, t.ordinal > after)
        .order_by(t.ordinal)
        .limit(PAGE)
    )
    return [_attempt_record(row) for row in await connection.execute(query)]


async def _past(
    connection: AsyncConnection, ids: Sequence[str], answer: sa.ColumnElement[Any]
) -> list[AttemptRecord]:
    a = attempts.c
    columns = (a[name] for name in _ATTEMPT_COLUMNS)
    query = (
        sa.select(
            tasks.c.ordinal, a.task_id, a.attempt, sa.false(), *columns, answer, is_refusal_in_doubt(attempts)
        )
        .join(tasks, tasks.c.id == a.task_id)
        .outerjoin(results, sa.and_(results.c.task_id == a.task_id, results.c.attempt == a.attempt))
        .where(a.task_id.in_(ids))
    )
    return [_attempt_record(row) for row in await connection.execute(query)]


def _answer(is_sqlite: bool) -> sa.ColumnElement[Any]:
    """The hash of the stored answer where the database can make it, otherwise its bytes."""
    if is_sqlite:
        return sa.cast(results.c.response, sa.LargeBinary)
    return sa.func.encode(sa.func.sha256(sa.func.convert_to(results.c.response, "UTF8")), "hex")


def _attempt_record(row: Any) -> AttemptRecord:
    *values, answer, in_doubt = row
    sha256 = hashlib.sha256(answer).hexdigest() if isinstance(answer, bytes) else answer
    return AttemptRecord._make([*values, sha256, bool(in_doubt)])


_HOLD = ledger.c.kind == sa.literal_column("'hold'")
_CLOSING = ledger.c.kind.in_([sa.literal_column("'post'"), sa.literal_column("'void'")])
"""Written as literals, as the partial indexes are: SQLite finds them by nothing else."""


async def _entries(connection: AsyncConnection, ids: Sequence[str]) -> list[LedgerRecord]:
    columns = [ledger.c[name] for name in LedgerRecord._fields]
    found: list[LedgerRecord] = []
    for kind in (_HOLD, _CLOSING):
        query = sa.select(*columns).where(ledger.c.task_id.in_(ids), kind)
        found += [LedgerRecord._make(row) for row in await connection.execute(query)]
    return found


async def _adjustments(connection: AsyncConnection, run_id: str) -> list[LedgerRecord]:
    e = account_entries.c
    query = (
        sa.select(e.at_ms, e.task_id, e.attempt, e.kind, e.credits, sa.null(), e.reason)
        .where(e.run_id == run_id, e.kind == "adjustment")
        .order_by(e.id)
    )
    return [LedgerRecord._make(row) for row in await connection.execute(query)]


async def _facts(connection: AsyncConnection, run_id: str) -> RunFacts:
    run = (await connection.execute(sa.select(runs).where(runs.c.id == run_id))).one()
    found = await connection.execute(
        sa.select(findings.c.verdict, sa.func.count())
        .where(findings.c.run_id == run_id)
        .group_by(findings.c.verdict)
    )
    entries = await connection.scalar(
        sa.select(sa.func.count()).select_from(ledger).where(ledger.c.run_id == run_id)
    )
    aside = await set_aside_about(connection, run_id)
    return RunFacts(
        run.id,
        run.name,
        run.account,
        run.source,
        run.source_sha256,
        run.state,
        run.bad_lines,
        run.created_at_ms,
        {row[0]: row[1] for row in found},
        entries or 0,
        aside.named,
        aside.unnamed,
    )
