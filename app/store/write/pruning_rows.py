"""Dropping rows that are no bodies: submissions, balances, notices, findings and callers' keys, in the order
of their ids.

Ids grow with time, so a walk from the lowest needs no other index, and ends where rows are young. May drop
nothing that `pruning_reasons` gives a reason for.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.credits import to_micro
from app.domain.retention import DONE, OPEN, Kind, Reason
from app.store.days import day_of, time_of
from app.store.part import StorePart, reads, writes
from app.store.tables import (
    SLACK_MS,
    Id,
    attempts,
    balances,
    findings,
    notices,
    pruned_findings,
    receipts,
    submissions,
    task_keys,
    tasks,
)
from app.store.write.pruning import take_turn
from app.store.write.pruning_reasons import leading_sends, reasons_of
from app.store.write.receipts import Dropped, add_to_receipt

ROWS = 150
"""Of one transaction, 100 to 600 bytes each: SQLite's other writers wait some 10 to 20 ms for it, and 80
where its commit writes the log back into the file."""
TABLES = {
    Kind.SUBMISSIONS: submissions,
    Kind.BALANCES: balances,
    Kind.NOTICES: notices,
    Kind.FINDINGS: findings,
    Kind.KEYS: task_keys,
}
RowId = int | str
Row = sa.Row[Any]


@dataclass(frozen=True, slots=True)
class RowBatch:
    """One transaction's share of a kind."""

    days: list[Dropped]
    last_id: RowId | None
    """Go on after it; None: what follows is young."""


class RowPruneWrites(StorePart):
    """Part of the store."""

    @reads(long=True)
    async def survey_rows(
        self, connection: AsyncConnection, kind: Kind, until_ms: int, after: RowId | None, now_ms: int
    ) -> RowBatch:
        """What `drop_rows` would drop."""
        return await self._batch(connection, kind, until_ms, after, now_ms)

    @writes
    async def drop_rows(
        self, connection: AsyncConnection, kind: Kind, until_ms: int, after: RowId | None, now_ms: int
    ) -> RowBatch:
        """Look at up to `ROWS` rows, drop those that are older than `until_ms` and may go, and add them to
        the receipts of their days."""
        await take_turn(self.db, connection)
        batch = await self._batch(connection, kind, until_ms, after, now_ms)
        ids = [row_id for day in batch.days for row_id, _ in day.rows_of]
        if kind is Kind.FINDINGS:
            await _count_findings(connection, ids, now_ms)
        of_these = id_of(TABLES[kind]).in_(_typed(kind, ids))
        await connection.execute(sa.delete(TABLES[kind]).where(of_these))
        for day in batch.days:
            if day.rows:
                await add_to_receipt(connection, day, now_ms, None)
            day.rows_of = []
        return batch

    @writes
    async def close_rows(self, connection: AsyncConnection, kind: Kind, until_ms: int) -> None:
        """All rows before a time were gone through."""
        c = receipts.c
        is_open = c.kind == kind, c.state == OPEN, c.until_ms <= until_ms
        await connection.execute(sa.update(receipts).where(*is_open).values(state=DONE))

    async def _batch(
        self, connection: AsyncConnection, kind: Kind, until_ms: int, after: RowId | None, now_ms: int
    ) -> RowBatch:
        if not self.db.is_sqlite:
            # Where many rows are alike, it takes reading a table for the shorter way to the first of them.
            await connection.execute(sa.text("SET LOCAL enable_seqscan = off"))
        rows = (await connection.execute(page_of(kind, after))).all()
        old = [row for row in rows if _at_ms(row) < until_ms and row.leads]
        # What a wrong clock dated ahead is no end.
        is_end = all(_at_ms(row) >= until_ms for row in rows) and any(
            _at_ms(row) <= now_ms + SLACK_MS for row in rows
        )
        last_id = None if len(rows) < ROWS or is_end else rows[-1].row_id
        days = {day_ms: Dropped(kind, day_ms) for day_ms in sorted({_day_of(row) for row in old})}
        for row in old:
            if row.reason is not None:
                days[_day_of(row)].kept[Reason(row.reason)] += 1
        goes = [row for row in old if row.reason is None]
        if kind is Kind.SUBMISSIONS:
            await self._add_sends(connection, goes, days)
        else:
            _add(((_day_of(row), row) for row in goes), TABLES[kind], days)
        return RowBatch(list(days.values()), last_id)

    async def _add_sends(
        self, connection: AsyncConnection, leading: Sequence[Row], days: dict[int, Dropped]
    ) -> None:
        """All sends of the attempts whose leading sends go, on the day of these, and their charges."""
        if not leading:
            return
        day_of_attempt = {(row.task_id, row.attempt): day_of(row.at_ms) for row in leading}
        named = {"task_id": Id, "attempt": sa.Integer()}
        v = self.db.batch("v", named, [{"task_id": i, "attempt": n} for i, n in day_of_attempt])
        s = submissions.c
        is_own = sa.and_(s.task_id == v.c.task_id, s.attempt == v.c.attempt)
        rows = await connection.execute(sa.select(submissions).join(v, is_own).order_by(s.id))
        _add(((day_of_attempt[row.task_id, row.attempt], row) for row in rows), submissions, days)
        for table, key in ((tasks, tasks.c.id), (attempts, attempts.c.task_id)):
            c = table.c
            charged = sa.select(key.label("task_id"), c.attempt, c.credits_charged)
            found = charged.join(v, sa.and_(key == v.c.task_id, c.attempt == v.c.attempt))
            for row in await connection.execute(found):
                charge = row.credits_charged or Decimal(0)
                days[day_of_attempt[row.task_id, row.attempt]].credits_charged += charge


