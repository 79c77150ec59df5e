"""Counts and credits of runs. Read from what the database keeps of each (write/rollup.py), so that it costs
the same however many tasks a run has; of a run of which not all is kept yet, from its rows. Writes nothing.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.task import OPEN_STATES, TaskState
from app.store.part import StorePart, reads
from app.store.tables import Credits, claims, credits_sum, tasks
from app.store.write.claims import in_ranges
from app.store.write.rollup import CELL, FIGURES, cells_from_rows, kept_cells, runs_with_rollup

_SHAPE = (*CELL, *FIGURES, "changes")
_CLAIMED = "claimed"
"""In place of a state, of the tasks that are pending by their rows and in a range of a sender's."""
_Key = tuple[bool, str, str, str | None]
_Sums = defaultdict[_Key, list[Any]]


@dataclass(frozen=True, slots=True)
class Cell:
    """Attempts of a run that are alike."""

    is_current: bool
    """Of their tasks; otherwise a retry has replaced them."""
    task_type: str
    state: str
    verdict: str | None
    attempts: int
    held: Decimal
    """Of those whose money is open."""
    charged: Decimal
    estimate: Decimal


@dataclass(slots=True)
class RunProgress:
    """What a progress bar needs."""

    tasks: int = 0
    states: dict[str, int] = field(default_factory=dict)
    """Of tasks: where the current attempt of each stands."""
    verdicts: dict[str, int] = field(default_factory=dict)
    """Of all attempts, as all credits: what a retry replaced was judged, and may have been paid for."""
    held: Decimal = Decimal(0)
    charged: Decimal = Decimal(0)
    estimate: Decimal = Decimal(0)
    cells: list[Cell] = field(default_factory=list)
    """What the others are sums of. A task that a sender has claimed is `submitting`."""
    version: str | None = None
    """Another one for other counts; it never comes back. None: the rows were counted."""

    @property
    def open(self) -> int:
        return sum(self.states.get(state, 0) for state in OPEN_STATES)


class ProgressReads(StorePart):
    """Part of the store."""

    @reads
    async def progress(self, connection: AsyncConnection, run_id: str) -> RunProgress:
        """Counts and credits of one run."""
        return await progress_of(connection, run_id)

    @reads(long=True)
    async def progress_of_runs(
        self, connection: AsyncConnection, run_ids: Sequence[str]
    ) -> dict[str, RunProgress]:
        """Run id -> counts and credits, of many runs."""
        return await progress_of_many(connection, run_ids)


async def progress_of(connection: AsyncConnection, run_id: str) -> RunProgress:
    """Counts and credits of one run, read inside a transaction of the caller's."""
    return (await progress_of_many(connection, [run_id]))[run_id]


async def progress_of_many(connection: AsyncConnection, run_ids: Sequence[str]) -> dict[str, RunProgress]:
    """Run id -> counts and credits, read inside a transaction of the caller's."""
    kept = await runs_with_rollup(connection, run_ids)
    query = _counts([i for i in run_ids if i in kept], [i for i in run_ids if i not in kept])
    of_runs: defaultdict[str, list[sa.Row[Any]]] = defaultdict(list)
    for row in await connection.execute(query):
        of_runs[row.run_id].append(row)
    return {run_id: _summed_up(of_runs[run_id], is_kept=run_id in kept) for run_id in run_ids}


def _counts(kept: Sequence[str], others: Sequence[str]) -> sa.CompoundSelect[Any]:
    """One statement, hence of one snapshot: a retry in between would count an attempt twice or not at all."""
    parts = [_claimed([*kept, *others])]
    if kept:
        parts.append(kept_cells(kept))
    if others:
        rows = cells_from_rows(others).subquery()
        parts.append(sa.select(*(rows.c[name] for name in (*CELL, *FIGURES)), sa.literal(0).label("changes")))
    return sa.union_all(*parts)


def _claimed(run_ids: Sequence[str]) -> sa.Select[Any]:
    t, nothing = tasks.c, sa.literal(Decimal(0), Credits)
    cell = t.run_id, sa.true(), t.task_type, sa.literal(_CLAIMED), sa.literal("")
    figures = sa.func.count(), nothing, nothing, credits_sum(t.credits_estimate), sa.literal(0)
    columns: tuple[sa.ColumnElement[Any], ...] = (*cell, *figures)
    of_runs = in_ranges(*(column.label(name) for name, column in zip(_SHAPE, columns, strict=True)))
    return of_runs.where(claims.c.run_id.in_(run_ids)).group_by(t.run_id, t.task_type)


def _summed_up(rows: Iterable[sa.Row[Any]], *, is_kept: bool) -> RunProgress:
    sums: _Sums = defaultdict(lambda: [0, Decimal(0), Decimal(0), Decimal(0)])
    changes, claimed = 0, []
    for row in rows:
        changes += row.changes
        figures = [row._mapping[name] for name in FIGURES]
        if row.state == _CLAIMED:
            _add(sums, (True, row.task_type, TaskState.PENDING, None), [-figure for figure in figures])
            _add(sums, (True, row.task_type, TaskState.SUBMITTING, None), figures)
            claimed.append(f".{row.task_type}-{row.attempts}")
        else:
            _add(sums, (bool(row.is_current), row.task_type, row.state, row.verdict or None), figures)
    version = f"{changes}{''.join(sorted(claimed))}" if is_kept else None
    cells = [Cell(*key, *figures) for key, figures in sums.items() if any(figures)]
    return _progress_from(sorted(cells, key=_order), version)


def _progress_from(cells: list[Cell], version: str | None) -> RunProgress:
    made = RunProgress(cells=cells, version=version)
    for cell in cells:
        if cell.is_current:
            made.tasks += cell.attempts
            made.states[cell.state] = made.states.get(cell.state, 0) + cell.attempts
        if cell.verdict is not None:
            made.verdicts[cell.verdict] = made.verdicts.get(cell.verdict, 0) + cell.attempts
        made.held += cell.held
        made.charged += cell.charged
        made.estimate += cell.estimate
    return made


def _add(sums: _Sums, key: _Key, figures: Sequence[Any]) -> None:
    sums[key] = [one + other for one, other in zip(sums[key], figures, strict=True)]


def _order(cell: Cell) -> tuple[Any, ...]:
    return not cell.is_current, cell.task_type, cell.state, cell.verdict or ""
