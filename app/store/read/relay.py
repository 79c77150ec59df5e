"""Reads of the relay: what is due for an endpoint, with what it says; endpoints and how they do. Never
writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.relay.ladder import LONGEST_MS
from app.domain.relay.message import Message, Position, Scheme
from app.store.part import reads
from app.store.read.bodies import AnswerReads
from app.store.read.exports import read_results
from app.store.read.own_columns import own_columns
from app.store.read.settled import of_attempt
from app.store.tables import (
    attempts,
    has_come,
    relay_endpoints,
    relay_messages,
    relay_runs,
    results,
    runs,
    tasks,
)

PAGE = 100
"""Messages read at once: 2 MB of answers of 18 KB."""
_M = relay_messages.c
_OWN = (_M.id.label("message_id"), _M.kind, _M.at_ms, _M.attempt, _M.tries, _M.due_at_ms)


@dataclass(frozen=True, slots=True)
class DuePage:
    """Messages in the order in which they are due."""

    messages: list[Message]
    last: Position
    is_last: bool
    """Nothing more was due when this was read."""


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """An endpoint, and what waits for it."""

    id: str
    account: str
    token_id: str
    url: str
    scheme: str
    state: str
    created_at_ms: int
    due_at_ms: int | None
    rests: int
    failing_since_ms: int | None
    last_error: str | None
    last_taken_at_ms: int | None
    taken: int
    waiting: int
    """This, and the next, up to COUNTED_MAX."""
    given_up: int
    runs: tuple[str, ...]
    """Names of the newest."""


class RelayReads(AnswerReads):
    """Part of the store."""

    @reads(long=True)
    async def due_messages(
        self,
        connection: AsyncConnection,
        endpoint_id: str,
        after: Position,
        now_ms: int,
        *,
        from_archive: bool = True,
    ) -> DuePage:
        """What is due behind `after`. A response whose body is gone is null, and `response_note` says so; so
        does that of an archived one without `from_archive`. Raises what the archive raises."""
        is_due = _M.endpoint_id == endpoint_id, has_come(_M.due_at_ms, now_ms, LONGEST_MS)
        behind = sa.tuple_(_M.due_at_ms, _M.id) > sa.tuple_(sa.literal(after[0]), sa.literal(after[1]))
        page = (
            sa.select(*_OWN, _M.run_id, _M.task_id)
            .where(*is_due, behind)
            .order_by(_M.due_at_ms, _M.id)
            .limit(PAGE)
        )
        found: list[sa.Row[Any]] = list(await connection.execute(page))
        if not found:
            return DuePage([], after, is_last=True)
        of_tasks = _about_tasks([row.message_id for row in found if row.task_id is not None])
        archive = self._archive if from_archive else None
        rows, is_cut = await read_results(self.db, connection, self._read_answer, of_tasks, archive)
        about = {row["message_id"]: row for row in rows}
        ends = [row for row in found if row.task_id is None]
        about |= await _about_runs(connection, [row.message_id for row in ends])
        read = found
        if is_cut:
            # Up to the last that was read; the rest is of the next page.
            read = [row for row in found if row.message_id in about]
            read = read[: _gap(found, about)]
        messages = [_message(row, about[row.message_id]) for row in read if row.message_id in about]
        last = read[-1]
        return DuePage(messages, (last.due_at_ms, last.message_id), is_last=not is_cut and len(found) < PAGE)

    @reads
    async def endpoints(
        self,
        connection: AsyncConnection,
        *,
        run_id: str | None = None,
        endpoint_id: str | None = None,
        account: str | None = None,
        before: str | None = None,
        limit: int,
    ) -> list[EndpointRow]:
        """The newest first, behind `before`."""
        e = relay_endpoints.c
        waiting = _count(_M.due_at_ms.is_not(None)).label("waiting")
        given_up = _count(_M.due_at_ms.is_(None)).label("given_up")
        columns = [column for column in e if column.name in EndpointRow.__slots__]
        query = sa.select(*columns, waiting, given_up)
        if run_id is not None:
            linked = sa.select(relay_runs.c.endpoint_id).where(relay_runs.c.run_id == run_id)
            query = query.where(e.id.in_(linked))
        asked = ((e.id, endpoint_id), (e.account, account))
        query = query.where(*(column == value for column, value in asked if value is not None))
        if before is not None:
            query = query.where(e.id < before)
        query = query.order_by(e.id.desc()).limit(limit)
        found = (await connection.execute(query)).all()
        names = await _run_names(connection, [row.id for row in found])
        return [EndpointRow(**row._mapping, runs=tuple(names.get(row.id, ()))) for row in found]

    @reads
    async def secret_of_url(self, connection: AsyncConnection, account: str, url: str) -> str | None:
        """The secret of the command line's endpoint with a URL; None: there is none."""
        e = relay_endpoints.c
        is_own = e.account == account, e.token_id == "", e.scheme == Scheme.STANDARD
        return await connection.scalar(sa.select(e.secret).where(*is_own, e.url == url))

    @reads
    async def secret_of_run(self, connection: AsyncConnection, run_id: str) -> str | None:
        """The secret that its endpoint signs with; None: the run has none."""
        query = (
            sa.select(relay_endpoints.c.secret)
            .join(relay_runs, relay_runs.c.endpoint_id == relay_endpoints.c.id)
            .where(relay_runs.c.run_id == run_id)
        )
        return await connection.scalar(query)


