"""Turns at writing to one SQLite file, among all processes that have it open.

SQLite lets one connection write at a time and has no queue: who finds it locked sleeps and looks again, ever
more rarely, while a busy process takes the lock anew as soon as it has given it up. A receiver beside a busy
API then waits for a second at times. Here each writer waits for its turn by two locks of a file beside the
database: the one that is next holds the first until it gets the second, so nobody who wrote a moment ago is
before it.

It is about fairness alone: SQLite's own lock keeps writers apart, and after TURN_S one goes on without turn.
Locks are the kernel's and end with their process. Who gives one up tells who waits for it, by a datagram that
may be lost; so whoever waits looks now and then all the same. May not open the database's own files: closing
one would drop the locks that SQLite has on it.
"""

import asyncio
import contextlib
import os
import socket
import struct
import time
from types import TracebackType

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SUFFIX = "-turns"
TURN_S = 1.0
LOOK_S, LOOK_MAX_S = 0.002, 0.05
"""How often a writer that waits looks whether it has its turn: ever more rarely, as it has waited as long
already. A look takes 30 µs of a busy loop. Of several that wait for the same lock one is told; nobody is by a
process that was killed, or by one in another network namespace, as containers that share a folder have."""
_NEXT, _WRITES = 0, 1
"""The bytes that are locked."""
_LOCK = struct.Struct("hhqqi")
"""struct flock: type, whence, first byte, count of bytes, process (0 as its owner is the open file)."""


class WriterTurns:
    """An async context manager around each write transaction of one `Database`, which has one at a time."""

    def __init__(self, database_path: str) -> None:
        self._path = database_path + SUFFIX
        self._file: int | None = None
        self._bell: socket.socket | None = None
        self._addresses = ("", "")
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
        if self._file is not None and self._bell is not None:
            os.close(self._file)
            self._bell.close()
            self._file = self._bell = None

    def _open(self) -> bool:
        if self._file is None:
            try:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError:
                # A folder that is not ours: SQLite itself has the last word.
                self._is_off = True
                return False
            status = os.fstat(self._file)
            # Of no file: such an address ends with its socket.
            named = f"\0tallyhook-turns-{status.st_dev:x}-{status.st_ino:x}"
            self._addresses = f"{named}-next", f"{named}-writes"
            self._bell = _bell()
        return self._file is not None

    async def _lock(self, byte: int, until_s: float) -> None:
        # Not by a call that waits: it would need a thread, which cannot be cancelled.
        if self._set(byte, fcntl.F_WRLCK):
            return
        loop, told, look_s = asyncio.get_running_loop(), asyncio.Event(), LOOK_S
        with _bell() as bell:
            is_told = self._listens(bell, byte)
            if is_told:
                loop.add_reader(bell, told.set)
            try:
                while not self._set(byte, fcntl.F_WRLCK) and time.monotonic() < until_s:
                    look = loop.call_later(look_s, told.set)
                    await told.wait()
                    look.cancel()
                    told.clear()
                    look_s = min(2 * look_s, LOOK_MAX_S)
                    with contextlib.suppress(OSError):
                        bell.recv(1)
            finally:
                if is_told:
                    loop.remove_reader(bell)

    def _listens(self, bell: socket.socket, byte: int) -> bool:
        """Whether `bell` is told when the lock is given up, from now on."""
        try:
            bell.bind(self._addresses[byte])
        except OSError:
            return False  # another one is
        return True

    def _unlock(self, byte: int) -> None:
        if self._file is not None and self._bell is not None:
            self._set(byte, fcntl.F_UNLCK)
            with contextlib.suppress(OSError):
                self._bell.sendto(b"\0", self._addresses[byte])  # refused where nobody waits

    def _set(self, byte: int, kind: int) -> bool:
        if self._file is None:
            return True
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _LOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
            return True
        return False


def _bell() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
