"""Tasks of a run a page at a time, in the order of its source. Nothing here writes.

A page reads a bounded range of ordinals by the index of run and ordinal, whatever is filtered: in a run of a
million tasks of which three have failed, a page may have none of them and still says where the next begins.
So hardly a filter needs an index of its own, which every send and every settlement would pay for.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.task_filter import TaskFilter
from app.store.by_index import is_one_of
from app.store.part import StorePart, reads
from app.store.read.own_columns import own_columns
from app.store.read.task_matching import SHOWN_STATE, asked_for, bounds, conditions
from app.store.tables import asked_from, runs, tasks

RANGE = 5_000
"""Ordinals that one statement looks through: 12 ms where each payload is read for its country."""
RANGES_MAX = 20
"""Of one page."""
WITHIN_S = 0.05
"""After this a page looks no further, whatever it has: on a busy machine it looks through less."""


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
        """Up to `limit` tasks of a run behind an ordinal; the `run` of `wanted` is not looked at."""
        first, last = await bounds(connection, run_id, wanted.custom_id)
        place, rows = max(after, first - 1), list[dict[str, Any]]()
        began_s = time.monotonic()
        for n in range(RANGES_MAX):
            is_late = n > 0 and time.monotonic() - began_s > WITHIN_S
            if place >= last or len(rows) >= limit or is_late:
                break
            end = min(place + RANGE, last)
            query = self._query(run_id, wanted).where(tasks.c.ordinal > place, tasks.c.ordinal <= end)
            found = await connection.execute(query.limit(limit - len(rows)))
            rows += [dict(row._mapping) for row in found]
            place = rows[-1]["ordinal"] if len(rows) >= limit else end
        return TaskPage(rows, place, place >= last)

    @reads
    async def asked(self, connection: AsyncConnection, task_ids: Sequence[str], chars: int) -> dict[str, str]:
        """Task -> the beginning of what it asks for; looked up by their keys."""
        beginning = sa.func.substr(asked_for(self.db.is_sqlite), 1, chars)
        query = sa.select(tasks.c.id, beginning).where(is_one_of(connection, tasks.c.id, task_ids))
        return {row[0]: row[1] for row in await connection.execute(query)}

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

    def _query(self, run_id: str, wanted: TaskFilter) -> sa.Select[Any]:
        query = self._select().where(tasks.c.run_id == run_id).order_by(tasks.c.ordinal)
        return query.where(*conditions(wanted, is_sqlite=self.db.is_sqlite))

    def _select(self) -> sa.Select[Any]:
        custom_id, _, sample, repeats = own_columns()
        columns = (tasks.c[name] for name in _COLUMNS)
        country = asked_from(self.db.is_sqlite).label("country")
        return sa.select(*columns, SHOWN_STATE.label("state"), country, custom_id, sample, repeats)


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
