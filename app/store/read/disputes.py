"""Reads for a dispute: the findings of a run with every row that bears on them. Nothing here writes."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.evidence.records import Discrepancy, DisputedAttempt, DisputedTask, Send, StoredReport
from app.domain.task import OPEN_STATES, Money
from app.domain.verdicts import LAPSING_VERDICTS, SPANNING_VERDICTS, Verdict
from app.ports import ArchivedDeliveries
from app.store.by_index import read_by_index, the_only
from app.store.database import Database
from app.store.days import since_tasks, within
from app.store.part import StorePart, reads
from app.store.read.archived import archived_rows
from app.store.read.own_columns import own_columns
from app.store.tables import attempts, deliveries, findings, ledger, results, runs, submissions, tasks
from app.store.write.inbox import unpack

AFTER_MS = 3_600_000
"""A report that fits no task counts to a run until this long after its last event: the provider tries a
delivery for half an hour (P5)."""

_ATTEMPT_COLUMNS = (
    "attempt",
    "state",
    "money",
    "credits_estimate",
    "credits_to_charge",
    "credits_held",
    "credits_charged",
    "provider_task_id",
    "first_sent_at_ms",
    "submitted_at_ms",
    "settled_at_ms",
)
_SEND = (
    "at_ms",
    "answer",
    "http_status",
    "code",
    "message",
    "provider_task_id",
    "credits_to_charge",
    "request_id",
)


@dataclass(frozen=True, slots=True)
class DisputeScope:
    """Which findings count to a run: its own, and reports to its account that fit no task of its time."""

    run_id: str
    account: str
    since_ms: int
    until_ms: int | None
    """None: the run is not at its end."""
    last: int
    """Id of the newest finding; later ones are left to the next archive."""


class DisputeReads(StorePart):
    """Part of the store."""

    def __init__(self, db: Database, archive: ArchivedDeliveries | None = None) -> None:
        super().__init__(db)
        self._archive = archive

    @reads(long=True)
    async def dispute_scope(self, connection: AsyncConnection, run_id: str) -> DisputeScope:
        """The scope as it stands now."""
        await read_by_index(connection)
        run = (await connection.execute(sa.select(runs).where(runs.c.id == run_id))).one()
        last = await connection.scalar(sa.select(sa.func.max(findings.c.id)))
        of_run = tasks.c.run_id == run_id
        is_open = await connection.scalar(
            sa.select(sa.exists().where(of_run, tasks.c.state.in_(sorted(OPEN_STATES))))
        )
        ended = await connection.scalar(
            sa.select(sa.func.max(sa.func.coalesce(tasks.c.settled_at_ms, tasks.c.submitted_at_ms))).where(
                of_run
            )
        )
        until_ms = None if is_open else (ended or run.created_at_ms) + AFTER_MS
        return DisputeScope(run_id, run.account, run.created_at_ms, until_ms, last or 0)

    @reads(long=True)
    async def discrepancies(
        self, connection: AsyncConnection, scope: DisputeScope, *, after: int, limit: int
    ) -> list[Discrepancy]:
        """Up to `limit` findings with ids above `after`, oldest first, and all that bears on them."""
        await read_by_index(connection)
        found = (await connection.execute(_findings(scope, after, limit))).all()
        task_ids = sorted({row.task_id for row in found if row.task_id is not None})
        archived = await self._archived(connection, task_ids, {row.delivery_id for row in found} - {None})
        known = await _tasks(connection, task_ids, archived)
        loose = await _loose(connection, [row.delivery_id for row in found if row.task_id is None])
        loose |= {row.id: _report(row) for row in archived if row.task_id is None}
        return [_discrepancy(row, known.get(row.task_id), loose.get(row.delivery_id)) for row in found]

    @reads
    async def task_with_attempts(self, connection: AsyncConnection, task_id: str) -> DisputedTask | None:
        """One task with all its attempts, each with its sends and reports; what was pruned is read from the
        archive, where there is one."""
        archived = await self._archived(connection, [task_id], set())
        return (await _tasks(connection, [task_id], archived)).get(task_id)

    async def _archived(
        self, connection: AsyncConnection, task_ids: Sequence[str], named: set[str]
    ) -> list[Any]:
        """Rows of the archive that are not stored any more: of the deliveries that findings, results and the
        ledger name."""
        for table in (results, ledger) if task_ids and self._archive is not None else ():
            query = sa.select(table.c.delivery_id).where(table.c.task_id.in_(task_ids))
            named |= set(await connection.scalars(query)) - {None}
        d = deliveries.c.id
        stored = sa.select(d).where(d.in_(sorted(named)), within(connection, d, named))
        missing = named - set(await connection.scalars(stored)) if named else set()
        rows = await archived_rows(self.db, connection, self._archive, missing)
        return [SimpleNamespace(**row) for _, row in sorted(rows.items())]


def _findings(scope: DisputeScope, after: int, limit: int) -> sa.Select[Any]:
    f, t, a, d = findings.c, tasks.c, attempts.c, deliveries.c
    # A charge that was unknown and has come since is in dispute no more.
    money = sa.case((t.attempt == f.attempt, t.money), else_=a.money)
    own = sa.and_(
        f.run_id == scope.run_id, sa.or_(f.verdict.not_in(sorted(LAPSING_VERDICTS)), money == Money.HELD)
    )
    stray = sa.and_(
        f.run_id.is_(None),
        f.verdict == Verdict.UNMATCHED,
        sa.func.coalesce(the_only(d.account, d.id == f.delivery_id), "default") == scope.account,
        f.at_ms >= scope.since_ms,
        *([] if scope.until_ms is None else [f.at_ms <= scope.until_ms]),
    )
    return (
        sa.select(
            f.id, f.at_ms, f.verdict, f.expected, f.actual, f.detail, f.attempt, f.task_id, f.delivery_id
        )
        .outerjoin(tasks, t.id == f.task_id)
        .outerjoin(attempts, sa.and_(a.task_id == f.task_id, a.attempt == f.attempt))
        .where(f.id > after, f.id <= scope.last, sa.or_(own, stray))
        .order_by(f.id)
        .limit(limit)
    )


async def _tasks(
    connection: AsyncConnection, ids: Sequence[str], archived: Sequence[Any]
) -> dict[str, DisputedTask]:
    """Tasks by id with all their attempts, each with its sends and its reports, those of `archived` among
    them."""
    if not ids:
        return {}
    sends = await _sends(connection, ids)
    reports = await _reports(connection, ids)
    for row in archived:
        reports[row.task_id, row.attempt].append(_report(row))
    replaced: dict[str, list[Any]] = defaultdict(list)
    past = sa.select(attempts.c.task_id, *(attempts.c[name] for name in _ATTEMPT_COLUMNS))
    for row in await connection.execute(past.where(attempts.c.task_id.in_(ids))):
        replaced[row.task_id].append(row)
    current = sa.select(
        tasks.c.id.label("task_id"),
        tasks.c.ordinal,
        tasks.c.task_type,
        tasks.c.payload,
        tasks.c.priority,
        *own_columns(),
        *(tasks.c[name] for name in _ATTEMPT_COLUMNS),
    ).where(tasks.c.id.in_(ids))
    known = {}
    for row in await connection.execute(current):
        disputed = []
        for attempt in sorted([*replaced[row.task_id], row], key=lambda attempt: attempt.attempt):
            values = [attempt._mapping[name] for name in _ATTEMPT_COLUMNS]
            key = row.task_id, attempt.attempt
            disputed.append(DisputedAttempt(*[*values, tuple(sends[key]), tuple(reports[key])]))
        known[row.task_id] = DisputedTask(
            row.task_id,
            row.ordinal,
            row.task_type,
            row.payload,
            row.priority,
            row.custom_id,
            row.metadata,
            row.sample,
            row.repeats,
            tuple(disputed),
        )
    return known


async def _sends(connection: AsyncConnection, ids: Sequence[str]) -> dict[tuple[str, int], list[Send]]:
    s = submissions.c
    query = sa.select(s.task_id, s.attempt, *(s[name] for name in _SEND)).where(s.task_id.in_(ids))
    found: dict[tuple[str, int], list[Send]] = defaultdict(list)
    for row in await connection.execute(query.order_by(s.id)):
        found[row.task_id, row.attempt].append(Send(*row[2:]))
    return found


def _reports_where(*conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
    d = deliveries.c
    return (
        sa.select(
            d.task_id,
            d.attempt,
            d.id,
            d.source,
            d.received_at_ms,
            d.effect,
            d.webhook_id,
            d.signed_at,
            d.signature,
            d.encoding,
            d.body,
        )
        .where(*conditions)
        .order_by(d.received_at_ms, d.id)
    )


async def _reports(
    connection: AsyncConnection, ids: Sequence[str]
) -> dict[tuple[str, int], list[StoredReport]]:
    found: dict[tuple[str, int], list[StoredReport]] = defaultdict(list)
    mine = deliveries.c.task_id.in_(ids), since_tasks(connection, deliveries.c.id, ids)
    for row in await connection.execute(_reports_where(*mine)):
        found[row.task_id, row.attempt].append(_report(row))
    return found


async def _loose(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, StoredReport]:
    if not ids:
        return {}
    mine = deliveries.c.id.in_(ids), within(connection, deliveries.c.id, ids)
    rows = await connection.execute(_reports_where(*mine))
    return {row.id: _report(row) for row in rows}


def _report(row: Any) -> StoredReport:
    return StoredReport(
        row.id,
        row.attempt,
        row.source,
        row.received_at_ms,
        row.effect,
        row.webhook_id,
        row.signed_at,
        row.signature,
        unpack(row.encoding, row.body),
    )


def _discrepancy(row: Any, task: DisputedTask | None, loose: StoredReport | None) -> Discrepancy:
    if task is not None and row.verdict not in SPANNING_VERDICTS:
        of_attempt = tuple(a for a in task.attempts if a.attempt == row.attempt)
        task = replace(task, attempts=of_attempt)
    return Discrepancy(
        row.id,
        row.at_ms,
        row.verdict,
        row.expected,
        row.actual,
        row.detail,
        row.attempt,
        task,
        () if loose is None else (loose,),
    )
