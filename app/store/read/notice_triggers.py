"""What may be worth a notice, read from the rows that show it. Every read is bounded; nothing here writes."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.accounting.billing import EntryKind, EntryReason
from app.domain.notices.failing_engines import EngineResult
from app.domain.notices.triggers import ExternalUsage, FindingGroup, FoundTask, RunSnapshot
from app.domain.run_reason import ReasonCode
from app.domain.task import RunState, TaskState
from app.store.by_index import the_only
from app.store.part import StorePart, reads
from app.store.read.engine_countries import grouped
from app.store.read.own_columns import own_columns
from app.store.tables import (
    IS_CANCELLED_OPEN_RUN,
    IS_OPEN_RUN,
    REASON_CODE,
    account_entries,
    credits_sum,
    deliveries,
    findings,
    notices,
    results,
    runs,
    tasks,
)

RUNS_MAX = 500
"""Runs that are looked at, newest first; and with them every older one that is not over."""
FINDINGS_MAX = 10_000
"""Findings that are looked at, newest first. More between two looks belong, as a rule, to the same runs."""
RESULTS_MAX = 2_000
"""Results that are looked at, newest first: 250 of each of eight engines. An engine of which fewer came is
not judged."""
TASKS_MAX = 3
"""Tasks that a notice names, with up to 16 KB of own columns each."""
RUN_KEY = "run:"
"""Notices of a run have the dedupe keys `run:<run id>:1`, `:2`, … in the order of sending."""


class NoticeTriggerReads(StorePart):
    """Part of the store."""

    @reads(long=True)
    async def run_snapshots(self, connection: AsyncConnection) -> list[RunSnapshot]:
        """The newest runs, and every one that is not over. One that was over before its end was kept is so by
        its time alone, until it is marked."""
        found: dict[str, sa.Row[Any]] = {}
        for query in (_newest_runs(), _runs(IS_OPEN_RUN), _runs(IS_CANCELLED_OPEN_RUN)):
            found |= {row.id: row for row in await connection.execute(query)}
        edges = await _edges(connection, list(found))
        return [
            RunSnapshot(
                **row._mapping,
                is_open=row.finished_at_ms is None,
                edges=edges[row.id][0],
                last_kind=edges[row.id][1],
            )
            for row in found.values()
        ]

    @reads(long=True)
    async def newest_finding(self, connection: AsyncConnection) -> int:
        """A number that grows with every finding; 0: there is none."""
        return await connection.scalar(sa.select(sa.func.max(findings.c.id))) or 0

    @reads(long=True)
    async def finding_groups(self, connection: AsyncConnection, since_ms: int) -> list[FindingGroup]:
        """Findings by run and verdict, of the groups to which one was added since then."""
        newest = sa.select(findings).order_by(findings.c.id.desc()).limit(FINDINGS_MAX).subquery()
        touched = await connection.execute(
            sa.select(newest.c.run_id, newest.c.verdict).where(newest.c.at_ms >= since_ms).distinct()
        )
        groups = [tuple(row) for row in touched]
        found = await _groups_of_runs(connection, [g for g in groups if g[0] is not None])
        if any(run_id is None for run_id, _ in groups):
            found += await _groups_of_accounts(connection)
        return found

    @reads(long=True)
    async def newest_found(
        self, connection: AsyncConnection, run_id: str | None, verdict: str
    ) -> list[FoundTask]:
        """The newest tasks of a run with findings of a verdict; none without a run."""
        if run_id is None:
            return []
        f = findings.c
        query = (
            sa.select(tasks.c.id.label("task_id"), *own_columns())
            .join(findings, f.task_id == tasks.c.id)
            .where(f.run_id == run_id, f.verdict == verdict)
            .order_by(f.id.desc())
            .limit(TASKS_MAX)
        )
        return [FoundTask(**row._mapping) for row in await connection.execute(query)]

    @reads(long=True)
    async def accounts_waiting(self, connection: AsyncConnection, code: ReasonCode) -> list[str]:
        """Accounts whose running runs wait for this reason."""
        query = (
            sa.select(runs.c.account)
            .where(IS_OPEN_RUN, runs.c.state == RunState.RUNNING, REASON_CODE.in_([code]))
            .distinct()
        )
        return sorted(await connection.scalars(query))

    @reads
    async def newest_result(self, connection: AsyncConnection) -> int:
        """A number that grows with every result; 0: there is none."""
        return await connection.scalar(sa.select(sa.func.max(results.c.seq))) or 0

    @reads(long=True)
    async def newest_results(self, connection: AsyncConnection, since_ms: int) -> list[EngineResult]:
        """How the newest tasks ended at the provider, the newest first, down to that time. Without those
        that an earlier result answers."""
        by_seq = results.c.seq.desc()
        query = sa.select(results).where(results.c.seq.is_not(None)).order_by(by_seq).limit(RESULTS_MAX)
        newest = query.subquery()
        found = _engine_results(newest).where(newest.c.stored_at_ms >= since_ms)
        rows = await connection.execute(found.order_by(newest.c.seq.desc()))
        return [EngineResult(*row) for row in rows]

    @reads(long=True)
    async def results_after(self, connection: AsyncConnection, seq: int) -> list[EngineResult]:
        """How tasks ended at the provider after that place in the order of settlement, the first ones of
        them, the oldest first."""
        query = sa.select(results).where(results.c.seq > seq).order_by(results.c.seq).limit(RESULTS_MAX)
        next_ones = query.subquery()
        rows = await connection.execute(_engine_results(next_ones).order_by(next_ones.c.seq))
        return [EngineResult(*row) for row in rows]

    @reads(long=True)
    async def external_usage(self, connection: AsyncConnection, since_ms: int) -> list[ExternalUsage]:
        """What others spent, in each cycle for which an audit booked some of it since then."""
        e = account_entries.c
        is_external = e.kind == EntryKind.EXTERNAL_USAGE, e.reason.startswith(EntryReason.OTHER_USERS)
        lately = sa.select(e.account, e.cycle_ms).where(*is_external, e.at_ms >= since_ms).distinct()
        touched = {tuple(row) for row in await connection.execute(lately)}
        if not touched:
            return []
        sums = await connection.execute(
            sa.select(e.account, e.cycle_ms, credits_sum(e.credits))
            .where(*is_external, e.cycle_ms.in_({cycle for _, cycle in touched}))
            .group_by(e.account, e.cycle_ms)
        )
        return [ExternalUsage(*row) for row in sums if (row[0], row[1]) in touched]


_RUN_COLUMNS = (
    runs.c.id,
    runs.c.name,
    runs.c.account,
    runs.c.source,
    runs.c.state,
    runs.c.reason,
    REASON_CODE.label("reason_code"),
    runs.c.created_at_ms,
    runs.c.finished_at_ms,
)


def _engine_results(some: sa.Subquery) -> sa.Select[Any]:
    """Rows of `results` as EngineResult has them; without those that an earlier result answers."""
    r = some.c
    return (
        sa.select(
            runs.c.account,
            tasks.c.task_type,
            (r.status == TaskState.COMPLETED).label("completed"),
            sa.func.coalesce(r.answer_chars, r.answer_bytes).label("chars"),
            r.seq,
            sa.func.coalesce(tasks.c.first_sent_at_ms, 0),
        )
        .select_from(some.join(tasks, tasks.c.id == r.task_id).join(runs, runs.c.id == tasks.c.run_id))
        .where(tasks.c.reused_from.is_(None))
    )


def _runs(which: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return sa.select(*_RUN_COLUMNS).where(runs.c.state != RunState.LOADING, which)


def _newest_runs() -> sa.Select[Any]:
    return _runs(sa.true()).order_by(runs.c.created_at_ms.desc()).limit(RUNS_MAX)


async def _edges(connection: AsyncConnection, run_ids: Sequence[str]) -> dict[str, tuple[int, str | None]]:
    """Run id -> (notices about its state, kind of the last one)."""
    edges: dict[str, tuple[int, str | None]] = dict.fromkeys(run_ids, (0, None))
    rows = await connection.execute(
        sa.select(notices.c.run_id, notices.c.kind, notices.c.occasion).where(
            notices.c.run_id.in_(run_ids), notices.c.occasion.startswith(RUN_KEY)
        )
    )
    for run_id, kind, dedupe_key in rows:
        number = int(dedupe_key.rpartition(":")[2])
        if number > edges[run_id][0]:
            edges[run_id] = (number, kind)
    return edges


async def _groups_of_runs(
    connection: AsyncConnection, groups: Sequence[tuple[str, str]]
) -> list[FindingGroup]:
    if not groups:
        return []
    f = findings.c
    rows = await connection.execute(
        sa.select(f.verdict, f.run_id, runs.c.name, runs.c.account, sa.func.count(), *_sums())
        .join(runs, runs.c.id == f.run_id)
        .where(f.run_id.in_({run_id for run_id, _ in groups}))
        .group_by(f.verdict, f.run_id, runs.c.name, runs.c.account)
    )
    touched = set(groups)
    return [FindingGroup(*row) for row in rows if (row.run_id, row.verdict) in touched]


async def _groups_of_accounts(connection: AsyncConnection) -> list[FindingGroup]:
    """Findings without a run: deliveries of tasks that we never sent."""
    f = findings.c
    account = sa.func.coalesce(the_only(deliveries.c.account, deliveries.c.id == f.delivery_id), "default")
    query = sa.select(f.verdict, account, sa.func.count(), *_sums()).where(f.run_id.is_(None))
    rows = await connection.execute(grouped(query, 2))
    return [FindingGroup(row[0], None, None, *row[1:]) for row in rows]


def _sums() -> tuple[sa.ColumnElement[Any], sa.ColumnElement[Any]]:
    both = sa.and_(findings.c.expected.is_not(None), findings.c.actual.is_not(None))
    return (
        credits_sum(sa.case((both, findings.c.expected), else_=0)),
        credits_sum(sa.case((both, findings.c.actual), else_=0)),
    )
