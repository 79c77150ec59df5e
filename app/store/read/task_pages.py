"""Tasks of a run a page at a time, in the order of its source. Nothing here writes.

A page reads a bounded range of ordinals by the index of run and ordinal, whatever is filtered: in a run of a
million tasks of which three have failed, a page may have none of them and still says where the next begins.
So no filter needs an index of its own, which every send and every settlement would pay for.
"""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.task import TaskState
from app.store.part import StorePart, reads
from app.store.read.own_columns import own_columns
from app.store.tables import IS_PENDING, asked_from, runs, task_metadata, task_repeats, tasks
from app.store.write.claims import is_free

RANGE = 20_000
"""Ordinals that one statement looks through: 50 ms where each payload is read for its country."""
RANGES_MAX = 5
"""Of one page."""


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks; None: whatever it is."""

    state: str | None = None
    task_type: str | None = None
    country: str | None = None
    """In capitals."""
    verdict: str | None = None
    custom_id: str | None = None


@dataclass(frozen=True, slots=True)
class TaskPage:
    """Tasks in a row."""

    rows: list[dict[str, Any]]
    through: int
    """Everything up to this ordinal was looked at."""
    is_last: bool


class TaskPageReads(StorePart):
    """Part of the store."""

    @reads
    async def tasks_after(
        self, connection: AsyncConnection, run_id: str, after: int, limit: int, wanted: TaskFilter
    ) -> TaskPage:
        """Up to `limit` tasks behind an ordinal."""
        first, last = await self._bounds(connection, run_id, wanted.custom_id)
        place, rows = max(after, first - 1), list[dict[str, Any]]()
        for _ in range(RANGES_MAX):
            if place >= last or len(rows) >= limit:
                break
            end = min(place + RANGE, last)
            query = self._query(run_id, wanted).where(tasks.c.ordinal > place, tasks.c.ordinal <= end)
            found = await connection.execute(query.limit(limit - len(rows)))
            rows += [dict(row._mapping) for row in found]
            place = rows[-1]["ordinal"] if len(rows) >= limit else end
        return TaskPage(rows, place, place >= last)

    @reads
    async def task_with_id(
        self, connection: AsyncConnection, task_id: str, account: str | None = None
    ) -> dict[str, Any] | None:
        """One task; None: there is none, or it is another account's."""
        metadata = own_columns()[1]
        query = self._select().add_columns(tasks.c.payload, metadata).where(tasks.c.id == task_id)
        if account is not None:
            query = query.join(runs, runs.c.id == tasks.c.run_id).where(runs.c.account == account)
        row = (await connection.execute(query)).one_or_none()
        return None if row is None else dict(row._mapping)

    async def _bounds(
        self, connection: AsyncConnection, run_id: str, custom_id: str | None
    ) -> tuple[int, int]:
        """The first and the last ordinal that there may be."""
        if custom_id is None:
            highest = sa.select(sa.func.max(tasks.c.ordinal)).where(tasks.c.run_id == run_id)
            return 1, await connection.scalar(highest) or 0
        m, r = task_metadata.c, task_repeats.c
        samples = sa.select(r.repeats).where(r.run_id == m.run_id, r.first_ordinal == m.ordinal)
        query = sa.select(m.ordinal, samples.scalar_subquery().label("repeats"))
        row = (
            await connection.execute(query.where(m.run_id == run_id, m.custom_id == custom_id))
        ).one_or_none()
        return (1, 0) if row is None else (row.ordinal, row.ordinal + (row.repeats or 1) - 1)

    def _query(self, run_id: str, wanted: TaskFilter) -> sa.Select[Any]:
        query = self._select().where(tasks.c.run_id == run_id).order_by(tasks.c.ordinal)
        for expression, value in (
            (_STATE, wanted.state),
            (tasks.c.task_type, wanted.task_type),
            (tasks.c.verdict, wanted.verdict),
            (asked_from(self.db.is_sqlite), wanted.country),
        ):
            if value is not None:
                query = query.where(expression == value)
        return query

    def _select(self) -> sa.Select[Any]:
        custom_id, _, sample, repeats = own_columns()
        columns = (tasks.c[name] for name in _COLUMNS)
        country = asked_from(self.db.is_sqlite).label("country")
        return sa.select(*columns, _STATE.label("state"), country, custom_id, sample, repeats)


_STATE = sa.case((sa.and_(IS_PENDING, ~is_free()), TaskState.SUBMITTING.value), else_=tasks.c.state)
"""What a sender has claimed counts as on its way; its row says so later."""
_COLUMNS = (
    "id",
    "run_id",
    "ordinal",
    "task_type",
    "attempt",
    "verdict",
    "credits_estimate",
    "credits_to_charge",
    "credits_held",
    "credits_charged",
    "provider_task_id",
    "error_code",
    "error_message",
    "first_sent_at_ms",
    "submitted_at_ms",
    "settled_at_ms",
    "settled_by",
    "reused_from",
)
