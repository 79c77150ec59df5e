"""Admission: how much of an account's work may be at the provider at once, asked before anything is sent."""

from collections import deque
from dataclasses import dataclass
from decimal import Decimal

from app.domain.admission import Room, backlog_max, month_start_ms, room
from app.domain.run_reason import RunReason
from app.ports import AdmissionStore, Balance, Clock, Provider, Slots

REFRESH_MS = 2_000
"""How old the count of what is outstanding may be: a thousand tasks at full rate, well inside the margins."""
ASK_MS = 30_000
"""How often the provider is asked for its slots and its balance; the balance lags a minute anyway (P11)."""
LAG_MS = 60_000
"""How long a charge may be missing from the balance. What was outstanding within it may be charged by now, so
the most that was counts."""
RATE_OVER_MS = 60_000
"""The rate at which tasks finish is measured over this."""


@dataclass(frozen=True, slots=True)
class _Seen:
    at_ms: int
    outstanding: int
    credits: Decimal
    sent: int
    sent_credits: Decimal


class Admission:
    """Decides for one account in one process; what it knows it reads from the store and the provider."""

    def __init__(
        self, account: str, store: AdmissionStore, provider: Provider, *, clock: Clock, drain_target_s: float,
        budget_per_month: Decimal | None = None,
    ) -> None:  # fmt: skip
        self._account = account
        self._store = store
        self._provider = provider
        self._clock = clock
        self._drain_target_s = drain_target_s
        self._budget_per_month = budget_per_month
        self._spent: tuple[int, Decimal, Decimal] | None = None
        """Asked at, credits of this month then, `_sent_credits` then."""
        self._seen: deque[_Seen] = deque()
        self._slots: Slots | None = None
        self._balance: Balance | None = None
        self._asked_ms: int | None = None
        self._sent = 0
        self._sent_credits = Decimal(0)
        self._noted: RunReason | None = None

    async def room(self) -> Room:
        """How many tasks may go now; the account's runs say why when it is none."""
        now = self._clock()
        if not self._seen or now - self._seen[-1].at_ms >= REFRESH_MS:
            await self._refresh(now)
        last = self._seen[-1]
        found = room(
            outstanding_tasks=last.outstanding + self._sent - last.sent,
            backlog=backlog_max(
                concurrency=self._slots.concurrency if self._slots else None,
                finished_per_s=self._finished_per_s(),
                drain_target_s=self._drain_target_s,
            ),
            remaining=self._balance.remaining if self._balance else None,
            outstanding_credits=max(s.credits for s in self._seen) + self._sent_credits - last.sent_credits,
            budget_left=await self._budget_left(now),
        )
        if found.reason != self._noted:
            await self._store.note_waiting(self._account, found.reason)
            self._noted = found.reason
        return found

    async def _budget_left(self, now: int) -> Decimal | None:
        if self._budget_per_month is None:
            return None
        if self._spent is None or now - self._spent[0] >= ASK_MS:
            spent = await self._store.spent_since(self._account, month_start_ms(now))
            self._spent = (now, spent, self._sent_credits)
        _, spent, sent_then = self._spent
        return self._budget_per_month - spent - (self._sent_credits - sent_then)

    def sent(self, tasks: int, credits: Decimal) -> None:
        """So many tasks, of so many credits by our estimate, are on their way since the last count."""
        self._sent += tasks
        self._sent_credits += credits

    async def _refresh(self, now: int) -> None:
        if self._asked_ms is None or now - self._asked_ms >= ASK_MS:
            self._asked_ms = now
            self._slots = await self._provider.slots() or self._slots
            balance = await self._provider.balance(now)
            if balance is not None:
                await self._store.store_balance(self._account, balance)
            self._balance = balance
        count = await self._store.outstanding(self._account)
        self._seen.append(_Seen(now, count.tasks, count.credits, self._sent, self._sent_credits))
        while now - self._seen[0].at_ms > max(LAG_MS, RATE_OVER_MS):
            self._seen.popleft()

    def _finished_per_s(self) -> float | None:
        """Tasks finished a second, measured; None while nothing waits for a slot or nothing finished yet."""
        first, last = self._seen[0], self._seen[-1]
        slots = self._slots.concurrency if self._slots else None
        if last.at_ms - first.at_ms < RATE_OVER_MS / 2 or min(s.outstanding for s in self._seen) < (
            slots or 1
        ):
            return None
        finished = (last.sent - first.sent) - (last.outstanding - first.outstanding)
        return finished / (last.at_ms - first.at_ms) * 1000 if finished > 0 else None
