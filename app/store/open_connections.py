"""The driver's connections that one `Database` has open: its end waits for each, and cuts off the rest.

The pool knows only those that lie in it. One in use, or whose user was cancelled a moment ago, came back to a
pool that nobody had any more, and was closed whenever garbage was collected.
"""

import asyncio
import contextlib
import sqlite3
import threading
import weakref
from typing import Any

from sqlalchemy.pool import ConnectionPoolEntry

POLL_S = 0.002


class OpenConnections:
    """Told of each connection as it is made; any may end by itself."""

    def __init__(self) -> None:
        self.is_ending = False
        """From then on whoever gives one back closes it."""
        self._drivers: weakref.WeakSet[Any] = weakref.WeakSet()
        self._threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        """Of SQLite's driver, one a connection. It may outlive that by a statement, and would answer a loop
        that is closed by then."""

    def note(self, driver: Any) -> None:
        """`driver`: of asyncpg, or of aiosqlite, where it may be not open yet."""
        self._drivers.add(driver)
        thread = getattr(driver, "_thread", None)
        if thread is not None:
            self._threads.add(thread)

    def checked_in(self, dbapi_connection: Any, record: ConnectionPoolEntry) -> None:
        """What SQLAlchemy calls when one comes back; None is one that is closed already."""
        if self.is_ending and dbapi_connection is not None:
            record.invalidate()

    async def all_closed(self) -> None:
        """Wait until none is open."""
        while self._are_open():  # noqa: ASYNC110 - their end is no event
            await asyncio.sleep(POLL_S)

    def cut_off(self) -> None:
        """End what they are at: a statement of SQLite's, a whole connection to a server, without a word."""
        for driver in list(self._drivers):
            if not hasattr(driver, "_thread"):
                driver.terminate()
            elif driver._connection is not None:
                with contextlib.suppress(sqlite3.Error):  # just closed
                    driver._connection.interrupt()

    def _are_open(self) -> bool:
        return any(thread.is_alive() for thread in self._threads) or any(
            not hasattr(driver, "_thread") and not driver.is_closed() for driver in list(self._drivers)
        )
