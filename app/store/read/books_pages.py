"""The ledger and the findings a page at a time. Nothing here writes.

Of all runs in the order of their ids, a bounded range of them for each page: an account that has little among
much of others gets pages with few entries, each of which says where the next begins. The ledger of one run is
in the order of its tasks, by their keys: its own ids would have to be sorted anew for every page.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.part import StorePart, reads
from app.store.tables import findings, ledger, runs, tasks

RANGE = 50_000
"""Ids that one page looks through, where not all of them are wanted."""

COUNTED_MAX = 10_000
"""Findings, the newest, that are counted by run and verdict."""


@dataclass(frozen=True, slots=True)
class BooksPage:
    """Entries or findings in a row."""

    rows: list[dict[str, Any]]
    through: int
    """Every id up to here was looked at."""
    is_last: bool


@dataclass(frozen=True, slots=True)
class FindingsOfRun:
    """How many findings of one verdict a run has."""

    run_id: str | None
    """None: about no task of ours."""
    name: str | None
    verdict: str
    count: int


class BooksPageReads(StorePart):
    """Part of the store."""

    @reads
    async def ledger_after(
        self, connection: AsyncConnection, after: int, limit: int, account: str | None
    ) -> BooksPage:
        """Entries of all runs, oldest first; of one account, where one is given."""
        query = sa.select(*_entry_columns())
        return await _page(connection, query, ledger, after, limit, account)

    @reads
    async def findings_after(
        self, connection: AsyncConnection, after: int, limit: int, account: str | None, run_id: str | None
    ) -> BooksPage:
        """Findings, oldest first. Without an account those about no task of ours too."""
        query = sa.select(*(findings.c[name] for name in _FINDING))
        if run_id is not None:
            rows = query.where(findings.c.run_id == run_id, findings.c.id > after).order_by(findings.c.id)
            return _whole(await connection.execute(rows.limit(limit + 1)), limit)
        return await _page(connection, query, findings, after, limit, account)

    @reads
    async def ledger_before(
        self, connection: AsyncConnection, before: int | None, limit: int, account: str | None
    ) -> BooksPage:
        """Entries of all runs, newest first, behind `before` if it is given; `through`: where to go on."""
        return await _page_back(connection, sa.select(*_entry_columns()), ledger, before, limit, account)

    @reads
    async def findings_before(
        self,
        connection: AsyncConnection,
        before: int | None,
        limit: int,
        account: str | None,
        run_id: str | None,
    ) -> BooksPage:
        """Findings, newest first, in the same way."""
        query = sa.select(*(findings.c[name] for name in _FINDING))
        if run_id is not None:
            rows = query.where(findings.c.run_id == run_id, *_below(findings, before))
            rows = rows.order_by(findings.c.id.desc()).limit(limit + 1)
            return _whole(await connection.execute(rows), limit)
        return await _page_back(connection, query, findings, before, limit, account)

    @reads
    async def findings_by_run(self, connection: AsyncConnection, account: str | None) -> list[FindingsOfRun]:
        """Of the newest COUNTED_MAX findings: how many of each verdict each run has, the newest run first."""
        f = findings.c
        newest = sa.select(f.run_id, f.verdict).order_by(f.id.desc()).limit(COUNTED_MAX).subquery()
        n = newest.c
        counted = sa.select(n.run_id, runs.c.name, n.verdict, sa.func.count())
        counted = counted.select_from(newest.outerjoin(runs, runs.c.id == n.run_id))
        if account is not None:
            counted = counted.where(runs.c.account == account)
        grouped = counted.group_by(n.run_id, runs.c.name, n.verdict)
        rows = await connection.execute(grouped.order_by(n.run_id.desc(), n.verdict))
        return [FindingsOfRun(*row) for row in rows]

    @reads
    async def ledger_of_run(
        self, connection: AsyncConnection, run_id: str, place: tuple[int, int], limit: int
    ) -> tuple[list[dict[str, Any]], tuple[int, int] | None]:
        """Entries of a run behind (ordinal of the task, id of the entry), in that order, each with its
        `ordinal`; and the place where to go on, None at the end."""
        ordinal, entry_id = place
        near = (
            sa.select(tasks.c.id, tasks.c.ordinal)
            .where(tasks.c.run_id == run_id, tasks.c.ordinal >= ordinal)
            .order_by(tasks.c.ordinal)
            .limit(RUN_TASKS)
            .cte("near")
        )
        count, last = (
            await connection.execute(sa.select(sa.func.count(), sa.func.max(near.c.ordinal)))
        ).one()
        # Each by the partial index that is for it.
        parts = [
            sa.select(*_entry_columns(), near.c.ordinal)
            .join(near, near.c.id == ledger.c.task_id)
            .where(which)
            for which in _KINDS
        ]
        both = sa.union_all(*parts).subquery("entries")
        behind = sa.or_(both.c.ordinal > ordinal, sa.and_(both.c.ordinal == ordinal, both.c.id > entry_id))
        query = sa.select(both).where(behind).order_by(both.c.ordinal, both.c.id).limit(limit + 1)
        rows = [dict(row._mapping) for row in await connection.execute(query)]
        if len(rows) > limit:
            return rows[:limit], (rows[limit - 1]["ordinal"], rows[limit - 1]["id"])
        return rows, (last + 1, 0) if count == RUN_TASKS else None

    @reads
    async def ledger_of_task(self, connection: AsyncConnection, task_id: str) -> list[dict[str, Any]]:
        """Entries of all attempts of a task, in the order they were written."""
        parts = [sa.select(*_entry_columns()).where(ledger.c.task_id == task_id, which) for which in _KINDS]
        both = sa.union_all(*parts).subquery("entries")
        rows = await connection.execute(sa.select(both).order_by(both.c.id))
        return [dict(row._mapping) for row in rows]

    @reads
    async def findings_of_task(self, connection: AsyncConnection, task_id: str) -> list[dict[str, Any]]:
        """Oldest first."""
        query = sa.select(*(findings.c[name] for name in _FINDING)).where(findings.c.task_id == task_id)
        rows = await connection.execute(query.order_by(findings.c.id))
        return [dict(row._mapping) for row in rows]


async def _page(
    connection: AsyncConnection,
    query: sa.Select[Any],
    table: sa.Table,
    after: int,
    limit: int,
    account: str | None,
) -> BooksPage:
    c = table.c
    query = query.where(c.id > after).order_by(c.id).limit(limit + 1)
    if account is None:
        return _whole(await connection.execute(query), limit)
    last = await connection.scalar(sa.select(sa.func.max(c.id))) or 0
    end = min(after + RANGE, last)
    own = query.join(runs, runs.c.id == c.run_id).where(runs.c.account == account, c.id <= end)
    page = _whole(await connection.execute(own), limit)
    return page if not page.is_last else BooksPage(page.rows, max(after, end), end >= last)


async def _page_back(
    connection: AsyncConnection,
    query: sa.Select[Any],
    table: sa.Table,
    before: int | None,
    limit: int,
    account: str | None,
) -> BooksPage:
    c = table.c
    query = query.order_by(c.id.desc()).limit(limit + 1)
    if account is None:
        return _whole(await connection.execute(query.where(*_below(table, before))), limit)
    top = before
    if top is None:
        top = (await connection.scalar(sa.select(sa.func.max(c.id))) or 0) + 1
    least = top - RANGE
    own = query.join(runs, runs.c.id == c.run_id).where(runs.c.account == account, c.id < top, c.id >= least)
    page = _whole(await connection.execute(own), limit)
    return page if not page.is_last else BooksPage(page.rows, max(least, 0), least <= 1)


def _below(table: sa.Table, before: int | None) -> list[sa.ColumnElement[bool]]:
    return [] if before is None else [table.c.id < before]


def _whole(found: sa.CursorResult[Any], limit: int) -> BooksPage:
    rows: Sequence[dict[str, Any]] = [dict(row._mapping) for row in found]
    shown = list(rows[:limit])
    return BooksPage(shown, shown[-1]["id"] if shown else 0, len(rows) <= limit)


def _entry_columns() -> list[sa.ColumnElement[Any]]:
    return [ledger.c[name] for name in _ENTRY]


RUN_TASKS = 1_000
"""Tasks that a page of a run's ledger looks at: most have two entries."""
_KINDS = (ledger.c.kind == "hold", ledger.c.kind.in_(("post", "void")))
_ENTRY = ("id", "at_ms", "run_id", "task_id", "attempt", "kind", "credits", "delivery_id", "reason")
_FINDING = (
    "id",
    "at_ms",
    "run_id",
    "task_id",
    "attempt",
    "verdict",
    "expected",
    "actual",
    "detail",
    "delivery_id",
)
