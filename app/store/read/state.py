"""The state of the whole in a few numbers, each by an index and bounded. Writes nothing.

Read every few seconds by one worker, so nothing here may grow with the history: ages are the ends of indexes,
counts are sums of the rollup.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.send_outcome import Answer
from app.domain.settlement import Source
from app.domain.task import OPEN_STATES, RunState, TaskState
from app.domain.time_format import DAY_MS
from app.domain.verdicts import Verdict
from app.store.by_index import read_by_index
from app.store.days import since
from app.store.part import StorePart, reads
from app.store.read.progress import progress_of_many
from app.store.tables import (
    IS_ACTIVE_ENDPOINT,
    IS_OPEN,
    IS_OPEN_RUN,
    IS_PENDING,
    IS_POLLED,
    IS_WAITING,
    archived_days,
    credits_sum,
    deliveries,
    findings,
    is_due,
    leases,
    processes,
    relay_endpoints,
    relay_messages,
    run_rollup,
    runs,
    submissions,
    tasks,
)
from app.store.write.claims import is_free
from app.store.write.engine_pauses import held_back
from app.store.write.health import RUNS_WITHIN_MS, database_now

ENDS = 200
"""Rows at an end of an index among which the oldest is looked for."""
WAITING_MAX = 1_000
"""Deliveries that wait among which the oldest is looked for, in no order; of more their ends say enough."""
LATELY_MS = 2 * DAY_MS
"""The provider delivered last within it, where anything is going on."""
RUNS_MAX = 200
"""Open runs that are looked at, oldest first; of a hundred times as many the oldest say enough."""
PRIORITIES = 10
"""Tasks of a run are sent in the order of their priorities, of which there are so many (C-G.2)."""
NEWEST = 1_000
"""Sends and findings that are looked through, newest first."""
KNOWN_RUNS = 1_000
"""Runs whose closed attempts are looked at, newest first."""


@dataclass(slots=True)
class State:
    """By the database's clock; None: there is none. Ages are from these times on."""

    now_ms: int
    waiting_ms: int | None = None
    """When the oldest delivery came that is not settled."""
    delivered_ms: int | None = None
    """When the provider delivered last, or before."""
    poll_due_ms: int | None = None
    """When the first task was to be asked for."""
    pending_ms: dict[str, int] = field(default_factory=dict)
    """Account -> when the oldest running run was made of which a task may be sent now."""
    unreported_ms: dict[str, int] = field(default_factory=dict)
    """Account -> when the oldest task was sent that has no report."""
    runs: dict[tuple[str, str], int] = field(default_factory=dict)
    """(account, state) -> runs that are not over."""
    tasks: dict[tuple[str, str], int] = field(default_factory=dict)
    """(account, state) -> tasks of those runs."""
    held: dict[str, Decimal] = field(default_factory=dict)
    """Account -> held for what is at the provider."""
    processes: Mapping[str, int] = field(default_factory=dict)
    """Kind -> how many run."""
    leases: Mapping[str, bool] = field(default_factory=dict)
    """Name -> whether somebody holds it."""
    relay_ms: int | None = None
    """When the oldest result was settled that is to be pushed."""
    relay_endpoints: Mapping[str, int] = field(default_factory=dict)
    """State -> how many."""


