"""Bytes of write-ahead log so far: by PostgreSQL's own position, or by what stood in SQLite's -wal."""

import asyncio
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.bench.counts import ask_postgresql
from benchmarks.bench.rig import Rig

POSITION = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"
LOOK_EVERY_S = 0.002
INDEX_HEADER_BYTES = 48
FRAME_HEADER_BYTES = 24


class Written:
    """Ask it while the block of `watched` lasts."""

    def __init__(self, rig: Rig, url: str) -> None:
        self._rig, self._url = rig, url
        self._index = Path(f"{url.removeprefix('sqlite:///')}-shm")
        self._bytes = self._frames = 0
        self._salt = b""

    def bytes_so_far(self) -> int:
        """Only differences mean something."""
        if not self._rig.is_sqlite:
            return int(asyncio.run(ask_postgresql(self._url, POSITION)))
        return self._bytes

    def watch_index(self, over: threading.Event) -> None:
        """Add up the frames of SQLite's log. A log that was copied into the database begins anew, so its size
        says little; the index beside it (https://sqlite.org/walformat.html) says how many frames it has, and
        it is looked at far more often than a transaction can fill it."""
        while not over.wait(LOOK_EVERY_S):
            try:
                with self._index.open("rb") as file:
                    header = file.read(INDEX_HEADER_BYTES)
            except FileNotFoundError:
                continue
            if len(header) == INDEX_HEADER_BYTES:
                self._add(*struct.unpack_from("=14xHI12x8s", header))

    def _add(self, page_bytes: int, frames: int, salt: bytes) -> None:
        # The salt is another one for each log that begins anew, as long as the one before or longer.
        added = frames - self._frames if salt == self._salt else frames
        self._frames, self._salt = frames, salt
        self._bytes += added * (page_bytes + FRAME_HEADER_BYTES)


@contextmanager
def watched(rig: Rig, url: str) -> Iterator[Written]:
    """Counts for the time of the block."""
    written, over = Written(rig, url), threading.Event()
    thread = threading.Thread(target=written.watch_index, args=(over,), daemon=True)
    if rig.is_sqlite:
        thread.start()
    try:
        yield written
    finally:
        over.set()
        if rig.is_sqlite:
            thread.join()
