"""A cursor of the driver's connection to SQLite that runs a statement in one hop to its thread.

SQLAlchemy's own makes four: for the cursor, the statement, its rows and its end. Each costs two wakeups, more
than most statements here take. May not know any table.
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiosqlite
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection, AsyncAdapt_aiosqlite_cursor
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet


@dataclass(frozen=True, slots=True)
class _Ended:
    """What is still asked of a cursor when its rows are fetched."""

    description: Any = None
    rowcount: int = -1
    lastrowid: int | None = None
    arraysize: int = 1


_NOTHING_YET = _Ended()


class OneHopCursor(AsyncAdapt_aiosqlite_cursor):
    """All of a statement's rows are fetched with it, so nothing is left to close."""

    __slots__ = ()

    def _make_new_cursor(self, connection: Any) -> Any:
        return _NOTHING_YET

    def _aenter_cursor(self, cursor: Any) -> Any:
        return cursor

    async def _execute_async(self, operation: Any, parameters: Any) -> None:
        await self._run(sqlite3.Cursor.execute, operation, () if parameters is None else parameters)

    async def _executemany_async(self, operation: Any, seq_of_parameters: Any) -> None:
        await self._run(sqlite3.Cursor.executemany, operation, seq_of_parameters)

    async def _run(self, how: Callable[..., Any], operation: str, parameters: Any) -> None:
        connection: Any = self._connection
        async with self._adapt_connection._execute_mutex:
            self._cursor, rows = await connection._execute(run, connection._conn, how, operation, parameters)
            self._rows = deque(rows)

    async def _async_soft_close(self) -> None:
        """Nothing is open."""

    def close(self) -> None:
        self._rows.clear()


class OneHopConnection(AsyncAdapt_aiosqlite_connection):
    """The driver's connection, as SQLAlchemy uses it, with cursors of one hop."""

    __slots__ = ()
    _cursor_cls = OneHopCursor

    def rollback(self) -> None:
        # The pool asks for one whenever it takes a connection back. Of one that was cancelled in the middle,
        # which may yet begin a transaction, it takes none.
        driver: Any = self._connection
        if driver._connection is not None and driver.in_transaction:
            super().rollback()

    def terminate(self) -> None:
        # SQLAlchemy's own also ends the thread when it is cancelled meanwhile, and what closes in order would
        # wait for that thread for ever.
        if in_greenlet():
            await_only(asyncio.shield(self._terminate_graceful_close()))
        else:
            self._terminate_force_close()


def run(
    connection: sqlite3.Connection, how: Callable[..., Any], operation: str, parameters: Any
) -> tuple[_Ended, list[Any]]:
    """What the driver's thread does for a statement."""
    cursor = connection.cursor()
    try:
        how(cursor, operation, parameters)
        rows = cursor.fetchall() if cursor.description else []
        return _Ended(cursor.description, cursor.rowcount, cursor.lastrowid), rows
    finally:
        cursor.close()


def connector(note: Callable[[aiosqlite.Connection], None]) -> Callable[..., Any]:
    """What SQLAlchemy calls for a connection. `note` is told of it before it is opened: who waits for that
    may be cancelled, and its thread goes on."""

    def create(*arguments: Any, **named: Any) -> aiosqlite.Connection:
        driver = aiosqlite.connect(*arguments, **named)
        driver._thread.daemon = True  # as SQLAlchemy has it
        note(driver)
        return driver

    def connect(dialect: sa.Dialect, _record: Any, arguments: Any, named: Any) -> Any:
        made = dialect.connect(*arguments, async_creator_fn=create, **named)
        return OneHopConnection(made.dbapi, made.driver_connection)

    return connect
