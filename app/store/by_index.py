"""What is asked about one run, or about some rows, is looked up by an index, whatever PostgreSQL's statistics
say just then.

They may be of before the run, or there may be none yet: then a run seems to be most of the database, or a
table to be a few pages, and reading a history of millions of tasks to be the shorter way. May know no table.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

_SETTINGS = sa.text("SELECT set_config('enable_seqscan', :scans, true), set_config('jit', 'off', true)")


async def read_by_index(connection: AsyncConnection) -> None:
    """From now to the end of the transaction no table is read whole where an index serves. Nothing is
    compiled: that takes longer than a run of some thousand tasks, and a plan that looks dear may be short."""
    await _set(connection, "off")


async def read_as_estimated(connection: AsyncConnection) -> None:
    """From now on tables may be read whole again: for what goes through all of them."""
    await _set(connection, "on")


async def _set(connection: AsyncConnection, scans: str) -> None:
    if connection.dialect.name != "sqlite":
        await connection.execute(_SETTINGS, {"scans": scans})


def there_is(*where: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """EXISTS, looked up for each row by an index. Without OFFSET, PostgreSQL may read a whole table once
    instead, where it takes that to be less."""
    return sa.exists(sa.select(sa.literal_column("1")).where(*where).offset(0))


def the_only(column: sa.ColumnElement[Any], *where: sa.ColumnElement[bool]) -> sa.ScalarSelect[Any]:
    """A column of the row that a key names, looked up for each row in the same way; null for no row."""
    return sa.select(column).where(*where).scalar_subquery()


def is_one_of(
    connection: AsyncConnection, column: sa.ColumnElement[Any], ids: Sequence[str]
) -> sa.ColumnElement[bool]:
    """That a column holds one of some ids. As a condition of one table it is looked up for each; joined with
    a list of them, a table may be read whole that is thought to be small."""
    if connection.dialect.name == "sqlite":
        return column.in_(ids)
    texts = sa.bindparam(None, list(ids), type_=sa.ARRAY(sa.Text))
    return column == sa.any_(sa.cast(texts, sa.ARRAY(column.type)))
