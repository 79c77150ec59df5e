"""What another process does between two statements of a transaction, brought about by SQLAlchemy's events."""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.util import await_only

from app.store import Database, Store

OWNERS = "SELECT tasks.provider_task_id, tasks.id"
"""How the look for the owners of ids begins, between a settlement's reads and its writes."""
_ON_ROWS = re.compile(r"\s*(SELECT|UPDATE|DELETE|INSERT|WITH)")
_WAITS_FOR_A_LOCK = sa.text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


@contextlib.contextmanager
def before_each(db: Database, beginning: str, work: Callable[[], Awaitable[object]]) -> Iterator[None]:
    """`work` is awaited before each statement of this `db` that begins so, and may fail in its place."""

    def look(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.lstrip().startswith(beginning):
            await_only(work())

    with _listening(db, "before_cursor_execute", look):
        yield


async def statements_of(db: Database, work: Callable[[], Awaitable[object]]) -> dict[str, Any]:
    """Each statement on rows that `work` runs, and what its parameters were at first."""
    seen: dict[str, Any] = {}

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        if _ON_ROWS.match(statement):
            seen.setdefault(statement, parameters[0] if many else parameters)

    with _listening(db, "before_cursor_execute", note):
        await work()
    return seen


@dataclass(frozen=True, slots=True)
class Hold:
    """Where a transaction stands still."""

    reached: asyncio.Event
    go_on: asyncio.Event

    async def until_waited_for(self, store: Store, other: asyncio.Task[Any]) -> None:
        """Until `other` waits for a lock, or is done without one. Only on PostgreSQL."""
        async with asyncio.timeout(30):
            while not (other.done() or await store.db.read(lambda c: c.scalar(_WAITS_FOR_A_LOCK))):  # noqa: ASYNC110 - a lock has no event
                await asyncio.sleep(0.01)


@contextlib.contextmanager
def held_before(db: Database, beginning: str) -> Iterator[Hold]:
    """Transactions of this `db` stand still before each statement that begins so, until they may go on."""
    hold = Hold(asyncio.Event(), asyncio.Event())

    async def wait() -> None:
        hold.reached.set()
        await hold.go_on.wait()

    with before_each(db, beginning, wait):
        yield hold


@dataclass(slots=True)
class LostAnswers:
    """How many of the next commits are made, and then the connection is lost: the caller cannot know (W4)."""

    count: int = 0


@contextlib.contextmanager
def losing_answers(db: Database) -> Iterator[LostAnswers]:
    """Loses the answers to commits, but for `Database.append`, which writes by the driver alone."""
    lost = LostAnswers()

    def commit(connection: sa.Connection) -> None:
        if lost.count:
            lost.count -= 1
            connection.dialect.do_commit(connection.connection)
            raise ConnectionResetError("the answer to the commit was lost")

    with _listening(db, "commit", commit):
        yield lost


@contextlib.contextmanager
def _listening(db: Database, event: str, listener: Callable[..., None]) -> Iterator[None]:
    engine = db.engine.sync_engine
    sa.event.listen(engine, event, listener)
    try:
        yield
    finally:
        sa.event.remove(engine, event, listener)
