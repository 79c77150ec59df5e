"""What became of pushing the results of one task. Nothing here writes.

A message is deleted once it is taken, so nothing says that it was. But of a result up to the position of the
relay, or of a task that was closed without one, an endpoint had a message: where it is gone, it was taken.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.task import OPEN_STATES
from app.store.part import StorePart, reads
from app.store.tables import (
    relay_endpoints,
    relay_messages,
    relay_position,
    relay_runs,
    relay_tasks,
    results,
    tasks,
)

ENDPOINTS_MAX = 20
_E, _M = relay_endpoints.c, relay_messages.c


@dataclass(frozen=True, slots=True)
class TaskMessage:
    """One result of a task, for one endpoint."""

    url: str
    endpoint_state: str
    attempt: int
    kind: str
    """The state in which the attempt ended; empty: it has not."""
    state: str
    """to_come; new: no worker has looked at it; waiting, given_up, taken; before: there was no endpoint."""
    tries: int = 0
    status: int | None = None
    """Of the last try; None: no answer, or none yet."""
    error: str | None = None
    due_at_ms: int | None = None


class TaskRelayReads(StorePart):
    """Part of the store."""

    @reads
    async def messages_of_task(self, connection: AsyncConnection, task_id: str) -> list[TaskMessage]:
        """By endpoint, the newest first, and attempt. Empty: it is pushed nowhere."""
        t, r = tasks.c, results.c
        task = (
            await connection.execute(sa.select(t.run_id, t.state, t.attempt).where(t.id == task_id))
        ).one_or_none()
        endpoints = [] if task is None else await _endpoints(connection, task_id, task.run_id)
        if task is None or not endpoints:
            return []
        settled = sa.select(r.attempt, r.status, r.seq).where(r.task_id == task_id)
        position = await connection.scalar(sa.select(relay_position.c.seq)) or 0
        ends = {
            row.attempt: _End(row.status, row.seq, is_new=(row.seq or 0) > position)
            for row in await connection.execute(settled)
        }
        if task.attempt not in ends and task.state not in OPEN_STATES:
            ends[task.attempt] = _End(task.state, None, is_new=False)
        kept = sa.select(relay_messages).where(_M.task_id == task_id).order_by(_M.id)
        messages: dict[str, dict[int, sa.Row[Any]]] = {}
        for row in await connection.execute(kept):
            messages.setdefault(row.endpoint_id, {})[row.attempt] = row
        return [one for row in endpoints for one in _of_endpoint(row, ends, messages.get(row.id, {}))]


@dataclass(frozen=True, slots=True)
class _End:
    """How an attempt ended."""

    kind: str
    seq: int | None
    """None: without a report, or before results had numbers."""
    is_new: bool


async def _endpoints(connection: AsyncConnection, task_id: str, run_id: str) -> Sequence[sa.Row[Any]]:
    to_all = sa.select(relay_runs.c.endpoint_id).where(relay_runs.c.run_id == run_id)
    to_one = sa.select(relay_tasks.c.endpoint_id).where(relay_tasks.c.task_id == task_id)
    linked: sa.Select[Any] = sa.select(_E.id, _E.url, _E.state, _E.from_seq)
    linked = linked.where(_E.id.in_(to_all.union(to_one))).order_by(_E.id.desc()).limit(ENDPOINTS_MAX)
    return list(await connection.execute(linked))


def _of_endpoint(
    endpoint: sa.Row[Any], ends: Mapping[int, _End], kept: Mapping[int, sa.Row[Any]]
) -> Iterator[TaskMessage]:
    url, state = endpoint.url, endpoint.state
    if not kept and not ends:
        yield TaskMessage(url, state, 1, "", "to_come")
    for attempt in sorted({*kept, *ends}):
        if (row := kept.get(attempt)) is not None:
            how = "waiting" if row.due_at_ms is not None else "given_up"
            tried = row.tries, row.status, row.error, row.due_at_ms
            yield TaskMessage(url, state, attempt, row.kind, how, *tried)
        else:
            end = ends[attempt]
            is_before = end.seq is not None and end.seq <= endpoint.from_seq
            how = "before" if is_before else "new" if end.is_new else "taken"
            yield TaskMessage(url, state, attempt, end.kind, how)
