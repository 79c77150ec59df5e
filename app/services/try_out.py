"""Reads a source as loading does, and stores nothing: how many tasks it has, what they may cost, what of it
repeats, what is wrong with it.
"""

import sqlite3
from collections.abc import AsyncIterable, Iterable
from contextlib import closing

from app.domain import pricing
from app.domain.own_columns import BadLine
from app.domain.task import TaskSpec
from app.services.load import Duplicates, Loaded, NewRun, repeated_id


async def try_out(source: AsyncIterable[Iterable[TaskSpec | BadLine]], new: NewRun, day: str) -> Loaded:
    """What loading would make of a source, but for answers that would be reused: they are priced. `day`: ISO,
    whose price list is followed. Memory is flat: what was seen lies in a file that has no name."""
    loaded, bad_line = Loaded(""), 0
    with closing(sqlite3.connect("")) as database:
        seen = _Seen(database)
        async for piece in source:
            for line in piece:
                bad = line if isinstance(line, BadLine) else seen.repeated_id_of(line)
                if bad is None and isinstance(line, TaskSpec):
                    _count(loaded, line, seen, new, day)
                elif bad is not None:
                    loaded.bad_lines += bad.line != bad_line
                    loaded.bad.add(*bad)
                    bad_line = bad.line
    loaded.bad.kept.sort(key=lambda remark: remark.line)
    return loaded


def _count(loaded: Loaded, spec: TaskSpec, seen: "_Seen", new: NewRun, day: str) -> None:
    repeats = seen.repeats(spec)
    loaded.duplicates += repeats and spec.sample == 1
    if repeats and new.duplicates is Duplicates.MERGE:
        return
    loaded.tasks += 1
    loaded.estimate += pricing.estimate(spec.task_type, spec.payload, day)
    if spec.repeats > 1:
        loaded.repeated += spec.sample == 1
        loaded.samples += 1


class _Seen:
    """What the records before asked, and what they were called."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.execute("CREATE TABLE asked (what TEXT PRIMARY KEY, first INTEGER) WITHOUT ROWID")
        database.execute("CREATE TABLE named (id TEXT PRIMARY KEY, line INTEGER) WITHOUT ROWID")

    def repeats(self, spec: TaskSpec) -> bool:
        """Whether an earlier record asks the same."""
        return (
            self._first("asked", "what, first", spec.fingerprint(), spec.first_ordinal) != spec.first_ordinal
        )

    def repeated_id_of(self, spec: TaskSpec) -> BadLine | None:
        """What is wrong with a record that is called as an earlier one is."""
        own = spec.own
        if own is None or own.custom_id is None:
            return None
        first = self._first("named", "id, line", own.custom_id, own.line)
        return None if first == own.line else repeated_id(own, first)

    def _first(self, table: str, columns: str, key: str, value: int) -> int:
        key_column, _, value_column = columns.partition(", ")
        row = self._database.execute(
            f"INSERT INTO {table} ({columns}) VALUES (?, ?) "  # noqa: S608 - names of ours
            f"ON CONFLICT DO UPDATE SET {key_column} = {key_column} RETURNING {value_column}",
            (key, value),
        ).fetchone()
        return int(row[0])