class StateReads(StorePart):
    """Part of the store."""

    @reads
    async def state(self, connection: AsyncConnection) -> State:
        """All of it, as it stands now."""
        await read_by_index(connection)
        now = int(await connection.scalar(sa.select(database_now(self.db))) or 0)
        found = State(now)
        found.waiting_ms = await _oldest_waiting(connection)
        found.delivered_ms = await _last_delivery(connection, now)
        found.poll_due_ms = await connection.scalar(_first_poll())
        found.pending_ms = await _oldest_pending(connection, now)
        found.unreported_ms = await _oldest_unreported(connection)
        await _add_runs(connection, found)
        found.processes, found.leases = await _processes(connection, now), await _leases(connection, now)
        found.relay_ms = await connection.scalar(_oldest_message())
        endpoints = sa.select(relay_endpoints.c.state, sa.func.count()).group_by(relay_endpoints.c.state)
        found.relay_endpoints = dict(tuple(row) for row in await connection.execute(endpoints))
        return found

    @reads
    async def unknown_credits(self, connection: AsyncConnection) -> dict[str, Decimal]:
        """Account -> held for attempts whose work is over though no charge was reported, of the newest
        runs; without what the sweep has not added up yet, some seconds' worth."""
        newest = sa.select(runs.c.id).order_by(runs.c.created_at_ms.desc()).limit(KNOWN_RUNS)
        query = (
            sa.select(runs.c.account, credits_sum(run_rollup.c.held))
            .join(runs, runs.c.id == run_rollup.c.run_id)
            .where(run_rollup.c.run_id.in_(newest), run_rollup.c.state.not_in(OPEN_STATES))
            .group_by(runs.c.account)
        )
        return dict(tuple(row) for row in await connection.execute(query))

    @reads
    async def accepted_ms(self, connection: AsyncConnection) -> Mapping[str, int]:
        """Account -> when the provider last accepted a task of it; at most, where none of the newest sends
        was. 0: nothing was ever sent."""
        await read_by_index(connection)
        s = submissions.c
        newest = sa.select(s.task_id, s.at_ms, s.answer).order_by(s.id.desc()).limit(NEWEST).subquery()
        accepted = newest.c.answer.in_((Answer.ACCEPTED, Answer.EXISTS))
        query = (
            sa.select(
                runs.c.account,
                sa.func.max(sa.case((accepted, newest.c.at_ms))),
                sa.func.min(newest.c.at_ms),
                sa.func.count(),
            )
            .select_from(newest.join(tasks, tasks.c.id == newest.c.task_id))
            .join(runs, runs.c.id == tasks.c.run_id)
            .group_by(runs.c.account)
        )
        rows = list(await connection.execute(query))
        is_all = sum(row[3] for row in rows) < NEWEST
        before = 0 if is_all else min((row[2] for row in rows), default=0)
        found = defaultdict[str, int](lambda: before)
        return found | {account: before if last is None else last for account, last, _, _ in rows}

    @reads
    async def lost_since(self, connection: AsyncConnection, since_ms: int) -> int:
        """Deliveries that had their 2xx and are not stored, found since then; among the newest findings."""
        f = findings.c
        newest = sa.select(f.verdict, f.at_ms).order_by(f.id.desc()).limit(NEWEST).subquery()
        query = (
            sa.select(sa.func.count())
            .select_from(newest)
            .where(newest.c.verdict == Verdict.LOST_AFTER_ACK, newest.c.at_ms >= since_ms)
        )
        return await connection.scalar(query) or 0

    @reads
    async def archived_until(self, connection: AsyncConnection) -> int:
        """The end of the last day (UTC) that is in the archive; days are archived in their order. 0: none
        is."""
        done = archived_days.c.archived_at_ms.is_not(None)
        newest = (
            sa.select(archived_days.c.day_ms).where(done).order_by(archived_days.c.day_ms.desc()).limit(1)
        )
        last = await connection.scalar(newest)
        return 0 if last is None else last + DAY_MS


async def _oldest_waiting(connection: AsyncConnection) -> int | None:
    """Without an order first: over a hundred days that is planned in a tenth of the time, and mostly few
    wait."""
    some = sa.select(deliveries.c.received_at_ms).where(IS_WAITING).limit(WAITING_MAX).subquery()
    few = sa.select(sa.func.count(), sa.func.min(some.c.received_at_ms))
    count, oldest_ms = (await connection.execute(few)).one()
    if count == WAITING_MAX:
        oldest_ms = await connection.scalar(_oldest_at_ends())
    return None if oldest_ms is None else int(oldest_ms)


def _oldest_at_ends() -> sa.Select[Any]:
    """Of both ends of what is due: what nobody took is due first, what is held up is put off again and
    again."""
    d = deliveries.c
    ends = [
        sa.select(
            sa.select(d.received_at_ms)
            .where(IS_WAITING)
            .order_by(order)
            .limit(ENDS)
            .subquery()
            .c.received_at_ms
        )
        for order in (d.due_at_ms, d.due_at_ms.desc())
    ]
    both = sa.union_all(*ends).subquery()
    return sa.select(sa.func.min(both.c.received_at_ms))


async def _last_delivery(connection: AsyncConnection, now_ms: int) -> int | None:
    """Of the newest rows: of the days that it is likely to be of, else of all. Where all of them are polls,
    the provider delivered before the oldest."""
    d, newest = deliveries.c, sa.select(deliveries.c.received_at_ms, deliveries.c.source)
    lately = newest.where(since(connection, d.id, now_ms - LATELY_MS))
    for which, is_all in ((lately, False), (newest, True)):
        rows = which.order_by(d.id.desc()).limit(ENDS).subquery()
        delivered = sa.func.max(sa.case((rows.c.source == Source.DELIVERY, rows.c.received_at_ms)))
        before = sa.func.min(rows.c.received_at_ms) if is_all else sa.null()
        found_ms = await connection.scalar(sa.select(sa.func.coalesce(delivered, before)))
        if found_ms is not None:
            return int(found_ms)
    return None


