"""Admission: how much of an account's work may be at the provider at once, asked before anything is sent."""

from collections import deque
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from app.domain.accounting.balances import Balance
from app.domain.admission import SendQuota, backlog_max, month_start_ms, send_quota
from app.domain.run_reason import ReasonCode, RunReason
from app.domain.time_format import iso_utc
from app.ports import BalanceAnswer, BalanceEnd, Clock, Provider, Slots

if TYPE_CHECKING:
    from app.store import Store

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
class UnknownBalance:
    """What to do while the provider has a balance and it cannot be read."""

    age_max_ms: int = 600_000
    """The last one counts for so long, less what was charged since."""
    sends: bool = False
    """Then send without looking at it; otherwise send nothing until it is known again."""


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
        self,
        account: str,
        store: "Store",
        provider: Provider,
        *,
        clock: Clock,
        drain_target_s: float,
        budget_per_month: Decimal | None = None,
        unknown: UnknownBalance | None = None,
    ) -> None:
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
        self._unknown = unknown or UnknownBalance()
        self._balance: Balance | None = None
        """The last one that was reported."""
        self._last_answer = BalanceAnswer(BalanceEnd.UNKNOWN, why="not asked yet")
        """How the last request for it ended; an edition that has no balance stays so while requests fail."""
        self._silent_since_ms: int | None = None
        """Since when it is not reported; None: it was at the last call."""
        self._charged_since = Decimal(0)
        """Posted since that balance was taken, where it is older than the last request."""
        self._exposed = (Decimal(0), Decimal(0))
        """At the last request: credits that may have been missing from the balance, `_sent_credits`."""
        self._asked_ms: int | None = None
        self._sent = 0
        self._sent_credits = Decimal(0)
        self._noted: RunReason | None = None

    async def quota(self) -> SendQuota:
        """How many tasks may go now; the account's runs say why when it is none."""
        now = self._clock()
        if not self._seen or not 0 <= now - self._seen[-1].at_ms < REFRESH_MS:
            await self._refresh(now)
        last = self._seen[-1]
        quota = send_quota(
            outstanding_tasks=last.outstanding + self._sent - last.sent,
            backlog=backlog_max(
                concurrency=self._slots.concurrency if self._slots else None,
                finished_per_s=self._finished_per_s(),
                drain_target_s=self._drain_target_s,
            ),
            remaining=self._remaining(now),
            unknown=self._unknown_reason(now),
            outstanding_credits=self._outstanding_credits(),
            budget_left=await self._budget_left(now),
        )
        if self._last_answer.end is BalanceEnd.REFUSED and quota.tasks:
            # One request more finds out, and what the provider then says of the key stops the runs.
            quota = SendQuota(1)
        if quota.reason != self._noted:
            await self._store.accounts.note_waiting(self._account, quota.reason)
            self._noted = quota.reason
        return quota

    def _outstanding_credits(self) -> Decimal:
        """What the balance may not show yet: the most that was outstanding within its lag, and all that was
        sent since it was asked for, which may have come and gone between two counts."""
        last, (exposed, sent_then) = self._seen[-1], self._exposed
        counted = max(s.credits for s in self._seen) + self._sent_credits - last.sent_credits
        return max(counted, exposed + self._sent_credits - sent_then)

    async def _budget_left(self, now: int) -> Decimal | None:
        if self._budget_per_month is None:
            return None
        if self._spent is None or not 0 <= now - self._spent[0] < ASK_MS:
            spent = await self._store.accounts.spent_since(self._account, month_start_ms(now))
            self._spent = (now, spent, self._sent_credits)
        _, spent, sent_then = self._spent
        return self._budget_per_month - spent - (self._sent_credits - sent_then)

    def sent(self, tasks: int, credits: Decimal) -> None:
        """So many tasks, of so many credits by our estimate, are on their way since the last count."""
        self._sent += tasks
        self._sent_credits += credits

    async def _refresh(self, now: int) -> None:
        asks = self._asked_ms is None or not 0 <= now - self._asked_ms < ASK_MS
        if asks:
            self._asked_ms = now
            self._slots = await self._provider.slots() or self._slots
            await self._ask_balance(now)
        count = await self._store.accounts.outstanding(self._account)
        self._seen.append(_Seen(now, count.tasks, count.credits, self._sent, self._sent_credits))
        while not 0 <= now - self._seen[0].at_ms <= max(LAG_MS, RATE_OVER_MS):
            self._seen.popleft()
        if asks:
            self._exposed = (max(s.credits for s in self._seen), self._sent_credits)

    async def _ask_balance(self, now: int) -> None:
        answer = await self._provider.balance(now)
        if answer.balance is not None:
            await self._store.accounts.store_balance(self._account, answer.balance)
            self._last_answer, self._balance, self._silent_since_ms = answer, answer.balance, None
            self._charged_since = Decimal(0)
            return
        if answer.end is BalanceEnd.UNKNOWN and self._last_answer.end is BalanceEnd.ABSENT:
            return
        self._last_answer = answer
        if self._silent_since_ms is None:
            self._silent_since_ms = now
            self._balance = self._balance or await self._store.accounts.last_balance(self._account, now)
        if answer.end is BalanceEnd.UNKNOWN and self._balance is not None:
            # It may have been a minute old when it was reported.
            since_ms = self._balance.at_ms - LAG_MS
            self._charged_since = await self._store.accounts.charged_since(self._account, since_ms)

    def _remaining(self, now: int) -> Decimal | None:
        """What the account has; None: it is not reported, and that is no reason to wait."""
        if self._last_answer.end in (BalanceEnd.ABSENT, BalanceEnd.REFUSED) or not self._is_known(now):
            return None
        return None if self._balance is None else self._balance.remaining - self._charged_since

    def _is_known(self, now: int) -> bool:
        return self._balance is not None and abs(now - self._balance.at_ms) <= self._unknown.age_max_ms

    def _unknown_reason(self, now: int) -> RunReason | None:
        if self._last_answer.end is not BalanceEnd.UNKNOWN or self._is_known(now) or self._unknown.sends:
            return None
        since_ms = self._balance.at_ms if self._balance is not None else self._silent_since_ms or now
        text = f"waiting: balance unknown since {iso_utc(since_ms)} ({self._last_answer.why})"
        return RunReason(ReasonCode.BALANCE_UNKNOWN, text)

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
