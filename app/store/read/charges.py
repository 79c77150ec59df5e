"""Reads of what an account was charged, and when at the earliest and at the latest. Nothing here writes.

The provider charges a task when it completes, and reports no time (C-G.4): some time between our first send
of the attempt and the first report of it that reached us.
"""

from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.accounting.billing import CreditExposure, Cycle, PostLine
from app.domain.accounting.movements import Movement
from app.domain.engines.table import EXTRA_BILLING
from app.domain.task import OPEN_STATES, Money, TaskState
from app.domain.time_format import DAY_MS, iso_day
from app.store.days import since
from app.store.part import StorePart, reads
from app.store.tables import (
    EVERY_ATTEMPT,
    Credits,
    asked_from,
    attempts,
    claims,
    credits_sum,
    deliveries,
    ledger,
    runs,
    tasks,
)
from app.store.write.claims import in_ranges
from app.store.write.open_sends import is_refusal_in_doubt

COMMITS_APART_MS = 600_000
"""Ids of the ledger follow its times but for transactions that ran side by side; none takes this long."""


EXACT_ENTRIES_MAX = 5_000
"""Of the ledger, holds among them. So many posts are judged one by one within milliseconds."""
BUSY_GRAIN_MS = 30_000
"""Of more than that; half of the lag that a balance may have (P11)."""


