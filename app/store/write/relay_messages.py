"""Messages of the relay: made of what was settled since the last look, and what became of them.

A result's place in the order of settlement is what a settlement writes for the relay; nothing else, so a run
that nobody has results of pushed pays nothing. Whoever looks next makes a message of each result whose run or
task has an endpoint, and moves the position on, in one transaction: none is missed, none made twice.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.relay.ladder import Tried
from app.domain.relay.message import FINISHED, EndpointState, Message, Scheme
from app.domain.task import TaskState
from app.domain.text import storable_message
from app.store.database import Database
from app.store.part import StorePart, writes
from app.store.tables import (
    Millis,
    relay_endpoints,
    relay_messages,
    relay_position,
    relay_runs,
    relay_tasks,
    results,
    runs,
    tasks,
)
from app.store.write.health import database_now

PAGE = 2_000
"""Results of one transaction."""
FINISHED_MAX = 200
"""Ends of runs that one transaction tells of."""
CLOSE_AFTER_MS = 7 * 24 * 3_600_000
"""After the end of its last run an endpoint gets what is late; the provider reports for a day (P1)."""
CLOSED_MAX = 500
_E, _M = relay_endpoints.c, relay_messages.c
_COLUMNS = ("endpoint_id", "run_id", "task_id", "attempt", "kind", "at_ms", "due_at_ms", "tries")


class RelayMessageWrites(StorePart):
    """Part of the store."""

    async def make_messages(self, now_ms: int) -> tuple[int, bool]:
        """(results looked at, whether these were all). One process at a time looks; for the others, and
        while there is no endpoint, there is nothing to do."""
        if not await self.db.read(_has_endpoint):
            return 0, True
        return await self._make(now_ms)

    @writes
    async def _make(self, connection: AsyncConnection, now_ms: int) -> tuple[int, bool]:
        held = sa.select(relay_position.c.seq).with_for_update(skip_locked=True)
        position = await connection.scalar(held)
        if position is None:
            return 0, True
        ended = await _untold_ends(connection)
        oldest = sa.select(sa.func.min(_E.from_seq)).where(_E.state != EndpointState.CLOSED)
        after = max(position, await connection.scalar(oldest) or 0)
        page = sa.select(results.c.seq).where(results.c.seq > after).order_by(results.c.seq).limit(PAGE)
        found = (await connection.scalars(page)).all()
        is_last = len(found) < PAGE
        through = found[-1] if found else after
        added = await _add(connection, _of_results(after, through, now_ms)) if found else set()
        if is_last and ended:
            # Its results are all before it: they were committed when it ended.
            added |= await _tell_ends(connection, ended, now_ms)
        await _wake(connection, added, now_ms)
        if through != position:
            await connection.execute(sa.update(relay_position).values(seq=through))
        return len(found), is_last

    @writes
    async def record_posts(
        self,
        connection: AsyncConnection,
        endpoint_id: str,
        ended: Sequence[tuple[Message, Tried]],
        now_ms: int,
    ) -> None:
        """Forget messages that were taken, and say of others when they are tried again."""
        taken = [message.id for message, tried in ended if tried.is_taken]
        if taken:
            batch = self.db.batch("v", {"id": sa.BigInteger()}, [{"id": i} for i in taken])
            done = await connection.execute(sa.delete(relay_messages).where(_M.id.in_(sa.select(batch.c.id))))
            await connection.execute(
                sa.update(relay_endpoints)
                .where(_E.id == endpoint_id)
                .values(taken=_E.taken + done.rowcount, last_taken_at_ms=now_ms)
            )
        rows = [
            {
                "id": message.id,
                "tries": message.tries + 1,
                "due_at_ms": None if tried.wait_ms is None else now_ms + tried.wait_ms,
                "status": tried.status,
                "error": storable_message(tried.error),
            }
            for message, tried in ended
            if not tried.is_taken
        ]
        if rows:
            types = {
                "id": sa.BigInteger(),
                "tries": sa.Integer(),
                "due_at_ms": Millis(),
                "status": sa.Integer(),
                "error": sa.Text(),
            }
            batch = self.db.batch("v", types, rows)
            changed = {name: batch.c[name] for name in types if name != "id"}
            await connection.execute(sa.update(relay_messages).where(_M.id == batch.c.id).values(**changed))

    @writes
    async def close_endpoints(self, connection: AsyncConnection, now_ms: int) -> int:
        """Close endpoints of the command line's whose runs ended long ago and for which nothing waits; how
        many. Wakes any that was overlooked."""
        waits = sa.exists().where(_M.endpoint_id == _E.id)
        is_waiting = (
            _E.due_at_ms.is_(None),
            sa.exists().where(_M.endpoint_id == _E.id, _M.due_at_ms.is_not(None)),
        )
        await connection.execute(
            sa.update(relay_endpoints)
            .where(_E.state == EndpointState.ACTIVE, *is_waiting)
            .values(due_at_ms=now_ms)
        )
        is_live = sa.or_(runs.c.finished_at_ms.is_(None), runs.c.finished_at_ms > now_ms - CLOSE_AFTER_MS)
        has_run = sa.exists().where(
            relay_runs.c.endpoint_id == _E.id, runs.c.id == relay_runs.c.run_id, is_live
        )
        old = (
            sa.select(_E.id)
            .where(_E.state == EndpointState.ACTIVE, _E.token_id == "", ~has_run, ~waits)
            .where(_E.created_at_ms < now_ms - CLOSE_AFTER_MS)
            .limit(CLOSED_MAX)
        )
        done = await connection.execute(
            sa.update(relay_endpoints)
            .where(_E.id.in_(old.cte("old").select()))
            .values(state=EndpointState.CLOSED)
            .returning(_E.id)
        )
        return len(done.all())


async def add_closed(
    db: Database, connection: AsyncConnection, state: TaskState, which: sa.ColumnElement[bool]
) -> None:
    """Messages about tasks that were closed without a report, within the transaction that closes them.
    `which` of those in `state`: a condition on `tasks`. Nothing where no endpoint wants any."""
    if not await _has_endpoint(connection):
        return
    t = tasks.c
    at_once, tries = sa.literal(0), sa.literal(0)
    values = (t.run_id, t.id, t.attempt, t.state, database_now(db), at_once, tries)
    closed = sa.and_(t.state == state, which)
    by_run = sa.select(relay_runs.c.endpoint_id, *values).join(relay_runs, relay_runs.c.run_id == t.run_id)
    by_task = sa.select(relay_tasks.c.endpoint_id, *values).join(relay_tasks, relay_tasks.c.task_id == t.id)
    added = await _add(connection, by_run.where(closed).union_all(by_task.where(closed)))
    await _wake(connection, added, 0)


async def reopen_endpoints(connection: AsyncConnection, run_ids: Sequence[str]) -> None:
    """Within the transaction that lets finished runs go on: so do their endpoints."""
    linked = sa.select(relay_runs.c.endpoint_id).where(relay_runs.c.run_id.in_(run_ids))
    await connection.execute(
        sa.update(relay_endpoints)
        .where(_E.id.in_(linked), _E.state == EndpointState.CLOSED)
        .values(state=EndpointState.ACTIVE)
    )


async def _has_endpoint(connection: AsyncConnection) -> bool:
    found = sa.select(_E.id).where(_E.state != EndpointState.CLOSED).limit(1)
    return await connection.scalar(found) is not None


def _of_results(after: int, through: int, now_ms: int) -> sa.CompoundSelect[Any]:
    r, t = results.c, tasks.c
    values = (t.run_id, r.task_id, r.attempt, r.status, r.stored_at_ms, sa.literal(now_ms), sa.literal(0))
    page = r.seq > after, r.seq <= through
    to_all, to_one = relay_runs.c, relay_tasks.c
    is_open = _E.state != EndpointState.CLOSED
    by_run = (
        sa.select(to_all.endpoint_id, *values)
        .select_from(results)
        .join(tasks, t.id == r.task_id)
        .join(relay_runs, to_all.run_id == t.run_id)
        .join(relay_endpoints, sa.and_(_E.id == to_all.endpoint_id, is_open))
        .where(*page)
    )
    by_task = (
        sa.select(to_one.endpoint_id, *values)
        .select_from(results)
        .join(relay_tasks, to_one.task_id == r.task_id)
        .join(tasks, t.id == r.task_id)
        .where(*page)
    )
    return by_run.union_all(by_task)


async def _add(connection: AsyncConnection, found: Any) -> set[str]:
    """Add messages; the endpoints that get some."""
    insert = sa.insert(relay_messages).from_select(_COLUMNS, found).returning(_M.endpoint_id)
    return set((await connection.execute(insert)).scalars())


async def _untold_ends(connection: AsyncConnection) -> list[sa.Row[Any]]:
    """Ends of runs that an endpoint was not told of, (run, endpoint, time)."""
    c = relay_runs.c
    is_untold = runs.c.finished_at_ms.is_not(None), c.told_finished_ms.is_distinct_from(runs.c.finished_at_ms)
    query = (
        sa.select(c.run_id, c.endpoint_id, runs.c.finished_at_ms)
        .join(runs, runs.c.id == c.run_id)
        .join(relay_endpoints, _E.id == c.endpoint_id)
        .where(_E.state != EndpointState.CLOSED, _E.scheme == Scheme.STANDARD, *is_untold)
        .limit(FINISHED_MAX)
    )
    return list(await connection.execute(query))


async def _tell_ends(connection: AsyncConnection, ended: Iterable[sa.Row[Any]], now_ms: int) -> set[str]:
    rows = list(ended)
    values = [
        {
            "endpoint_id": row.endpoint_id,
            "run_id": row.run_id,
            "attempt": 0,
            "kind": FINISHED,
            "at_ms": row.finished_at_ms,
            "due_at_ms": now_ms,
            "tries": 0,
        }
        for row in rows
    ]
    await connection.execute(sa.insert(relay_messages), values)
    c = relay_runs.c
    for row in rows:
        told = sa.update(relay_runs).where(c.run_id == row.run_id, c.endpoint_id == row.endpoint_id)
        await connection.execute(told.values(told_finished_ms=row.finished_at_ms))
    return {row.endpoint_id for row in rows}


async def _wake(connection: AsyncConnection, endpoint_ids: Iterable[str], now_ms: int) -> None:
    """Have endpoints looked at that got messages. One that rests goes on resting.

    The row is written in any case: so a worker that gives the endpoint back waits for these messages, or was
    before them.
    """
    ids = sorted(endpoint_ids)
    if ids:
        rests = sa.and_(_E.rests > 0, _E.due_at_ms.is_not(None))
        due_ms = sa.case((rests, _E.due_at_ms), else_=now_ms)
        await connection.execute(sa.update(relay_endpoints).where(_E.id.in_(ids)).values(due_at_ms=due_ms))