def _first_poll() -> sa.Select[Any]:
    due = tasks.c.next_poll_at_ms
    return sa.select(due).where(IS_POLLED, due.is_not(None)).order_by(due).limit(1)


async def _oldest_pending(connection: AsyncConnection, now_ms: int) -> dict[str, int]:
    some = sa.exists().where(tasks.c.run_id == runs.c.id, IS_OPEN, IS_PENDING, is_due(now_ms), is_free())
    if (waits := await held_back(connection, now_ms)) is not None:
        some = some.where(~waits)
    query = (
        sa.select(runs.c.account, sa.func.min(runs.c.created_at_ms))
        .where(IS_OPEN_RUN, runs.c.state == RunState.RUNNING, some.correlate(runs))
        .group_by(runs.c.account)
    )
    return dict(tuple(row) for row in await connection.execute(query))


async def _oldest_unreported(connection: AsyncConnection) -> dict[str, int]:
    """Of each run and priority the first in the order of sending."""
    oldest = (
        sa.select(runs.c.id, runs.c.account)
        .where(IS_OPEN_RUN)
        .order_by(runs.c.created_at_ms)
        .limit(RUNS_MAX)
        .subquery()
    )
    numbers: list[sa.Select[Any]] = [
        sa.select(sa.literal_column(str(n)).label("n")) for n in range(1, PRIORITIES + 1)
    ]
    each = sa.union_all(*numbers).subquery()
    t = tasks.c
    first = (
        sa.select(t.first_sent_at_ms)
        .where(
            t.run_id == oldest.c.id,
            IS_OPEN,
            t.state == sa.literal_column(f"'{TaskState.SUBMITTED}'"),
            t.priority == each.c.n,
        )
        .order_by(t.ordinal)
        .limit(1)
        .scalar_subquery()
    )
    sent = (
        sa.select(oldest.c.account, first.label("sent_ms"))
        .select_from(oldest.join(each, sa.true()))
        .subquery()
    )
    query = sa.select(sent.c.account, sa.func.min(sent.c.sent_ms)).group_by(sent.c.account)
    return {account: sent_ms for account, sent_ms in await connection.execute(query) if sent_ms is not None}


async def _add_runs(connection: AsyncConnection, found: State) -> None:
    """Counts of the runs that are not over; of those only whose counts are kept."""
    rows = await connection.execute(
        sa.select(runs.c.id, runs.c.account, runs.c.state, runs.c.has_rollup)
        .where(IS_OPEN_RUN)
        .order_by(runs.c.created_at_ms)
        .limit(RUNS_MAX)
    )
    open_runs = list(rows)
    known = await progress_of_many(connection, [run.id for run in open_runs if run.has_rollup])
    runs_by, tasks_by = defaultdict[tuple[str, str], int](int), defaultdict[tuple[str, str], int](int)
    held = defaultdict[str, Decimal](Decimal)
    for run in open_runs:
        runs_by[run.account, run.state] += 1
        if run.has_rollup:
            for state, count in known[run.id].states.items():
                tasks_by[run.account, state] += count
            at_work = (cell.held for cell in known[run.id].cells if cell.state in OPEN_STATES)
            held[run.account] += sum(at_work, Decimal(0))
    found.runs, found.tasks, found.held = dict(runs_by), dict(tasks_by), dict(held)


async def _processes(connection: AsyncConnection, now_ms: int) -> dict[str, int]:
    seen = processes.c.seen_at_ms > now_ms - RUNS_WITHIN_MS
    query = sa.select(processes.c.kind, sa.func.count()).where(seen).group_by(processes.c.kind)
    return {kind: count for kind, count in await connection.execute(query) if not kind.endswith("-ended")}


async def _leases(connection: AsyncConnection, now_ms: int) -> dict[str, bool]:
    rows = await connection.execute(sa.select(leases.c.name, leases.c.until_ms))
    return {name: until_ms > now_ms for name, until_ms in rows}


def _oldest_message() -> sa.Select[Any]:
    """Of those of each endpoint that are due first."""
    m, e = relay_messages.c, relay_endpoints.c
    due = (
        sa.select(m.at_ms)
        .where(m.endpoint_id == e.id, m.due_at_ms.is_not(None))
        .order_by(m.due_at_ms, m.id)
        .limit(1)
        .scalar_subquery()
    )
    some = sa.select(due.label("at_ms")).where(IS_ACTIVE_ENDPOINT).limit(ENDS).subquery()
    return sa.select(sa.func.min(some.c.at_ms))
