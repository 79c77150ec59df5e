"""How PostgreSQL runs each statement of some work, as its own transaction asked for it."""

import contextlib
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from app.store import Database

_ON_ROWS = re.compile(r"\s*(SELECT|UPDATE|DELETE|INSERT|WITH)")
_LARGE = "SELECT relname FROM pg_class WHERE relkind = 'r' AND reltuples > $1::real"
SMALL_ROWS = 1_000
"""Of fewer a scan is the best plan there is."""
Run = tuple[str, Any]
"""A statement, and its parameters."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A statement, and what its transaction had set by then."""

    statement: str
    parameters: Any
    settings: tuple[Run, ...]


@contextlib.contextmanager
def noting(db: Database, counted: Counter[str] | None = None) -> Iterator[dict[Any, Planned]]:
    """Every statement on rows that runs meanwhile; of one that runs more than once, its first parameters, and
    how often each was `counted`."""
    seen: dict[Any, Planned] = {}
    settings: dict[int, list[Run]] = {}

    def begin(connection: sa.Connection) -> None:
        settings[id(connection)] = []

    def note(c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        given = parameters[0] if many else parameters
        if "set_config(" in statement:
            settings.setdefault(id(c), []).append((statement, given))
        elif _ON_ROWS.match(statement):
            now = tuple(settings.get(id(c), ()))
            if counted is not None:
                counted[statement] += 1
            key = statement, tuple((text, str(value)) for text, value in now)
            seen.setdefault(key, Planned(statement, given, now))

    engine = db.engine.sync_engine
    sa.event.listen(engine, "begin", begin)
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(engine, "begin", begin)
        sa.event.remove(engine, "before_cursor_execute", note)


async def plans_of(
    db: Database, work: Callable[[], Awaitable[object]], *, known: set[Any] | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """(statement, root of the plan that ran) of all that `work` runs and that is not `known` already."""
    with noting(db) as seen:
        await work()
    found = []
    async with db.engine.connect() as connection:
        for key, ran in seen.items():
            if known is not None:
                if key in known:
                    continue
                known.add(key)
            for setting in ran.settings:
                await connection.exec_driver_sql(*setting)
            explain = f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {ran.statement}"
            answer = (await connection.exec_driver_sql(explain, ran.parameters)).scalar_one()
            (document,) = json.loads(answer) if isinstance(answer, str) else answer
            found.append((ran.statement, document["Plan"]))
            await connection.rollback()
    return found


async def large_relations(db: Database) -> dict[str, str]:
    """Tables, and partitions, of more than SMALL_ROWS by their statistics -> the table each is of."""
    async with db.engine.connect() as connection:
        rows = (await connection.exec_driver_sql(_LARGE, (SMALL_ROWS,))).all()
    return {name: "deliveries" if name.startswith("deliveries_") else name for (name,) in rows}


def scanned(plan: dict[str, Any], large: Mapping[str, str]) -> Iterator[str]:
    """Tables, of those that are `large`, that a plan goes through from the first page to the last."""
    if "Seq Scan" in plan["Node Type"] and plan["Relation Name"] in large:
        yield large[plan["Relation Name"]]
    for child in plan.get("Plans", ()):
        yield from scanned(child, large)
