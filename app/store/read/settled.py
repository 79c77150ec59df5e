"""Reads of results in the order of settlement, each attempt of a task by itself. Nothing here writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.by_index import read_by_index
from app.store.part import reads
from app.store.read.bodies import AnswerReads
from app.store.read.exports import EXPORT_CHUNK, Row, read_results
from app.store.read.own_columns import own_columns
from app.store.tables import attempts, results, runs, tasks

_OF_ATTEMPT = (
    "state",
    "verdict",
    "credits_estimate",
    "credits_to_charge",
    "credits_charged",
    "provider_task_id",
    "error_code",
    "error_message",
    "submitted_at_ms",
    "settled_at_ms",
    "settled_by",
)
"""Columns that each attempt has for itself; a retry has taken them to `attempts`."""


@dataclass(frozen=True, slots=True)
class SettledPage:
    """Results in a row."""

    rows: list[Row]
    through_seq: int
    """Everything up to here was looked at, and is in `rows` if it was asked for."""
    is_last: bool
    """Nothing more was settled when this was read."""


class SettledReads(AnswerReads):
    """Part of the store."""

    @reads(long=True)
    async def settled_after(
        self,
        connection: AsyncConnection,
        seq: int,
        *,
        through: int | None = None,
        run_id: str | None = None,
        accounts: Sequence[str] = (),
    ) -> SettledPage:
        """The next results behind `seq`, at most up to `through`; of one run, of some accounts, where such
        are given. A response whose body is gone is null, and `response_note` says so."""
        await read_by_index(connection)
        # First, since what commits between the two statements has higher numbers.
        top = await connection.scalar(sa.select(sa.func.max(results.c.seq))) or 0
        top = top if through is None else min(top, through)
        query = _query(run_id, accounts).where(results.c.seq > seq, results.c.seq <= top).limit(EXPORT_CHUNK)
        rows, is_cut = await read_results(self.db, connection, self._read_answer, query, self._archive)
        if is_cut or len(rows) == EXPORT_CHUNK:
            return SettledPage(rows, rows[-1]["seq"], is_last=False)
        return SettledPage(rows, max(seq, top), is_last=True)

    @reads
    async def settled_at(self, connection: AsyncConnection, seq: int) -> tuple[str, int] | None:
        """(task id, attempt) of the result with this number; None: there is none."""
        found = await connection.execute(
            sa.select(results.c.task_id, results.c.attempt).where(results.c.seq == seq)
        )
        row = found.first()
        return None if row is None else (row.task_id, row.attempt)


def of_attempt(number: sa.ColumnElement[int]) -> list[sa.ColumnElement[Any]]:
    """What an attempt has for itself, in a query that joins `tasks`, and `attempts` for past ones."""
    t, a = tasks.c, attempts.c
    return [sa.case((t.attempt == number, t[name]), else_=a[name]).label(name) for name in _OF_ATTEMPT]


def settled_rows() -> sa.Select[Any]:
    """Results in the order of settlement, as SettledPage has them."""
    t, r, a = tasks.c, results.c, attempts.c
    return (
        sa.select(
            r.seq,
            t.run_id,
            runs.c.name.label("run_name"),
            runs.c.account,
            r.stored_at_ms,
            t.ordinal,
            r.task_id,
            *own_columns(),
            r.attempt,
            t.task_type,
            t.payload,
            t.priority,
            *of_attempt(r.attempt),
            sa.case((t.attempt == r.attempt, t.reused_from)).label("reused_from"),
            r.delivery_id,
            r.answer_bytes,
            r.answer_sha256,
        )
        .join(tasks, t.id == r.task_id)
        .join(runs, runs.c.id == t.run_id)
        .outerjoin(attempts, sa.and_(a.task_id == r.task_id, a.attempt == r.attempt, t.attempt != r.attempt))
        .order_by(r.seq)
    )


def _query(run_id: str | None, accounts: Sequence[str]) -> sa.Select[Any]:
    query = settled_rows()
    if run_id is not None:
        query = query.where(tasks.c.run_id == run_id)
    return query.where(runs.c.account.in_(accounts)) if accounts else query