class ChargeReads(StorePart):
    """Part of the store."""

    @reads(long=True)
    async def post_lines(self, connection: AsyncConnection, account: str, cycle: Cycle) -> list[PostLine]:
        """What each engine cost on each day of a cycle, by the day on which the charge was reported; posts of
        0 are left out."""
        post = await _posts(connection, account, cycle.starts_ms)
        day = (post.c.to_ms // DAY_MS).label("day")
        rows = await connection.execute(
            sa.select(day, post.c.task_type, post.c.sync, sa.func.count(), credits_sum(post.c.credits))
            .where(post.c.to_ms >= cycle.starts_ms, post.c.to_ms < cycle.ends_ms, post.c.credits > 0)
            .group_by(day, post.c.task_type, post.c.sync)
            .order_by(day, post.c.task_type, post.c.sync)
        )
        return [PostLine(iso_day(r[0] * DAY_MS), r[1], bool(r[2]), r[3], r[4]) for r in rows]

    @reads(long=True)
    async def post_movements(
        self, connection: AsyncConnection, account: str, from_ms: int, to_ms: int, *, grain_ms: int = 1
    ) -> list[Movement]:
        """Posts that may have been charged between two times. Those whose two times fall into the same
        grains come as one, its times widened to them: a month of a busy account would not fit otherwise, and
        neither would an hour of a large run."""
        post = await _posts(connection, account, from_ms)
        if grain_ms < BUSY_GRAIN_MS and await _entries_since(connection, from_ms) > EXACT_ENTRIES_MAX:
            grain_ms = BUSY_GRAIN_MS
        first = (post.c.from_ms // grain_ms).label("first")
        last = (post.c.to_ms // grain_ms).label("last")
        rows = await connection.execute(
            sa.select(first, last, credits_sum(post.c.credits))
            .where(post.c.to_ms >= from_ms, post.c.from_ms <= to_ms, post.c.credits > 0)
            .group_by(first, last)
        )
        return [_movement(r[2], r[0] * grain_ms, (r[1] + 1) * grain_ms - 1) for r in rows]

    @reads(long=True)
    async def open_movements(
        self, connection: AsyncConnection, account: str, now_ms: int, *, grain_ms: int = 1_000
    ) -> list[Movement]:
        """Attempts that the provider has, or may have, without a known charge, each at the most that it can
        cost; those first sent in the same grain come as one."""
        found: list[Movement] = []
        for query in _open(account):
            part = query.subquery()
            first = (part.c.from_ms // grain_ms).label("first")
            most = credits_sum(part.c.credits + part.c.clusters)
            rows = await connection.execute(sa.select(first, most).group_by(first))
            found += [_movement(r[1], r[0] * grain_ms, now_ms) for r in rows]
        return found

    @reads(long=True)
    async def exposure(self, connection: AsyncConnection, account: str) -> CreditExposure:
        """What may still be charged, and for how many attempts."""
        counts: dict[bool, list[Any]] = {True: [0, Decimal(0)], False: [0, Decimal(0)]}
        for query in _open(account):
            part = query.subquery()
            rows = await connection.execute(
                sa.select(part.c.working, sa.func.count(), credits_sum(part.c.credits)).group_by(
                    part.c.working
                )
            )
            for working, count, credits in rows:
                counts[bool(working)][0] += count
                counts[bool(working)][1] += credits
        return CreditExposure(*counts[True], *counts[False])

    @reads(long=True)
    async def working_before(self, connection: AsyncConnection, account: str, at_ms: int) -> int:
        """Attempts first sent before a time that the provider is still working on."""
        count = 0
        for query in _open(account):
            part = query.subquery()
            before = sa.select(sa.func.count()).select_from(part)
            before = before.where(part.c.working == sa.true(), part.c.from_ms < at_ms)
            count += await connection.scalar(before) or 0
        return count

    @reads(long=True)
    async def burn(
        self, connection: AsyncConnection, account: str, since_ms: int
    ) -> list[tuple[str, str, int, Decimal]]:
        """(engine, country, posts, credits) charged since a time, dearest first."""
        country = asked_from(self.db.is_sqlite)
        post = await _posts(connection, account, since_ms, country)
        spent = credits_sum(post.c.credits)
        rows = await connection.execute(
            sa.select(post.c.task_type, post.c.country, sa.func.count(), spent)
            .where(post.c.to_ms >= since_ms, post.c.credits > 0)
            .group_by(post.c.task_type, post.c.country)
            .order_by(spent.desc(), post.c.task_type, post.c.country)
        )
        return [(r[0], r[1] or "", r[2], r[3]) for r in rows]


async def _posts(
    connection: AsyncConnection, account: str, since_ms: int, country: sa.ColumnElement[Any] | None = None
) -> sa.Subquery:
    """Posts reported since a time: credits, task_type, sync, from_ms and to_ms of the charge, and country."""
    replaced = attempts.c.attempt.is_not(None)

    def of_attempt(name: str) -> sa.ColumnElement[Any]:
        return sa.case((replaced, attempts.c[name]), else_=tasks.c[name])

    reported = sa.func.coalesce(deliveries.c.received_at_ms, ledger.c.at_ms)
    settled = of_attempt("settled_at_ms")
    # A charge that was asked for again was made before the report that lacked it.
    to_ms = sa.case((settled < reported, settled), else_=reported)
    sent = sa.func.coalesce(_sent_from(of_attempt("first_sent_at_ms")), to_ms)
    floor = await first_entry_since(connection, since_ms)
    columns = [
        ledger.c.credits,
        tasks.c.task_type,
        (of_attempt("settled_by") == "sync").label("sync"),
        sa.case((sent < to_ms, sent), else_=to_ms).label("from_ms"),
        to_ms.label("to_ms"),
    ]
    if country is not None:
        columns.append(country.label("country"))
    # One that waited for a week is taken to be of when it was settled.
    recent = since(connection, deliveries.c.id, since_ms - 7 * DAY_MS)
    is_same_attempt = sa.and_(attempts.c.task_id == ledger.c.task_id, attempts.c.attempt == ledger.c.attempt)
    return (
        sa.select(*columns)
        .select_from(ledger)
        .join(runs, runs.c.id == ledger.c.run_id)
        .join(tasks, tasks.c.id == ledger.c.task_id)
        .outerjoin(attempts, is_same_attempt)
        .outerjoin(deliveries, sa.and_(deliveries.c.id == ledger.c.delivery_id, recent))
        .where(ledger.c.id >= floor, ledger.c.kind == "post", runs.c.account == account)
        .subquery("post")
    )


async def _entries_since(connection: AsyncConnection, at_ms: int) -> int:
    """About so many ledger entries are of a time or later."""
    last = await connection.scalar(sa.select(sa.func.max(ledger.c.id))) or 0
    return last - await first_entry_since(connection, at_ms) + 1


async def first_entry_since(connection: AsyncConnection, at_ms: int) -> int:
    """No ledger entry of a time or later has a lower id."""
    return await _first_id(connection, at_ms - COMMITS_APART_MS)


async def _first_id(connection: AsyncConnection, at_ms: int) -> int:
    """The id of the first ledger entry of a time or later. Found by halving: the ledger is as long as its
    history, and no index on its times would be worth the writes."""
    # One by one: together, SQLite finds them by going through all.
    ends = [sa.select(end(ledger.c.id)).scalar_subquery() for end in (sa.func.min, sa.func.max)]
    low, high = (await connection.execute(sa.select(*ends))).one()
    if low is None:
        return 0
    high += 1
    while low < high:
        middle = (low + high) // 2
        next_one = sa.select(ledger.c.id, ledger.c.at_ms).where(ledger.c.id >= middle).order_by(ledger.c.id)
        row = (await connection.execute(next_one.limit(1))).one()
        if row.at_ms < at_ms:
            low = row.id + 1
        else:
            high = middle
    return int(low)


def _open(account: str) -> list[sa.Select[Any]]:
    """Attempts whose charge nobody has reported: current ones, then those that a retry replaced. `working`:
    the provider is expected to report; otherwise the work was closed and the money is all that is open."""
    recorded = [
        sa.select(*_open_columns(table, table.c.first_sent_at_ms))
        .select_from(source.join(runs, runs.c.id == tasks.c.run_id))
        .where(runs.c.account == account, _is_open(table))
        for table, source in EVERY_ATTEMPT
    ]
    claimed = in_ranges(*_open_columns(tasks, claims.c.claimed_at_ms))
    return [*recorded, claimed.join(runs, runs.c.id == claims.c.run_id).where(runs.c.account == account)]


def _open_columns(table: sa.Table, sent_at_ms: sa.ColumnElement[Any]) -> list[sa.ColumnElement[Any]]:
    # More may be charged than is held for product clusters alone, and how many there are is known at the end.
    extra = [
        (tasks.c.task_type == task_type, sa.literal(Decimal(billing.items_max), Credits))
        for task_type, billing in EXTRA_BILLING.items()
    ]
    return [
        sa.func.coalesce(table.c.credits_held, table.c.credits_estimate).label("credits"),
        sa.case(*extra, else_=sa.literal(Decimal(0), Credits)).label("clusters"),
        table.c.state.in_(OPEN_STATES).label("working"),
        _sent_from(sent_at_ms).label("from_ms"),
    ]


def _sent_from(first_sent_at_ms: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """The earliest that an attempt may have been sent: for a restored run, before the backup was restored."""
    return sa.case((runs.c.restored, runs.c.created_at_ms), else_=first_sent_at_ms)


def _is_open(table: sa.Table) -> sa.ColumnElement[bool]:
    # Sent and never answered: nobody knows whether the provider took it.
    expired = sa.and_(table.c.money == Money.NONE, table.c.state == TaskState.EXPIRED)
    lost = sa.or_(expired, is_refusal_in_doubt(table))
    sent = table.c.first_sent_at_ms.is_not(None)
    return sa.and_(sent, sa.or_(table.c.money == Money.HELD, table.c.state == TaskState.SUBMITTING, lost))


def _movement(credits: Decimal, from_ms: int, to_ms: int) -> Movement:
    return Movement(credits, int(from_ms), max(int(from_ms), int(to_ms)))
