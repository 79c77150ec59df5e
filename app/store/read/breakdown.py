"""A run's books by engine, country and day, for its report. Sums of the database's, each by one statement;
nothing here writes, and no row of a task is loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.task import OPEN_STATES, Money
from app.domain.time_format import DAY_MS, iso_day
from app.store.by_index import the_only
from app.store.read.engine_countries import EngineCountry, grouped, read_engine_countries
from app.store.tables import EVERY_ATTEMPT, account_entries, credits_sum, ledger, tasks
from app.store.write.receipts import count_findings

PERCENTILES = (50, 90, 95, 99)
BUCKETS_MS = tuple(s * 1_000 for s in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_800, 3_600, 21_600, 86_400))
"""Upper ends, exclusive, of the classes of latency; one more class lies above the last."""


@dataclass(frozen=True, slots=True)
class EngineDay:
    """Credits posted for one engine on one day, UTC."""

    day: str
    task_type: str
    posted: Decimal


@dataclass(frozen=True, slots=True)
class Latency:
    """Acceptance to settlement of one engine's tasks, milliseconds. Percentiles are nearest-rank."""

    task_type: str
    tasks: int
    percentiles_ms: tuple[int, ...]
    max_ms: int
    counts: tuple[int, ...]
    """Tasks in each class of BUCKETS_MS, and above."""


@dataclass(frozen=True, slots=True)
class CreditsAtStake:
    """Holds that no charge has closed."""

    attempts: int
    credits: Decimal


@dataclass(frozen=True, slots=True)
class Breakdown:
    """All of it."""

    engine_countries: Sequence[EngineCountry]
    days: Sequence[EngineDay]
    latencies: Sequence[Latency]
    in_flight: CreditsAtStake
    """Of work that is under way: its report is still to come."""
    unknown: CreditsAtStake
    """Of work that is closed though its charge is not known."""
    adjusted: Decimal
    """Sum of the corrections that the account's books hold for this run."""
    findings: int


async def read_breakdown(connection: AsyncConnection, run_id: str, usable_chars_min: int) -> Breakdown:
    """Read inside a transaction of the caller's. An answer with less text is too short to use."""
    in_flight, unknown = await _exposures(connection, run_id)
    e = account_entries.c
    corrections = sa.select(credits_sum(e.credits)).where(e.run_id == run_id, e.kind == "adjustment")
    return Breakdown(
        engine_countries=await read_engine_countries(connection, run_id, usable_chars_min),
        days=await _days(connection, run_id),
        latencies=await _latencies(connection, run_id),
        in_flight=in_flight,
        unknown=unknown,
        adjusted=await connection.scalar(corrections) or Decimal(0),
        findings=sum((await count_findings(connection, run_id)).values()),
    )


async def _days(connection: AsyncConnection, run_id: str) -> list[EngineDay]:
    day = (ledger.c.at_ms // DAY_MS).label("day")
    query = (
        sa.select(
            day, the_only(tasks.c.task_type, tasks.c.id == ledger.c.task_id), credits_sum(ledger.c.credits)
        )
        .where(ledger.c.run_id == run_id, ledger.c.kind == "post")
        .order_by(sa.literal_column("1"), sa.literal_column("2"))
    )
    rows = await connection.execute(grouped(query, 2))
    return [EngineDay(iso_day(int(row[0]) * DAY_MS), row[1], row[2]) for row in rows]


async def _latencies(connection: AsyncConnection, run_id: str) -> list[Latency]:
    waited = tasks.c.settled_at_ms - tasks.c.submitted_at_ms
    # A report may overtake our record of the submit response.
    ms = sa.case((waited < 0, 0), else_=waited).label("ms")
    window: dict[str, Any] = {"partition_by": tasks.c.task_type}
    ranked = (
        sa.select(
            tasks.c.task_type,
            ms,
            sa.func.row_number().over(order_by=waited, **window).label("rank"),
            sa.func.count().over(**window).label("n"),
        )
        .where(tasks.c.run_id == run_id, waited.is_not(None), tasks.c.reused_from.is_(None))
        .subquery()
    )
    r = ranked.c
    at = [sa.func.max(sa.case((r.rank == (r.n * p + 99) // 100, r.ms))) for p in PERCENTILES]
    lower = (None, *BUCKETS_MS)
    upper = (*BUCKETS_MS, None)
    inside = [
        sa.func.count(sa.case((sa.and_(*_between(r.ms, low, high)), 1)))
        for low, high in zip(lower, upper, strict=True)
    ]
    query = sa.select(r.task_type, sa.func.count(), sa.func.max(r.ms), *at, *inside).group_by(r.task_type)
    rows = await connection.execute(query.order_by(r.task_type))
    cut = 3 + len(at)
    return [Latency(row[0], row[1], tuple(row[3:cut]), row[2], tuple(row[cut:])) for row in rows]


def _between(ms: Any, low: int | None, high: int | None) -> list[sa.ColumnElement[bool]]:
    return [*([ms >= low] if low is not None else []), *([ms < high] if high is not None else [])]


async def _exposures(connection: AsyncConnection, run_id: str) -> tuple[CreditsAtStake, CreditsAtStake]:
    """(in flight, unknown), of the current attempts and of those that a retry replaced."""
    held = sa.union_all(
        *(
            sa.select(table.c.state, table.c.credits_held)
            .select_from(source)
            .where(tasks.c.run_id == run_id, table.c.money == Money.HELD)
            for table, source in EVERY_ATTEMPT
        )
    ).subquery()
    is_open = held.c.state.in_(OPEN_STATES)
    query = sa.select(is_open, sa.func.count(), credits_sum(held.c.credits_held))
    found = {
        bool(row[0]): CreditsAtStake(row[1], row[2]) for row in await connection.execute(grouped(query, 1))
    }
    none = CreditsAtStake(0, Decimal(0))
    return found.get(True, none), found.get(False, none)
