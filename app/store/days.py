"""Days of deliveries: an id is a UUIDv7, so it tells the time, and a day is a range of ids.

On PostgreSQL a statement that names such a range touches the partitions of these days only, whatever the
planner thinks of the rows. SQLite has no partitions, and would take the range for a way to search.
"""

from collections.abc import Collection, Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.task import new_id
from app.domain.time_format import DAY_MS

EARLIER_MS = DAY_MS
"""A delivery is never older than its task, but for what two clocks differ; a signed one tells the provider's
time. One more partition in each look-up is the price of believing it of a clock that is a day behind."""


def day_of(ms: int) -> int:
    """The midnight (UTC) before a time, both in milliseconds."""
    return ms - ms % DAY_MS


def first_id(ms: int) -> str:
    """No id of this time or later is lower."""
    return new_id(max(ms, 0), 0)


def time_of(delivery_id: str) -> int:
    """The milliseconds in an id."""
    return int(delivery_id.replace("-", "")[:12], 16)


def within(
    connection: AsyncConnection, column: sa.ColumnElement[Any], ids: Iterable[str]
) -> sa.ColumnElement[bool]:
    """That a delivery's id is not before or behind all of `ids`; said beside a join with them."""
    known = sorted(ids)
    if _is_sqlite(connection) or not known:
        return sa.true()
    return column.between(known[0], known[-1])


class RangeOfIds:
    """The same, for a statement that is made once: `condition`, and the parameters that it needs."""

    def __init__(self, column: sa.ColumnElement[Any], *, is_sqlite: bool) -> None:
        self._is_sqlite = is_sqlite
        lowest, highest = (sa.bindparam(name, type_=column.type) for name in ("lowest_id", "highest_id"))
        self.condition = sa.true() if is_sqlite else column.between(lowest, highest)

    def parameters(self, ids: Collection[str]) -> dict[str, str]:
        """Of one id at least."""
        return {} if self._is_sqlite else {"lowest_id": min(ids), "highest_id": max(ids)}


def since_tasks(
    connection: AsyncConnection, column: sa.ColumnElement[Any], task_ids: Iterable[str]
) -> sa.ColumnElement[bool]:
    """That a delivery's id is not older than the oldest of these tasks (or runs)."""
    oldest = min(task_ids, default=None)
    return sa.true() if oldest is None else since(connection, column, time_of(oldest) - EARLIER_MS)


def since(connection: AsyncConnection, column: sa.ColumnElement[Any], ms: int) -> sa.ColumnElement[bool]:
    """That a delivery's id is of a time or later."""
    return sa.true() if _is_sqlite(connection) else column >= first_id(ms)


def _is_sqlite(connection: AsyncConnection) -> bool:
    return connection.dialect.name == "sqlite"
