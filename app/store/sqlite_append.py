"""Appends a group of rows to SQLite in a transaction of its own, all of it in one hop to the driver's thread.

By way of SQLAlchemy each of BEGIN, INSERT and COMMIT is a hop, and so are those of the pool around them. May
not know any table.
"""

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from aiosqlite import Connection
from sqlalchemy.exc import DBAPIError

T = TypeVar("T")
Rows = Sequence[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Append:
    """How rows are appended to a table. The first column is the id, the one numbered `count` is `repeats`."""

    table: str
    insert: str
    repeats: str
    count: int


async def append_rows(driver: Connection, how: Append, rows: Rows) -> set[str]:
    """Commit rows, all or none. Ids of those that were there already, in canonical text: their `repeats` grew
    by one and by what the new row has there. Raises SQLAlchemy's errors; after any error the connection is to
    be closed, with whatever it has begun."""
    return await in_one_hop(driver, append, how, rows) if rows else set()


async def in_one_hop(driver: Connection, work: Callable[..., T], *arguments: Any) -> T:
    """What `work` returns, called by the driver's thread with the connection. Raises SQLAlchemy's errors;
    after any error the connection is to be closed, with whatever `work` has begun."""
    try:
        # The driver's own way to its thread; what it offers in public is one statement a hop.
        done: T = await driver._execute(work, driver._conn, *arguments)  # type: ignore[no-untyped-call]
    except sqlite3.Error as error:
        raise DBAPIError.instance(None, None, error, sqlite3.Error, hide_parameters=True) from error
    return done


def append(connection: sqlite3.Connection, how: Append, rows: Rows) -> set[str]:
    """What the driver's thread does for `append_rows`."""
    connection.execute("BEGIN IMMEDIATE")
    inserted = connection.executemany(how.insert, rows).rowcount
    known = set() if inserted == len(rows) else _count_repeats(connection, how, rows, inserted)
    connection.execute("COMMIT")
    return known


def _count_repeats(connection: sqlite3.Connection, how: Append, rows: Rows, inserted: int) -> set[str]:
    # SQLite numbers its rows upwards, and a write transaction is alone: the last ones are those just made.
    known = connection.execute(
        f"SELECT id FROM {how.table} WHERE id IN (SELECT value FROM json_each(?))"  # noqa: S608
        f" AND rowid <= (SELECT max(rowid) FROM {how.table}) - ?",
        (json.dumps([row[0] for row in rows]), inserted),
    )
    stood = {row[0] for row in known}
    connection.executemany(
        f"UPDATE {how.table} SET {how.repeats} = {how.repeats} + ? + 1 WHERE id = ?",  # noqa: S608
        [(row[how.count], row[0]) for row in rows if row[0] in stood],
    )
    return {str(UUID(each)) for each in stood}
