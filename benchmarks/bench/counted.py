"""Runs a process of ours on SQLite and counts its calls of the database's driver:
`python -m benchmarks.bench.counted FILE web|worker`. FILE holds the count, as `read_count` reads it. It is
shared memory: a thread that wrote it down twenty times a second took a tenth of the processor time that is
measured.

Every statement that goes into aiosqlite counts, BEGIN and COMMIT included; one may carry many rows.
PostgreSQL counts by itself (pg_stat_statements).
"""

import functools
import mmap
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiosqlite

COUNT_BYTES = 8
STATEMENTS = ("execute", "executemany", "execute_insert", "execute_fetchall", "executescript")
ENDS = ("commit", "rollback")
"""Outside a transaction they send nothing to the database."""


class Count:
    """How many statements so far, in a file."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(COUNT_BYTES))
        with path.open("r+b") as file:
            self._memory = memoryview(mmap.mmap(file.fileno(), COUNT_BYTES)).cast("q")

    def add(self, statements: int) -> None:
        """So many more."""
        self._memory[0] += statements

    def wrap(self, call: Callable[..., Any], *, ends: bool) -> Callable[..., Any]:
        """The same call, counted."""

        @functools.wraps(call)
        def counted(owner: Any, *args: Any, **kwargs: Any) -> Any:
            self.add(not ends or owner.in_transaction)
            return call(owner, *args, **kwargs)

        return counted


def read_count(path: Path) -> int:
    """The count in a file."""
    return int.from_bytes(path.read_bytes(), sys.byteorder)


def count_statements(path: Path) -> None:
    """Count from now on. The shortcuts of a connection end in the standard library, not in each other."""
    count = Count(path)
    for owner in (aiosqlite.Cursor, aiosqlite.Connection):
        for name in (*STATEMENTS, *ENDS):
            if name in vars(owner):
                setattr(owner, name, count.wrap(getattr(owner, name), ends=name in ENDS))
    in_one_hop, hops = aiosqlite.Connection._execute, _hops()

    async def execute(connection: Any, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        # A whole group is BEGIN, INSERT and COMMIT.
        count.add(hops.get(call, 0))
        return await in_one_hop(connection, call, *arguments, **named)  # type: ignore[no-untyped-call]

    aiosqlite.Connection._execute = execute  # type: ignore[method-assign]


def _hops() -> dict[Callable[..., Any], int]:
    """What we do in one hop to the driver's thread, and how many statements that is. Earlier code, which is
    compared with, has none."""
    try:
        from app.store import sqlite_append, sqlite_cursor
    except ImportError:
        return {}
    return {sqlite_append.append: 3, sqlite_cursor.run: 1}


def main() -> None:
    """Count and run."""
    path, name = Path(sys.argv[1]), sys.argv[2]
    count_statements(path)
    # What the process itself would see.
    sys.argv = ["tallyhook", "web"] if name == "web" else ["workers"]
    runpy.run_module("app.cli.main" if name == "web" else "workers", run_name="__main__")


if __name__ == "__main__":
    main()
