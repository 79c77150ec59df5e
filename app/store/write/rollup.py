"""Counts and credits of each run by state, engine and verdict, so that nobody counts tasks to show a run.

Kept by the database itself, as spending is (spending.py): triggers on `tasks` and `attempts` (migration 0024)
note what each statement changed, whichever version of ours runs it. On PostgreSQL they append a row for each
statement and cell, so that no writer waits for another, and `fold_rollup` adds those up. At every commit sums
and changes are together what the rows of the run give; `tallyhook verify` checks it.

By the country nothing is kept: it stands in the payload, which each statement would have to parse.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.task import Money
from app.store.database import Database
from app.store.part import StorePart, reads, writes
from app.store.tables import EVERY_ATTEMPT, IS_WITHOUT_ROLLUP, rollup_changes, run_rollup, runs, tasks

FOLDED_MAX = 5_000
"""Changes added up by one call: some 50 ms."""
COUNTED_MAX = 20
"""Runs of before the triggers that are counted by one call; one of a million tasks takes a second."""
CELL = ("run_id", "is_current", "task_type", "state", "verdict")
FIGURES = ("attempts", "held", "charged", "estimate")


def kept_cells(run_ids: Sequence[str]) -> sa.Select[Any]:
    """CELL, FIGURES and how often they changed, as is kept of runs: a cell once for its sum, and once for
    what changed since."""
    kept = sa.select(*(run_rollup.c[name] for name in (*CELL, *FIGURES, "changes")))
    changed = _summed(rollup_changes).add_columns(sa.func.count())
    changed = changed.where(rollup_changes.c.run_id.in_(run_ids))
    each = sa.union_all(kept.where(run_rollup.c.run_id.in_(run_ids)), changed).subquery()
    return sa.select(each)


def cells_from_rows(run_ids: Sequence[str]) -> sa.Select[Any]:
    """The same as the attempts of the runs say, all of them gone through."""
    parts = (_cells_of(run_ids, table, source) for table, source in EVERY_ATTEMPT)
    return sa.select(sa.union_all(*parts).subquery())


def unkept_cells(run_ids: Sequence[str]) -> sa.Select[Any]:
    """What what is kept lacks to be what the rows say, where it lacks any; for a select in one snapshot."""
    kept = kept_cells(run_ids).subquery()
    negated = sa.select(*_cell(kept), *(_as(name, -kept.c[name]) for name in FIGURES))
    each = sa.union_all(cells_from_rows(run_ids), negated).subquery()
    return _summed(each).having(sa.or_(*(sa.func.sum(each.c[name]) != 0 for name in FIGURES)))


async def runs_with_rollup(connection: AsyncConnection, run_ids: Sequence[str]) -> set[str]:
    """Of which everything is kept. Once it is, it stays so."""
    query = sa.select(runs.c.id).where(runs.c.id.in_(run_ids), runs.c.has_rollup)
    return set(await connection.scalars(query))


class RollupWrites(StorePart):
    """Part of the store."""

    async def fold_rollup(self) -> int:
        """Add noted changes to the sums, the oldest first; to how many. Readers see all of it or nothing."""
        if self.db.is_sqlite:
            return 0  # one writer at a time: its triggers keep the sums themselves
        return await self._fold_oldest() if await self._is_any_left() else 0

    async def count_runs(self) -> int:
        """Add to what is kept of runs of before the triggers what they were then, the newest first; how many
        were counted. What changes meanwhile is noted by the triggers, and is no part of it."""
        counted = 0
        for run_id in await self._uncounted():
            counted += await self._add_unkept(run_id, await self._unkept(run_id))
        return counted

    @reads
    async def _is_any_left(self, connection: AsyncConnection) -> bool:
        return await connection.scalar(sa.select(rollup_changes.c.id).limit(1)) is not None

    @writes
    async def _fold_oldest(self, connection: AsyncConnection) -> int:
        from sqlalchemy.dialects import postgresql  # not by who only reads what is kept

        oldest = sa.select(rollup_changes.c.id).order_by(rollup_changes.c.id).limit(FOLDED_MAX)
        oldest = oldest.with_for_update(skip_locked=True)
        taken = sa.delete(rollup_changes).where(rollup_changes.c.id.in_(oldest))
        each = taken.returning(*(rollup_changes.c[name] for name in (*CELL, *FIGURES))).cte("taken")
        # In one order, so that two that fold at once wait for each other and no more.
        sums = _summed(each).add_columns(sa.func.count()).order_by(*_cell(each))
        insert = postgresql.insert(run_rollup).from_select([*CELL, *FIGURES, "changes"], sums)
        return (await connection.execute(_or_added(insert))).rowcount

    @reads
    async def _uncounted(self, connection: AsyncConnection) -> Sequence[str]:
        query = sa.select(runs.c.id).where(IS_WITHOUT_ROLLUP).order_by(runs.c.id.desc()).limit(COUNTED_MAX)
        return (await connection.scalars(query)).all()

    @reads(long=True)
    async def _unkept(self, connection: AsyncConnection, run_id: str) -> list[dict[str, Any]]:
        return [dict(row._mapping) for row in await connection.execute(unkept_cells([run_id]))]

    @writes
    async def _add_unkept(
        self, connection: AsyncConnection, run_id: str, unkept: Sequence[dict[str, Any]]
    ) -> int:
        """Once: of two that counted a run one adds it."""
        of_run = runs.c.id == run_id, IS_WITHOUT_ROLLUP
        marked = await connection.execute(sa.update(runs).where(*of_run).values(has_rollup=True))
        if marked.rowcount and unkept:
            await _note(self.db, connection, unkept)
        return marked.rowcount


async def _note(db: Database, connection: AsyncConnection, cells: Sequence[dict[str, Any]]) -> None:
    """As the triggers do."""
    if db.is_sqlite:
        from sqlalchemy.dialects import sqlite

        rows = [cell | {"changes": 1} for cell in cells]
        await connection.execute(_or_added(sqlite.insert(run_rollup)), rows)
    else:
        await db.insert(connection, rollup_changes, cells)


def _or_added(insert: Any) -> Any:
    """Where a cell is there already, its figures are added to."""
    added = {name: run_rollup.c[name] + insert.excluded[name] for name in (*FIGURES, "changes")}
    return insert.on_conflict_do_update(index_elements=CELL, set_=added)


def _cell(table: sa.FromClause) -> list[sa.ColumnElement[Any]]:
    return [table.c[name] for name in CELL]


def _as(figure: str, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """A sum is a numeric on PostgreSQL, which the driver takes for a decimal of ours."""
    return sa.cast(column, run_rollup.c[figure].type).label(figure)


def _summed(table: sa.FromClause) -> sa.Select[Any]:
    sums = (_as(name, sa.func.sum(table.c[name])) for name in FIGURES)
    return sa.select(*_cell(table), *sums).group_by(*_cell(table))


def _cells_of(run_ids: Sequence[str], table: sa.Table, source: sa.FromClause) -> sa.Select[Any]:
    c = table.c
    cell = {
        "run_id": tasks.c.run_id,
        "is_current": sa.literal_column("true" if table is tasks else "false", sa.Boolean()),
        "task_type": tasks.c.task_type,
        "state": c.state,
        "verdict": sa.func.coalesce(c.verdict, sa.literal_column("''")),
    }
    held = sa.case((c.money == Money.HELD, c.credits_held))
    figures = (
        sa.func.count(),
        *(
            sa.func.coalesce(sa.func.sum(column), 0)
            for column in (held, c.credits_charged, c.credits_estimate)
        ),
    )
    labelled = [column.label(name) for name, column in cell.items()]
    sums = (_as(name, figure) for name, figure in zip(FIGURES, figures, strict=True))
    grouped = [column for name, column in cell.items() if name != "is_current"]
    query = sa.select(*labelled, *sums).select_from(source)
    return query.where(tasks.c.run_id.in_(run_ids)).group_by(*grouped)