def page_of(kind: Kind, after: RowId | None) -> sa.Select[Any]:
    """The next rows in the order of ids, each with the reason for which it stays, and whether others go with
    it, or it with them. Never the newest of all: SQLite would give its id to another."""
    table = TABLES[kind]
    id_, every = id_of(table), id_of(table.alias("every"))
    newest = sa.select(every).order_by(every.desc()).limit(1).scalar_subquery()
    # Chosen first: PostgreSQL would prepare the reasons for all rows that are left, were they many.
    page = sa.select(every.label("id")).where(every < newest, *([] if after is None else [every > after]))
    chosen = page.order_by(every).limit(ROWS).cte("page")
    leads = leading_sends() if kind is Kind.SUBMISSIONS else sa.true()
    query = sa.select(table, id_.label("row_id"), leads.label("leads"), reasons_of(kind).label("reason"))
    return query.join(chosen, chosen.c.id == id_).order_by(id_)


def id_of(table: sa.FromClause) -> sa.ColumnElement[Any]:
    """What its rows are gone through by: a key has the id of its task, which has the time too."""
    return table.c.id if "id" in table.c else table.c.task_id


def _at_ms(row: Row) -> int:
    at_ms: int | None = row._mapping.get("at_ms")
    return time_of(row.row_id) if at_ms is None else at_ms


def _day_of(row: Row) -> int:
    return day_of(_at_ms(row))


def _add(rows: Iterable[tuple[int, Row]], table: sa.Table, days: dict[int, Dropped]) -> None:
    for day_ms, row in rows:
        text, day = row_text(row, table), days[day_ms]
        day.rows += 1
        day.body_bytes += len(text)
        day.rows_of.append((str(row._mapping.get("id") or row.task_id), hashlib.sha256(text).hexdigest()))


def row_text(row: Row, table: sa.Table) -> bytes:
    """What a row is hashed as: canonical JSON of its columns, credits in millionths."""
    values = {column.name: row._mapping[column.name] for column in table.c}
    plain = {name: to_micro(v) if isinstance(v, Decimal) else v for name, v in values.items()}
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _typed(kind: Kind, ids: Sequence[str]) -> list[RowId]:
    return list(ids) if kind in (Kind.NOTICES, Kind.KEYS) else [int(i) for i in ids]


async def _count_findings(connection: AsyncConnection, ids: Sequence[str], now_ms: int) -> None:
    """Add what goes to what went of each run and verdict."""
    f, p = findings.c, pruned_findings.c
    chosen = sa.select(f.run_id, f.verdict).where(f.id.in_(_typed(Kind.FINDINGS, ids)), f.run_id.is_not(None))
    counts = Counter((row.run_id, row.verdict) for row in await connection.execute(chosen))
    for (run_id, verdict), count in counts.items():
        of_group = p.run_id == run_id, p.verdict == verdict
        more = {"row_count": p.row_count + count, "at_ms": now_ms}
        changed = await connection.execute(sa.update(pruned_findings).where(*of_group).values(more))
        if not changed.rowcount:
            new = {"run_id": run_id, "verdict": verdict, "row_count": count, "at_ms": now_ms}
            await connection.execute(sa.insert(pruned_findings).values(new))