RUNS_NAMED = 5
COUNTED_MAX = 10_000
"""Messages of an endpoint that are counted, of each kind: one that is away for days has millions."""


async def _run_names(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, list[str]]:
    """Endpoint -> the names of its newest runs. One look into the index for each, however many it has."""
    e, c = relay_endpoints.c, relay_runs.c
    own = (
        sa.select(c.run_id).where(c.endpoint_id == e.id).order_by(c.run_id.desc()).correlate(relay_endpoints)
    )
    newest = [own.offset(n).limit(1).scalar_subquery().label(f"newest_{n}") for n in range(RUNS_NAMED)]
    found = (await connection.execute(sa.select(e.id, *newest).where(e.id.in_(ids)))).all()
    run_ids = {row[0]: [run_id for run_id in row[1:] if run_id is not None] for row in found}
    of_these = runs.c.id.in_({run_id for named in run_ids.values() for run_id in named})
    rows = await connection.execute(sa.select(runs.c.id, runs.c.name).where(of_these))
    names = {row.id: row.name for row in rows}
    return {of: [names[run_id] for run_id in named if run_id in names] for of, named in run_ids.items()}


def _count(condition: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
    own = sa.select(_M.id).where(_M.endpoint_id == relay_endpoints.c.id, condition)
    # In the order of its index, so that no other way seems shorter where one endpoint has nearly all.
    counted = own.order_by(_M.due_at_ms, _M.id).limit(COUNTED_MAX).correlate(relay_endpoints).subquery()
    return sa.select(sa.func.count()).select_from(counted).scalar_subquery()


def _about_tasks(ids: Sequence[int]) -> sa.Select[Any]:
    t, r, a = tasks.c, results.c, attempts.c
    of_own = r.task_id == _M.task_id, r.attempt == _M.attempt
    of_past = a.task_id == _M.task_id, a.attempt == _M.attempt, t.attempt != _M.attempt
    return (
        sa.select(
            _M.id.label("message_id"),
            runs.c.name.label("run_name"),
            t.ordinal,
            *own_columns(),
            t.task_type,
            t.payload,
            t.priority,
            *of_attempt(_M.attempt),
            r.delivery_id,
            r.answer_bytes,
            r.answer_sha256,
        )
        .select_from(relay_messages)
        .join(tasks, t.id == _M.task_id)
        .join(runs, runs.c.id == t.run_id)
        .outerjoin(results, sa.and_(*of_own))
        .outerjoin(attempts, sa.and_(*of_past))
        .where(_M.id.in_(ids))
        .order_by(_M.due_at_ms, _M.id)
    )


async def _about_runs(connection: AsyncConnection, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    if not ids:
        return {}
    query = (
        sa.select(
            _M.id, runs.c.id.label("run_id"), runs.c.name.label("run_name"), runs.c.state.label("run_state")
        )
        .join(runs, runs.c.id == _M.run_id)
        .where(_M.id.in_(ids))
    )
    return {row.id: dict(row._mapping) for row in await connection.execute(query)}


def _gap(found: Sequence[sa.Row[Any]], about: dict[int, Any]) -> int:
    """How many from the first on were read."""
    return next((n for n, row in enumerate(found) if row.message_id not in about), len(found))


def _message(row: sa.Row[Any], about: dict[str, Any]) -> Message:
    return Message(
        row.message_id, row.kind, row.at_ms, row.run_id, row.task_id, row.attempt, row.tries, about
    )
