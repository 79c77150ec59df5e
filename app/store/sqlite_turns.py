"""Turns at writing to one SQLite file, among all processes that have it open.

SQLite lets one connection write at a time and has no queue: who finds it locked sleeps and looks again, ever
more rarely, while a busy process takes the lock anew as soon as it has given it up. A receiver beside a busy
API then waits for a second at times. Here each writer waits for its turn by two locks of a file beside the
database: the one that is next holds the first until it gets the second, so nobody who wrote a moment ago is
before it.

It is about fairness alone: SQLite's own lock keeps writers apart, and after TURN_S one goes on without turn.
Locks are the kernel's and end with their process. May not open the database's own files: closing one would
drop the locks that SQLite has on it.
"""

import asyncio
import contextlib
import os
import struct
import time
from types import TracebackType

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SUFFIX = "-turns"
TURN_S = 1.0
POLL_S = 0.001
_NEXT, _WRITES = 0, 1
"""The bytes that are locked."""
_LOCK = struct.Struct("hhqqi")
"""struct flock: type, whence, first byte, count of bytes, process (0 as its owner is the open file)."""


class WriterTurns:
    """An async context manager around each write transaction of one `Database`, which has one at a time."""

    def __init__(self, database_path: str) -> None:
        self._path = database_path + SUFFIX
        self._file: int | None = None
        self._is_off = not hasattr(fcntl, "F_OFD_SETLK") or database_path == ":memory:"

    async def __aenter__(self) -> None:
        if self._is_off or not self._open():
            return
        until_s = time.monotonic() + TURN_S
        try:
            await self._lock(_NEXT, until_s)
            await self._lock(_WRITES, until_s)
        except BaseException:
            self._unlock(_WRITES)
            raise
        finally:
            self._unlock(_NEXT)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unlock(_WRITES)

    def close(self) -> None:
        """Give the file back. The next turn opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> bool:
        if self._file is None:
            try:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError:
                # A folder that is not ours: SQLite itself has the last word.
                self._is_off = True
        return self._file is not None

    async def _lock(self, byte: int, until_s: float) -> None:
        # Not by a call that waits: it would need a thread, which cannot be cancelled.
        while not self._set(byte, fcntl.F_WRLCK) and time.monotonic() < until_s:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)

    def _unlock(self, byte: int) -> None:
        if self._file is not None:
            self._set(byte, fcntl.F_UNLCK)

    def _set(self, byte: int, kind: int) -> bool:
        if self._file is None:
            return True
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _LOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
            return True
        return False
