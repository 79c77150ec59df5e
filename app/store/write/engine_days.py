"""What each engine did on each day: counted once from the results, in the order of their settlement.

Whoever counts moves the place up to which it is done, in the transaction of the figures; of two that count
the same results one adds them. A charge that came after its result was counted is not in the figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.time_format import DAY_MS
from app.store.part import StorePart, reads, writes
from app.store.read.breakdown import BUCKETS_MS
from app.store.tables import attempts, credits_sum, engine_days, engine_days_position, results, runs, tasks

COUNTED_MAX = 2_000
"""Results counted by one call: some 20 ms."""
FIRST_MAX = 500_000
"""Results, the newest, that are counted of a store of the version before."""
KEPT_MS = 92 * DAY_MS
UNKNOWN_CLASS = -1
_KEY = ("account", "task_type", "day_ms", "latency_class")
_FIGURES = ("answers", "completed", "usable", "charged", "charge_known")


@dataclass(frozen=True, slots=True)
class EngineDay:
    """One engine's answers of one day that took about equally long."""

    task_type: str
    day_ms: int
    latency_class: int
    """Of BUCKETS_MS: the first bound that is above; len(BUCKETS_MS): none is; UNKNOWN_CLASS."""
    answers: int
    completed: int
    usable: int
    charged: Decimal
    charge_known: int


class EngineDayWrites(StorePart):
    """Part of the store."""

    async def count_results(self, usable_chars_min: int) -> int:
        """Count results that nobody has counted; how many. Less than COUNTED_MAX: those were all."""
        after = await self._position()
        through, count, rows = await self._figures(after, usable_chars_min)
        if count:
            await self._add(after, through, rows)
        return count

    @writes
    async def forget_engine_days(self, connection: AsyncConnection, now_ms: int) -> None:
        """Drop what is older than anybody asks for."""
        old = engine_days.c.day_ms < now_ms - KEPT_MS
        await connection.execute(sa.delete(engine_days).where(old))

    @reads
    async def engine_days(
        self, connection: AsyncConnection, since_ms: int, account: str | None
    ) -> list[EngineDay]:
        """Of the days since then, each account's added up; of one account, where one is given."""
        c = engine_days.c
        query = sa.select(
            c.task_type,
            c.day_ms,
            c.latency_class,
            *(_sum(name) for name in ("answers", "completed", "usable")),
            credits_sum(c.charged),
            _sum("charge_known"),
        ).where(c.day_ms >= since_ms)
        if account is not None:
            query = query.where(c.account == account)
        query = query.group_by(c.task_type, c.day_ms, c.latency_class)
        rows = await connection.execute(query.order_by(c.task_type, c.day_ms, c.latency_class))
        return [EngineDay(*row) for row in rows]

    @reads
    async def _position(self, connection: AsyncConnection) -> int | None:
        return await connection.scalar(sa.select(engine_days_position.c.seq))

    @reads
    async def _figures(
        self, connection: AsyncConnection, after: int | None, usable_chars_min: int
    ) -> tuple[int, int, Sequence[dict[str, Any]]]:
        """(place of the last result that is counted, how many are, what they come to)."""
        if after is None:
            after = max(0, (await connection.scalar(sa.select(sa.func.max(results.c.seq))) or 0) - FIRST_MAX)
        next_ones = sa.select(results.c.seq).where(results.c.seq > after).order_by(results.c.seq)
        taken = next_ones.limit(COUNTED_MAX).subquery()
        bounds = sa.select(sa.func.max(taken.c.seq), sa.func.count())
        through, count = (await connection.execute(bounds)).one()
        if not count:
            return after, 0, ()
        query = _counted(after, through, usable_chars_min)
        rows = [dict(row._mapping) for row in await connection.execute(query)]
        return through, count, rows

    @writes
    async def _add(
        self, connection: AsyncConnection, after: int | None, through: int, rows: Sequence[dict[str, Any]]
    ) -> None:
        if after is None:
            first = {"id": 1, "seq": through}
            made = await connection.execute(_insert(self.db.is_sqlite, engine_days_position, first))
        else:
            place = sa.update(engine_days_position).where(engine_days_position.c.seq == after)
            made = await connection.execute(place.values(seq=through))
        if not made.rowcount or not rows:
            return  # another has counted them
        insert = _dialect(self.db.is_sqlite).insert(engine_days)
        added = {name: engine_days.c[name] + insert.excluded[name] for name in _FIGURES}
        insert = insert.on_conflict_do_update(index_elements=_KEY, set_=added)
        await connection.execute(insert, sorted(rows, key=lambda row: [row[name] for name in _KEY]))


def _counted(after: int, through: int, usable_chars_min: int) -> sa.Select[Any]:
    r, t, a = results.c, tasks.c, attempts.c
    is_current = t.attempt == r.attempt

    def of_attempt(name: str) -> sa.ColumnElement[Any]:
        return sa.case((is_current, t[name]), else_=a[name])

    waited = of_attempt("settled_at_ms") - of_attempt("submitted_at_ms")
    bounds: list[Any] = [(waited < bound, n) for n, bound in enumerate(BUCKETS_MS)]
    latency = sa.case((waited.is_(None), UNKNOWN_CLASS), *bounds, else_=len(BUCKETS_MS))
    is_completed = r.status == "completed"
    is_usable = sa.and_(is_completed, sa.func.coalesce(r.answer_chars, r.answer_bytes, 0) >= usable_chars_min)
    day = r.stored_at_ms - r.stored_at_ms % DAY_MS
    charged = of_attempt("credits_charged")
    each = (
        sa.select(
            runs.c.account,
            t.task_type,
            day.label("day_ms"),
            latency.label("latency_class"),
            is_completed.label("is_completed"),
            is_usable.label("is_usable"),
            charged.label("charge"),
        )
        .select_from(results)
        .join(tasks, t.id == r.task_id)
        .join(runs, runs.c.id == t.run_id)
        .outerjoin(attempts, sa.and_(a.task_id == r.task_id, a.attempt == r.attempt))
        .where(r.seq > after, r.seq <= through)
        .subquery()
    )
    e = each.c
    return sa.select(
        e.account,
        e.task_type,
        e.day_ms,
        e.latency_class,
        sa.func.count().label("answers"),
        sa.func.count(sa.case((e.is_completed, 1))).label("completed"),
        sa.func.count(sa.case((e.is_usable, 1))).label("usable"),
        credits_sum(e.charge).label("charged"),
        sa.func.count(e.charge).label("charge_known"),
    ).group_by(e.account, e.task_type, e.day_ms, e.latency_class)


def _sum(name: str) -> sa.ColumnElement[int]:
    return sa.cast(sa.func.sum(engine_days.c[name]), sa.BigInteger)


def _dialect(is_sqlite: bool) -> Any:
    if is_sqlite:
        from sqlalchemy.dialects import sqlite

        return sqlite
    from sqlalchemy.dialects import postgresql

    return postgresql


def _insert(is_sqlite: bool, table: sa.Table, row: dict[str, Any]) -> Any:
    return _dialect(is_sqlite).insert(table).values(**row).on_conflict_do_nothing()
