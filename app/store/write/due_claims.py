"""Claims of due tasks: who may send what, before anything is sent.

Every one is a conditional update: any number of workers may race, and a row moves only from the state in its
condition.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.run_reason import BUDGET
from app.domain.submission import ClaimedTask
from app.domain.task import RunState
from app.store.database import Database
from app.store.finish_results import has_response_column
from app.store.part import StorePart, writes
from app.store.tables import runs, tasks
from app.store.write.claims import add_ranges, claimed_credits
from app.store.write.engine_pauses import is_held_back, paused_engines, take_probes
from app.store.write.run_times import entering
from app.store.write.send_statements import ClaimStatements, first_due, heads
from app.store.write.spending import spending

CLAIM_TRIES = (True, False, False, False)
"""Whether each look for due tasks passes over those that somebody holds. Where another sender holds all, it
waits for him, and looks again."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """One claim: whose tasks, how many at most, for whom, and until when."""

    account: str
    limit: int
    token: str
    now_ms: int
    lease_until_ms: int
    paused: Sequence[str] = ()
    """Engines whose tasks wait in the runs that want it."""

    @property
    def asked(self) -> dict[str, Any]:
        """Parameters of the statements."""
        return {
            "account": self.account,
            "limit": self.limit,
            "claim_token": self.token,
            "now_ms": self.now_ms,
        }


class ClaimWrites(StorePart):
    """Part of the writes of submitting."""

    _claims_ranges = False

    def __init__(self, db: Database) -> None:
        super().__init__(db)
        self._due_statements = ClaimStatements(db)

    @writes
    async def claim_pending(
        self,
        connection: AsyncConnection,
        *,
        account: str = "default",
        limit: int,
        claim: str,
        now_ms: int,
        lease_until_ms: int,
        probe_after_ms: int = 60_000,
    ) -> list[ClaimedTask]:
        """Claim up to `limit` due tasks of an account's running runs for sending, highest priority first,
        within one the oldest run first, in the order of its source. A run whose budget the next task would
        exceed is paused instead. Of an engine that is paused, one task is claimed now and then, the next one
        in `probe_after_ms`."""
        paused = await paused_engines(connection, account)
        wanted = _Claim(account, limit, claim, now_ms, lease_until_ms, paused)
        probes = await take_probes(connection, account, now_ms, now_ms + probe_after_ms) if paused else []
        by_range = await self._may_claim_ranges(connection)
        for skip_locked in CLAIM_TRIES:
            due = [*probes, *await self._due(connection, wanted)][:limit]
            if not due:
                return []
            if rows := await self._claim(connection, wanted, due, by_range, skip_locked):
                return rows
        return []

    async def _may_claim_ranges(self, connection: AsyncConnection) -> bool:
        """Whether no process of the version before is left, which would not look at them."""
        if not self._claims_ranges:
            self._claims_ranges = not await connection.run_sync(has_response_column)
        return self._claims_ranges

    async def _due(self, connection: AsyncConnection, claim: _Claim) -> list[sa.Row[Any]]:
        """(id, run) of the tasks to claim. Asked run by run: what is in no running run is not looked at."""
        if self.db.is_sqlite:
            return await self._first_of_runs(connection, claim)
        query = self._due_statements.first_due
        if claim.paused:
            query = first_due(~is_held_back(claim.paused, runs.c.pause_failing_engines))
        return list((await connection.execute(query, claim.asked)).all())

    async def _first_of_runs(self, connection: AsyncConnection, claim: _Claim) -> list[sa.Row[Any]]:
        """The same on SQLite, which knows no lateral join: the run with the most urgent task is asked first,
        and no further one than is needed."""
        its, query = self._due_statements, self._due_statements.heads
        if claim.paused:
            query = heads(~is_held_back(claim.paused, runs.c.pause_failing_engines))
        asked = claim.asked
        rows: list[sa.Row[Any]] = []
        for run_id, priority, is_pausing in await connection.execute(query, asked):
            if len(rows) == claim.limit and _place(rows[-1]) < (-priority, run_id, 0):
                break
            due = its.due_of_run
            if is_pausing and claim.paused:
                due = due.where(~is_held_back(claim.paused, sa.true()))
            rows += (await connection.execute(due, asked | {"run_id": run_id})).all()
            rows = sorted(rows, key=_place)[: claim.limit]
        return rows

    async def _claim(
        self,
        connection: AsyncConnection,
        claim: _Claim,
        due: Sequence[sa.Row[Any]],
        by_range: bool,
        skip_locked: bool,
    ) -> list[ClaimedTask]:
        """Claim those of the due tasks that are still free: never sent ones by ranges, others row by row."""
        budgets = await self._lock_running(connection, {row.run_id for row in due})
        its = self._due_statements
        query, ids = its.claimable, its.ids.parameters([{"id": row.id} for row in due])
        if not by_range:
            # The version before locks rows, not runs.
            query = query.with_for_update(of=tasks, skip_locked=skip_locked)
        found = [row for row in await connection.execute(query, ids | claim.asked) if row.run_id in budgets]
        rows = [ClaimedTask(*[*row, by_range and row.sends == 1]) for row in found]
        rows.sort(key=lambda row: (-row.priority, row.run_id, row.ordinal))
        rows = await self._within_budget(connection, rows, budgets)
        taken = await self._claim_rows(connection, claim, [row for row in rows if not row.in_range])
        fresh = [row for row in rows if row.in_range]
        await add_ranges(self.db, connection, fresh, claim.lease_until_ms)
        return [row for row in rows if row.in_range or row.id in taken]

    async def _lock_running(
        self, connection: AsyncConnection, run_ids: set[str]
    ) -> dict[str, Decimal | None]:
        """The budgets of those runs that are running, locked: whoever claims of a run or ends it comes before
        or after, and reads what this one wrote."""
        query = self._due_statements.lock_running
        found = await connection.execute(query, {"run_ids": sorted(run_ids)})
        return {row.id: row.budget for row in found}

    async def _claim_rows(
        self, connection: AsyncConnection, claim: _Claim, rows: Sequence[ClaimedTask]
    ) -> set[str]:
        """Ids of those that are claimed now."""
        if not rows:
            return set()
        its = self._due_statements
        data = [{"id": row.id, "sends": row.sends, "first_ms": row.first_sent_at_ms} for row in rows]
        parameters = its.claimed.parameters(data) | {
            "claim_token": claim.token,
            "until_ms": claim.lease_until_ms,
        }
        return set(await connection.scalars(its.claim_rows, parameters))

    async def _within_budget(
        self, connection: AsyncConnection, rows: Sequence[ClaimedTask], budgets: Mapping[str, Decimal | None]
    ) -> list[ClaimedTask]:
        limited = await self._budgets_left(connection, budgets)
        kept: list[ClaimedTask] = []
        over: set[str] = set()
        for row in rows:
            left = limited.get(row.run_id)
            # An attempt that may already exist at the provider is sent again whatever the budget says: the
            # same key cannot cost a second time.
            if left is None or row.sends > 1:
                kept.append(row)
            elif row.run_id not in over and row.credits_estimate <= left:
                kept.append(row)
                limited[row.run_id] = left - row.credits_estimate
            else:
                over.add(row.run_id)
        if over:
            await connection.execute(
                sa.update(runs)
                .where(runs.c.id.in_(sorted(over)), runs.c.state == RunState.RUNNING)
                .values(reason=BUDGET.text, reason_code=BUDGET.code, **entering(self.db, RunState.PAUSED))
            )
        return kept

    async def _budgets_left(
        self, connection: AsyncConnection, budgets: Mapping[str, Decimal | None]
    ) -> dict[str, Decimal]:
        limited = {run_id: budget for run_id, budget in budgets.items() if budget is not None}
        if limited:
            # After the lock, hence at a later time: what the claim before this one took is in it.
            spent = sa.select(runs.c.id, spending(runs.c.id), claimed_credits(runs.c.id))
            for run_id, *credits in await connection.execute(spent.where(runs.c.id.in_(sorted(limited)))):
                limited[run_id] -= sum(credits, Decimal(0))
        return limited


def _place(row: sa.Row[Any]) -> tuple[int, str, int]:
    return -row.priority, row.run_id, row.ordinal
