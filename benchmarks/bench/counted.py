"""Runs a process of ours on SQLite and counts its calls of the database's driver:
`python -m benchmarks.bench.counted FILE web|worker`. FILE holds the count, 50 ms old at most.

Every statement that goes into aiosqlite counts, BEGIN and COMMIT included; one may carry many rows.
PostgreSQL counts by itself (pg_stat_statements).
"""

import functools
import runpy
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiosqlite

from app.store import sqlite_append, sqlite_cursor

WRITE_EVERY_S = 0.05
STATEMENTS = ("execute", "executemany", "execute_insert", "execute_fetchall", "executescript")
ENDS = ("commit", "rollback")
"""Outside a transaction they send nothing to the database."""


class Count:
    """How many statements so far."""

    statements = 0

    def wrap(self, call: Callable[..., Any], *, ends: bool) -> Callable[..., Any]:
        """The same call, counted."""

        @functools.wraps(call)
        def counted(owner: Any, *args: Any, **kwargs: Any) -> Any:
            self.statements += not ends or owner.in_transaction
            return call(owner, *args, **kwargs)

        return counted

    def keep(self, path: Path) -> None:
        """Write the count down, for ever."""
        draft = path.with_suffix(".draft")
        while True:
            # Never read half-written.
            draft.write_text(str(self.statements))
            draft.replace(path)
            time.sleep(WRITE_EVERY_S)


def count_statements() -> Count:
    """Count from now on. The shortcuts of a connection end in the standard library, not in each other."""
    count = Count()
    for owner in (aiosqlite.Cursor, aiosqlite.Connection):
        for name in (*STATEMENTS, *ENDS):
            if name in vars(owner):
                setattr(owner, name, count.wrap(getattr(owner, name), ends=name in ENDS))
    in_one_hop = aiosqlite.Connection._execute

    async def execute(connection: Any, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        # A whole group is BEGIN, INSERT and COMMIT.
        count.statements += {sqlite_append.append: 3, sqlite_cursor.run: 1}.get(call, 0)
        return await in_one_hop(connection, call, *arguments, **named)  # type: ignore[no-untyped-call]

    aiosqlite.Connection._execute = execute  # type: ignore[method-assign]
    return count


def main() -> None:
    """Count and run."""
    path, name = Path(sys.argv[1]), sys.argv[2]
    threading.Thread(target=count_statements().keep, args=(path,), daemon=True).start()
    # What the process itself would see.
    sys.argv = ["tallyhook", "web"] if name == "web" else ["workers"]
    runpy.run_module("app.cli.main" if name == "web" else "workers", run_name="__main__")


if __name__ == "__main__":
    main()
