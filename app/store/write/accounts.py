"""What belongs to an account as a whole: its runs' state, its outstanding work, its balance."""

from collections.abc import Sequence
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.accounting.balances import Balance
from app.domain.run_reason import ReasonCode, RunReason
from app.domain.submission import SendOptions
from app.domain.task import RunState
from app.domain.text import storable
from app.ports import Outstanding
from app.store.part import StorePart, reads, writes
from app.store.read.charges import first_entry_since
from app.store.tables import (
    IS_OPEN,
    IS_OPEN_RUN,
    IS_PENDING,
    IS_POLLED,
    REASON_CODE,
    balances,
    credits_sum,
    is_not_ahead,
    ledger,
    runs,
    tasks,
)
from app.store.write.claims import claimed_credits
from app.store.write.run_times import entering
from app.store.write.spending import spending


class AccountWrites(StorePart):
    """Part of the store."""

    async def halt_account_if_running(self, account: str, state: RunState, reason: RunReason) -> int:
        """Pause or stop every running run of an account: the refusal was the account's. How many."""
        return await self._halt(account, state, reason)

    async def halt_sent_runs_if_running(self, account: str, state: RunState, reason: RunReason) -> int:
        """The same, of those runs only that have tasks at the provider and none to send. How many."""
        of_run = tasks.c.run_id == runs.c.id
        has_sent = sa.exists().where(of_run, IS_OPEN, tasks.c.next_poll_at_ms.is_not(None))
        return await self._halt(
            account, state, reason, has_sent, ~sa.exists().where(of_run, IS_OPEN, IS_PENDING)
        )

    @writes
    async def _halt(
        self,
        connection: AsyncConnection,
        account: str,
        state: RunState,
        reason: RunReason,
        *which: sa.ColumnElement[bool],
    ) -> int:
        done = await connection.execute(
            sa.update(runs)
            .where(IS_OPEN_RUN, runs.c.account == account, runs.c.state == RunState.RUNNING, *which)
            .values(reason=storable(reason.text), reason_code=reason.code, **entering(self.db, state))
        )
        return done.rowcount

    @writes
    async def resume_account_if_paused_for(
        self, connection: AsyncConnection, account: str, code: ReasonCode
    ) -> int:
        """Let runs go on that were paused for this reason. How many."""
        done = await connection.execute(
            sa.update(runs)
            .where(
                IS_OPEN_RUN,
                runs.c.account == account,
                runs.c.state == RunState.PAUSED,
                REASON_CODE.in_([code]),
            )
            .values(state=RunState.RUNNING, reason=None, reason_code=None)
        )
        return done.rowcount

    @writes
    async def note_waiting(self, connection: AsyncConnection, account: str, reason: RunReason | None) -> None:
        """Say on the account's running runs why nothing is sent; None: it is again."""
        text, code = (reason.text, reason.code) if reason is not None else (None, None)
        await connection.execute(
            sa.update(runs)
            .where(
                IS_OPEN_RUN,
                runs.c.account == account,
                runs.c.state == RunState.RUNNING,
                sa.func.coalesce(runs.c.reason, "") != (text or ""),
            )
            .values(reason=text, reason_code=code)
        )

    @writes
    async def store_balance(self, connection: AsyncConnection, account: str, balance: Balance) -> None:
        """Keep what the provider reported, append-only."""
        row = {
            "account": account,
            "at_ms": balance.at_ms,
            "remaining": balance.remaining,
            "per_cycle": balance.per_cycle,
            "resets_at_ms": balance.resets_at_ms,
            "source": balance.source,
        }
        await connection.execute(sa.insert(balances), [row])

    @reads
    async def last_balance(self, connection: AsyncConnection, account: str, now_ms: int) -> Balance | None:
        """The newest of those kept; None: there is none. One that a wrong clock dated ahead stands before no
        other."""
        b = balances.c
        query = (
            sa.select(b.at_ms, b.remaining, b.per_cycle, b.resets_at_ms, b.source)
            .where(b.account == account, is_not_ahead(b.at_ms, now_ms))
            .order_by(b.at_ms.desc(), b.id.desc())
            .limit(1)
        )
        row = (await connection.execute(query)).first()
        return None if row is None else Balance(*row)

    @reads
    async def charged_since(self, connection: AsyncConnection, account: str, since_ms: int) -> Decimal:
        """Credits of an account that were posted since then."""
        query = (
            sa.select(credits_sum(ledger.c.credits))
            .join(runs, runs.c.id == ledger.c.run_id)
            .where(runs.c.account == account, ledger.c.kind == "post", ledger.c.at_ms >= since_ms)
        )
        first = await first_entry_since(connection, since_ms)
        return await connection.scalar(query.where(ledger.c.id >= first)) or Decimal(0)

    @reads
    async def outstanding(self, connection: AsyncConnection, account: str) -> Outstanding:
        """What is accepted and not settled, read by the index of tasks that would be polled. Without those of
        a restored run that nothing names: most were over before it, and their charges left the balance."""
        held = sa.case((tasks.c.money == "held", tasks.c.credits_held), else_=None)
        query = (
            sa.select(sa.func.count(), credits_sum(held))
            .join(runs, runs.c.id == tasks.c.run_id)
            .where(
                IS_POLLED,
                runs.c.account == account,
                ~sa.and_(runs.c.restored, tasks.c.provider_task_id.is_(None)),
            )
        )
        return Outstanding(*(await connection.execute(query)).one())

    @reads(long=True)
    async def spent_since(self, connection: AsyncConnection, account: str, since_ms: int) -> Decimal:
        """Credits charged or held, and the estimates of what may be on its way, of all runs that an account
        began since then; one sum for each run, not for each task."""
        query = sa.select(credits_sum(spending(runs.c.id) + claimed_credits(runs.c.id))).where(
            runs.c.account == account, runs.c.created_at_ms >= since_ms
        )
        return await connection.scalar(query) or Decimal(0)

    @reads
    async def send_options(
        self, connection: AsyncConnection, run_ids: Sequence[str]
    ) -> dict[str, SendOptions]:
        """How the tasks of these runs are sent."""
        query = sa.select(runs.c.id, runs.c.batch_size, runs.c.restored).where(runs.c.id.in_(run_ids))
        rows = await connection.execute(query)
        return {row.id: SendOptions(row.batch_size or 1, row.restored) for row in rows}

    @reads
    async def paused_accounts(self, connection: AsyncConnection, code: ReasonCode) -> list[str]:
        """Accounts with a run that is paused for this reason."""
        query = (
            sa.select(runs.c.account)
            .where(IS_OPEN_RUN, runs.c.state == RunState.PAUSED, REASON_CODE.in_([code]))
            .distinct()
        )
        return sorted((await connection.scalars(query)).all())
