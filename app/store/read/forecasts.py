"""Reads for the forecast. Each is bounded, whatever the size of the books: the newest entries of the ledger,
the open tasks by their indexes, one balance an hour."""

from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.accounting.balances import HEADER, LAG_MS, Balance
from app.domain.accounting.rates import HOUR_MS, MINUTE_MS, Finished, ForecastInput, OpenRun, OpenWork
from app.domain.task import TaskState
from app.store.part import StorePart, reads
from app.store.read.charges import first_entry_since
from app.store.tables import (
    IS_PENDING,
    IS_POLLED,
    IS_SUBMITTING,
    REASON_CODE,
    asked_from,
    balances,
    credits_sum,
    is_not_ahead,
    ledger,
    runs,
    submissions,
    tasks,
)
from app.store.write.engine_pauses import is_held_back, paused_engines

CLOSINGS_MAX = 20_000
"""Closing entries of the ledger that rates are measured by, newest first: over an hour at five a second."""
FINISHED_MS = 48 * HOUR_MS
BALANCES_MS = 7 * 24 * HOUR_MS
SENDS_MAX = 3_000
"""Sends that are looked at for the busiest second: six seconds at the provider's limit."""
SENDS_MS = 60_000


class ForecastReads(StorePart):
    """Part of the store."""

    @reads(long=True)
    async def forecast_input(
        self, connection: AsyncConnection, account: str, now_ms: int, *, slots: int | None = None
    ) -> ForecastInput:
        """All that a forecast of one account is made of."""
        balances = await _balances(connection, account, now_ms)
        open_work = await self._open_work(connection, account)
        charged, perhaps = await _charged_since(
            connection, account, balances[-1].at_ms if balances else now_ms
        )
        return ForecastInput(
            account=account,
            now_ms=now_ms,
            work=open_work,
            balances=balances,
            slots=slots,
            finished=await self._finished(connection, account, now_ms),
            runs=await _open_runs(connection, {work.run_id for work in open_work}),
            charged_since=charged,
            charged_perhaps=perhaps,
        )

    @reads(long=True)
    async def busiest_second(self, connection: AsyncConnection, account: str, now_ms: int) -> int:
        """Create calls of the busiest second of the last minute; a batch is one call."""
        newest = (
            sa.select(submissions.c.id, submissions.c.task_id, submissions.c.at_ms, submissions.c.request_id)
            .order_by(submissions.c.id.desc())
            .limit(SENDS_MAX)
            .subquery()
        )
        # Calls without an answer have no id of the provider's; each then counts for itself.
        call = sa.func.coalesce(newest.c.request_id, sa.cast(newest.c.id, sa.Text))
        calls = sa.func.count(call.distinct())
        query = (
            sa.select(calls)
            .join(tasks, tasks.c.id == newest.c.task_id)
            .join(runs, runs.c.id == tasks.c.run_id)
            .where(runs.c.account == account, newest.c.at_ms > now_ms - SENDS_MS)
            .group_by(newest.c.at_ms // 1000)
            .order_by(calls.desc())
            .limit(1)
        )
        return await connection.scalar(query) or 0

    async def _finished(self, connection: AsyncConnection, account: str, now_ms: int) -> list[Finished]:
        newest = (await _newest_closings(connection, account, now_ms - FINISHED_MS)).subquery()
        minute, country = (newest.c.at_ms // MINUTE_MS) * MINUTE_MS, asked_from(self.db.is_sqlite)
        rows = await connection.execute(
            sa.select(
                minute,
                tasks.c.task_type,
                country,
                sa.func.count(),
                credits_sum(newest.c.charged),
                credits_sum(tasks.c.credits_estimate),
            )
            .join(tasks, tasks.c.id == newest.c.task_id)
            .group_by(minute, tasks.c.task_type, country)
        )
        return [Finished(*row) for row in rows]

    async def _open_work(self, connection: AsyncConnection, account: str) -> list[OpenWork]:
        """By the partial index of each open state."""
        submitted = IS_POLLED, tasks.c.state == TaskState.SUBMITTED
        columns = (
            tasks.c.run_id,
            tasks.c.task_type,
            asked_from(self.db.is_sqlite).label("country"),
            sa.func.coalesce(tasks.c.credits_held, tasks.c.credits_estimate).label("credits"),
        )
        engines = await paused_engines(connection, account)
        out, waits, no = sa.literal(1).label("out"), is_held_back(engines, sa.true()), sa.false()
        attempt_rows = sa.union_all(
            sa.select(*columns, sa.literal(0).label("out"), waits.label("waits")).where(IS_PENDING),
            sa.select(*columns, out, no.label("waits")).where(IS_SUBMITTING),
            sa.select(*columns, out, no.label("waits")).where(*submitted),
        ).subquery()
        waits_now = sa.and_(attempt_rows.c.waits, runs.c.pause_failing_engines)
        key = attempt_rows.c.run_id, attempt_rows.c.task_type, attempt_rows.c.country
        rows = await connection.execute(
            sa.select(
                *key,
                sa.func.count(),
                sa.func.sum(attempt_rows.c.out),
                credits_sum(attempt_rows.c.credits),
                credits_sum(sa.case((attempt_rows.c.out == 1, attempt_rows.c.credits), else_=0)),
                sa.func.sum(sa.case((waits_now, 1), else_=0)),
                credits_sum(sa.case((waits_now, attempt_rows.c.credits), else_=0)),
            )
            .join(runs, runs.c.id == attempt_rows.c.run_id)
            .where(runs.c.account == account)
            .group_by(*key)
        )
        return [OpenWork(*row) for row in rows]


async def _newest_closings(connection: AsyncConnection, account: str, after_ms: int) -> sa.Select[Any]:
    # Of an account with few entries, the newest so many would be all of the ledger.
    first = await first_entry_since(connection, after_ms)
    charged = sa.case((ledger.c.kind == "post", ledger.c.credits), else_=0).label("charged")
    return (
        sa.select(ledger.c.task_id, ledger.c.at_ms, charged)
        .join(runs, runs.c.id == ledger.c.run_id)
        .where(runs.c.account == account, ledger.c.kind.in_(("post", "void")))
        .where(ledger.c.id >= first, ledger.c.at_ms > after_ms)
        .order_by(ledger.c.id.desc())
        .limit(CLOSINGS_MAX)
    )


async def _charged_since(connection: AsyncConnection, account: str, at_ms: int) -> tuple[Decimal, Decimal]:
    """(posted after a time, posted within the lag before it), of the newest entries."""
    newest = (await _newest_closings(connection, account, at_ms - LAG_MS)).subquery()
    after = newest.c.at_ms > at_ms
    row = await connection.execute(
        sa.select(
            credits_sum(sa.case((after, newest.c.charged), else_=0)),
            credits_sum(sa.case((after, 0), else_=newest.c.charged)),
        )
    )
    after_it, before_it = row.one()
    return after_it, before_it


async def _open_runs(connection: AsyncConnection, run_ids: set[str]) -> list[OpenRun]:
    """Oldest first: their ids are ordered by time."""
    query = sa.select(runs.c.id, runs.c.name, runs.c.state, runs.c.reason, REASON_CODE).where(
        runs.c.id.in_(run_ids)
    )
    return sorted((OpenRun(*row) for row in await connection.execute(query)), key=lambda run: run.id)


async def _balances(connection: AsyncConnection, account: str, now_ms: int) -> list[Balance]:
    """The last of each hour and source of recent days; at least the last of each source."""
    b = balances.c
    of_account = sa.and_(b.account == account, is_not_ahead(b.at_ms, now_ms))
    hourly = (
        sa.select(sa.func.max(b.id))
        .where(of_account, b.at_ms > now_ms - BALANCES_MS)
        .group_by(b.source, b.at_ms // HOUR_MS)
    )
    attempt_rows = sa.select(b.id).where(of_account).order_by(b.at_ms.desc(), b.id.desc()).limit(1)
    last = [
        sa.select(attempt_rows.where(b.source == source).subquery().c.id) for source in ("credits", HEADER)
    ]
    rows = await connection.execute(
        sa.select(b.at_ms, b.remaining, b.per_cycle, b.resets_at_ms, b.source)
        .where(b.id.in_(sa.union(hourly, *last)))
        .order_by(b.at_ms, b.id)
    )
    return [Balance(*row) for row in rows]
