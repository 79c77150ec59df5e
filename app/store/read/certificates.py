"""Reads for a certificate: every attempt and ledger entry of a run, in one snapshot. Never writes."""

import hashlib
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.evidence.certificate import AttemptRecord, LedgerRecord, RunFacts, RunTotals
from app.ports import ReadAnswer
from app.store.by_index import read_by_index
from app.store.database import Database
from app.store.part import StorePart, reads
from app.store.read.bodies import read_answers
from app.store.read.pruned import pruned_of
from app.store.read.set_aside import set_aside_about
from app.store.tables import account_entries, attempts, ledger, results, runs, tasks
from app.store.write.open_sends import is_refusal_in_doubt
from app.store.write.partitions import hold_partitions
from app.store.write.receipts import count_findings

PAGE = 250
"""Tasks read at once."""

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

    def __init__(self, db: Database, read_answer: ReadAnswer) -> None:
        super().__init__(db)
        self._read_answer = read_answer

    @reads(long=True)
    async def total_run(self, connection: AsyncConnection, run_id: str) -> tuple[RunTotals, RunFacts]:
        """A run folded page by page, so that memory stays flat, in one snapshot."""
        if not self.db.is_sqlite:
            await connection.execution_options(isolation_level="REPEATABLE READ")
            await hold_partitions(connection)
        await read_by_index(connection)
        totals, after = RunTotals(), 0
        while current := await _current(connection, run_id, after):
            after = current[-1].ordinal
            ids = [record.task_id for record in current]
            past = await _past(connection, ids)
            every = sorted([*current, *past], key=lambda record: (record.ordinal, record.attempt))
            every = await self._hashed(connection, every)
            totals.page(every, await _entries(connection, ids))
        totals.adjustments(await _adjustments(connection, run_id))
        return totals, await _facts(connection, run_id)

    async def _hashed(
        self, connection: AsyncConnection, records: Sequence[AttemptRecord]
    ) -> list[AttemptRecord]:
        """With the hashes that no sweep has noted yet, from the bodies."""
        blank = {it.response_sha256 for it in records if it.response_sha256 and "-" in it.response_sha256}
        answers = await read_answers(self.db, connection, self._read_answer, blank) if blank else {}
        hashes = {i: hashlib.sha256(answer).hexdigest() for i, answer in answers.items()}
        return [
            it._replace(response_sha256=hashes.get(it.response_sha256)) if it.response_sha256 in blank else it
            for it in records
        ]


async def _current(connection: AsyncConnection, run_id: str, after: int) -> list[AttemptRecord]:
    t = tasks.c
    query = (
        sa.select(
            t.ordinal,
            t.id,
            t.attempt,
            sa.true(),
            *(t[name] for name in _ATTEMPT_COLUMNS),
            *_ANSWER,
            is_refusal_in_doubt(),
        )
        .outerjoin(results, sa.and_(results.c.task_id == t.id, results.c.attempt == t.attempt))
        .where(t.run_id == run_id, t.ordinal > after)
        .order_by(t.ordinal)
        .limit(PAGE)
    )
    return [_attempt_record(row) for row in await connection.execute(query)]


async def _past(connection: AsyncConnection, ids: Sequence[str]) -> list[AttemptRecord]:
    a = attempts.c
    columns = (a[name] for name in _ATTEMPT_COLUMNS)
    query = (
        sa.select(
            tasks.c.ordinal,
            a.task_id,
            a.attempt,
            sa.false(),
            *columns,
            *_ANSWER,
            is_refusal_in_doubt(attempts),
        )
        .join(tasks, tasks.c.id == a.task_id)
        .outerjoin(results, sa.and_(results.c.task_id == a.task_id, results.c.attempt == a.attempt))
        .where(a.task_id.in_(ids))
    )
    return [_attempt_record(row) for row in await connection.execute(query)]


_ANSWER = (results.c.delivery_id, results.c.answer_sha256)


def _attempt_record(row: Any) -> AttemptRecord:
    *values, delivery_id, sha256, in_doubt = row
    # Where no sweep has hashed it yet, the delivery's id stands in its place for now.
    said = sha256.hex() if sha256 is not None else delivery_id
    return AttemptRecord._make([*values, said, bool(in_doubt)])


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
    entries = await connection.scalar(
        sa.select(sa.func.count()).select_from(ledger).where(ledger.c.run_id == run_id)
    )
    aside = await set_aside_about(connection, run_id)
    gone = await pruned_of(connection, run_id)
    return RunFacts(
        run.id,
        run.name,
        run.account,
        run.source,
        run.source_sha256,
        run.state,
        run.bad_lines,
        run.created_at_ms,
        await count_findings(connection, run_id),
        entries or 0,
        aside.named,
        aside.unnamed,
        gone.answers,
        gone.at_ms,
        gone.sends,
        gone.findings,
    )
