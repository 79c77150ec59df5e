"""What the money of a run bought, by engine and country. Sums of the database's over narrow rows: no body of
an answer is unpacked, and no row of a task is loaded. Nothing here writes.
"""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.settlement import Source
from app.domain.task import TaskState
from app.store.by_index import the_only, there_is
from app.store.tables import EVERY_ATTEMPT, asked_from, credits_sum, ledger, results, tasks

Key = tuple[str, str | None]


@dataclass(slots=True)
class EngineCountry:
    """What one engine did in one country."""

    task_type: str
    country: str | None
    """None: the provider chose."""
    states: dict[str, int] = field(default_factory=dict)
    posted: Decimal = Decimal(0)
    """Of all attempts, as the ledger has it."""
    held: Decimal = Decimal(0)
    short: int = 0
    """Of the completed tasks: those whose answers are empty, or too short to use."""
    unmeasured: int = 0
    """Of the completed tasks: those whose text nobody has measured; judged by the size of the answer."""
    reported: int = 0
    """Attempts on which a report was taken, those that a retry replaced too."""
    swept: int = 0
    """Of these, those whose report was polled for."""
    p50_ms: int | None = None
    """Acceptance to settlement, nearest-rank; None: nothing is settled."""
    p95_ms: int | None = None

    @property
    def tasks(self) -> int:
        return sum(self.states.values())


async def read_engine_countries(
    connection: AsyncConnection, run_id: str, usable_chars_min: int
) -> list[EngineCountry]:
    """By engine and country. An answer whose text has fewer characters is too short to use."""
    found: dict[Key, EngineCountry] = {}

    def of(row: Any) -> EngineCountry:
        return found.setdefault((row[0], row[1]), EngineCountry(row[0], row[1]))

    country = asked_from(connection.dialect.name == "sqlite").label("country")
    for row in await connection.execute(_states(run_id, country, usable_chars_min)):
        figures = of(row)
        figures.states[row.state] = row.tasks
        figures.short += row.short
        figures.unmeasured += row.unmeasured
    for row in await connection.execute(_credits(run_id, country)):
        setattr(of(row), "posted" if row.kind == "post" else "held", row.total)
    for query in _reports(run_id, country):
        for row in await connection.execute(query):
            figures = of(row)
            figures.reported += row.reported
            figures.swept += row.swept
    for row in await connection.execute(_times(run_id, country)):
        figures = of(row)
        figures.p50_ms, figures.p95_ms = row.p50, row.p95
    return sorted(found.values(), key=lambda figures: (figures.task_type, figures.country or ""))


def _states(run_id: str, country: sa.ColumnElement[Any], usable_chars_min: int) -> sa.Select[Any]:
    is_completed = tasks.c.state == TaskState.COMPLETED
    chars = sa.func.coalesce(results.c.answer_chars, results.c.answer_bytes)
    query = (
        sa.select(
            tasks.c.task_type,
            country,
            tasks.c.state,
            sa.func.count().label("tasks"),
            _count_of(sa.and_(is_completed, chars < usable_chars_min)).label("short"),
            _count_of(sa.and_(is_completed, results.c.answer_chars.is_(None))).label("unmeasured"),
        )
        .select_from(
            tasks.outerjoin(
                results, sa.and_(results.c.task_id == tasks.c.id, results.c.attempt == tasks.c.attempt)
            )
        )
        .where(tasks.c.run_id == run_id)
    )
    return grouped(query, 3)


def _credits(run_id: str, country: sa.ColumnElement[Any]) -> sa.Select[Any]:
    its_task = tasks.c.id == ledger.c.task_id
    query = sa.select(
        the_only(tasks.c.task_type, its_task).label("task_type"),
        the_only(country, its_task).label("country"),
        ledger.c.kind,
        credits_sum(ledger.c.credits).label("total"),
    ).where(ledger.c.run_id == run_id, ledger.c.kind != "void", open_or_closing())
    return grouped(query, 3)


def _reports(run_id: str, country: sa.ColumnElement[Any]) -> list[sa.Select[Any]]:
    return [
        grouped(
            sa.select(
                tasks.c.task_type,
                country,
                _count_of(table.c.settled_by.in_([*Source])).label("reported"),
                _count_of(table.c.settled_by == Source.POLL).label("swept"),
            )
            .select_from(source)
            .where(tasks.c.run_id == run_id, table.c.settled_by.is_not(None)),
            2,
        )
        for table, source in EVERY_ATTEMPT
    ]


def _times(run_id: str, country: sa.ColumnElement[Any]) -> sa.Select[Any]:
    waited = (tasks.c.settled_at_ms - tasks.c.submitted_at_ms).label("waited")
    timed = (
        sa.select(tasks.c.task_type, country, waited)
        .where(tasks.c.run_id == run_id, waited.is_not(None), tasks.c.reused_from.is_(None))
        .subquery()
    )
    window: dict[str, Any] = {"partition_by": (timed.c.task_type, timed.c.country)}
    ranked = sa.select(
        timed,
        sa.func.row_number().over(order_by=timed.c.waited, **window).label("rank"),
        sa.func.count().over(**window).label("n"),
    ).subquery()
    r = ranked.c
    # A report may overtake our record of the submit response.
    ms = sa.case((r.waited < 0, 0), else_=r.waited)
    at = [sa.func.max(sa.case((r.rank == (r.n * p + 99) // 100, ms))).label(f"p{p}") for p in (50, 95)]
    return sa.select(r.task_type, r.country, *at).group_by(r.task_type, r.country)


def _count_of(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.count(sa.case((condition, 1)))


def grouped(query: sa.Select[Any], columns: int) -> sa.Select[Any]:
    """Grouped by its first columns. By position: PostgreSQL takes an expression with parameters for another
    one each time it is written."""
    return query.group_by(*(sa.literal_column(str(n)) for n in range(1, columns + 1)))


def open_or_closing() -> sa.ColumnElement[bool]:
    """Of the ledger: posts, voids, and those holds that neither has followed yet."""
    closing = ledger.alias("closing")
    closed = there_is(
        closing.c.task_id == ledger.c.task_id,
        closing.c.attempt == ledger.c.attempt,
        # Literals: a bound parameter would hide from SQLite that the index of closing entries applies.
        closing.c.kind.in_([sa.literal_column("'post'"), sa.literal_column("'void'")]),
    )
    return sa.or_(ledger.c.kind != "hold", ~closed)
