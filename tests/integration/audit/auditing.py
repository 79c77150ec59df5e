"""An account whose provider tells the balances that a test sets, and books that a test fills by hand."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from app.domain.accounting.balances import Balance
from app.domain.task import TaskSpec, new_id
from app.ports import BalanceAnswer, BalanceEnd
from app.services.audit import Audited, audit
from app.store import Store
from app.store.tables import account_entries, ledger, tasks
from tests.clock import SteppedClock, unix_ms

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000


@dataclass
class Account:
    """What the provider knows of one account, and our side of it."""

    store: Store
    clock: SteppedClock
    remaining: Decimal = Decimal(1_000)
    per_cycle: Decimal | None = Decimal(1_000)
    resets_at_ms: int | None = unix_ms("2026-11-10")
    """SteppedClock begins on 2026-10-01, so the cycle begins on the 10th of October."""
    asked: int = 0
    run_id: str = ""
    ids: list[str] = field(default_factory=list)

    async def balance(self, now_ms: int) -> BalanceAnswer:
        self.asked += 1
        balance = Balance(now_ms, self.remaining, self.per_cycle, self.resets_at_ms)
        return BalanceAnswer(BalanceEnd.REPORTED, balance)

    async def audit(self, at: str | None = None) -> Audited:
        """Audit now, or at a later moment."""
        if at is not None:
            self.clock.now_ms = unix_ms(at)
        return await audit(self.store, "default", self, now_ms=self.clock())

    async def twice(self, at: str) -> Audited:
        """Two audits, far enough apart for the balance to be certain; what the second found."""
        await self.audit(at)
        self.clock.advance(2 * MINUTE_MS)
        return await self.audit()

    async def send(self, task_type: str = "CHATGPT", credits: int = 5, *, took_ms: int = 0) -> str:
        """A task that was sent and accepted `took_ms` ago, its hold open."""
        if not self.run_id:
            self.run_id = await self.store.runs.create_run(
                name="r", source="-", budget=None, now_ms=self.clock()
            )
        spec = TaskSpec(len(self.ids) + 1, task_type, {"prompt": "p", "country": "DE"})
        (task_id,) = await self.store.runs.add_tasks(self.run_id, [(spec, Decimal(credits))], self.clock())
        self.ids.append(task_id)
        sent_ms = self.clock() - took_ms
        await self._change(
            sa.update(tasks)
            .where(tasks.c.id == task_id)
            .values(
                state="submitted",
                money="held",
                credits_held=Decimal(credits),
                first_sent_at_ms=sent_ms,
                submitted_at_ms=sent_ms,
                next_poll_at_ms=sent_ms,
                sends=1,
            ),
            sa.insert(ledger).values(**self._entry(task_id, "hold", credits)),
        )
        return task_id

    async def settle(
        self, task_id: str, credits: int, *, by: str = "delivery", reported_ms: int | None = None
    ) -> None:
        """The report of a task: charged so much. `reported_ms`: when an earlier one said it was finished."""
        await self._change(
            sa.update(tasks)
            .where(tasks.c.id == task_id)
            .values(
                state="completed",
                money="posted",
                credits_charged=Decimal(credits),
                reported="completed",
                settled_at_ms=reported_ms or self.clock(),
                settled_by=by,
                next_poll_at_ms=None,
                verdict="matched",
            ),
            sa.insert(ledger).values(**self._entry(task_id, "post", credits)),
        )

    async def spend(self, credits: int, task_type: str = "CHATGPT", *, by: str = "delivery") -> None:
        """A task of ours that the provider charged within the last seconds."""
        task_id = await self.send(task_type, credits, took_ms=10_000)
        await self.settle(task_id, credits, by=by)
        self.remaining -= credits

    async def correct(self, credits: int, reason: str) -> None:
        """An adjustment that a person wrote, now."""
        row = {
            "at_ms": self.clock(),
            "account": "default",
            "kind": "adjustment",
            "credits": Decimal(credits),
            "reason": reason,
        }
        await self._change(sa.insert(account_entries).values(**row))

    async def entries(self) -> list[tuple[str, Decimal, str]]:
        """(kind, credits, cause) of every entry of the account, as they were written."""
        c = account_entries.c

        async def work(connection: Any) -> list[tuple[str, Decimal, str]]:
            rows = await connection.execute(sa.select(c.kind, c.credits, c.reason).order_by(c.id))
            return [(row[0], row[1], row[2].partition(":")[0]) for row in rows]

        return await self.store.db.read(work)

    def _entry(self, task_id: str, kind: str, credits: int) -> dict[str, Any]:
        return {
            "at_ms": self.clock(),
            "run_id": self.run_id,
            "task_id": task_id,
            "attempt": 1,
            "kind": kind,
            "credits": Decimal(credits),
            "delivery_id": new_id(self.clock()) if kind == "post" else None,
        }

    async def _change(self, *statements: Any) -> None:
        async def work(connection: Any) -> None:
            for statement in statements:
                await connection.execute(statement)

        await self.store.db.write(work)
