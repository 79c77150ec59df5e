"""The audit: the provider's own balance, taken regularly, and what it says about our ledger.

What the balance proves is booked (`booking`); what nobody can explain is reported and never booked. Any
number of processes may audit, or one of them twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from app.domain.accounting.balances import LAG_MS, SLACK_MS, Allocation, Balance
from app.domain.accounting.billing import (
    AccountEntry,
    Cycle,
    CyclePosition,
    EntryKind,
    Statement,
    cycles,
    running,
)
from app.domain.accounting.comparable import by_hand_movements, grain, thinned
from app.domain.accounting.drift import Drift
from app.domain.accounting.drift import audit as judge
from app.domain.time_format import DAY_MS
from app.ports import BalanceAnswer, Clock
from app.services.booking import book
from app.services.isolated import Isolated

if TYPE_CHECKING:
    from app.store import Store

RESTS = 100
"""Comparing takes at most one part in so many of a worker's time; the database adds up
100,000 posts of a cycle in about a second."""
IDLE_MS = 6 * 3_600_000
"""Where nothing of ours moves, others may: so often they are looked for."""


class Balances(Protocol):
    """The provider, as far as this needs it."""

    async def balance(self, now_ms: int) -> BalanceAnswer: ...


@dataclass(frozen=True, slots=True)
class Audited:
    """One audit of one account."""

    account: str
    at_ms: int
    balance: Balance | None
    """As the provider just reported it; None: it did not, as in editions without that endpoint (C-B22)."""
    drift: Drift
    position: CyclePosition | None
    """None: no billing cycle is known."""
    booked: Sequence[AccountEntry] = field(default_factory=list)
    """What this audit added to the books."""


async def audit(
    store: "Store", account: str, provider: Balances | None, *, now_ms: int, since_ms: int | None = None
) -> Audited:
    """Take a balance, book what it proves, and judge every change since `since_ms`; None: since the running
    cycle began. Without a provider only what is known already is judged."""
    balance = None if provider is None else await take_balance(store, account, provider, now_ms)
    booked = await book(store, account, now_ms)
    found = await cycle_position(store, account, now_ms)
    if since_ms is None:
        # A day more, for a balance of the cycle before: what its end took and gave is judged too.
        since_ms = 0 if found is None else found.statement.cycle.starts_ms - DAY_MS
    drift = await drift_since(store, account, since_ms, now_ms)
    return Audited(account, now_ms, balance, drift, found, booked)


async def take_balance(store: "Store", account: str, provider: Balances, now_ms: int) -> Balance | None:
    """Ask the provider and keep its answer."""
    balance = (await provider.balance(now_ms)).balance
    if balance is not None:
        await store.accounts.store_balance(account, balance)
    return balance


async def drift_since(store: "Store", account: str, since_ms: int, now_ms: int) -> Drift:
    """Every change of the balance since a time, explained or not."""
    taken = thinned(await store.audits.snapshots(account, since_ms, now_ms))
    first_ms = taken[0].at_ms - LAG_MS if taken else now_ms
    entries = await store.audits.account_entries(account)
    return judge(
        taken,
        await store.charges.post_movements(account, first_ms, now_ms, grain_ms=grain(now_ms - first_ms)),
        open_attempts=await store.charges.open_movements(account, now_ms),
        adjustments=by_hand_movements(entries, first_ms),
        allocations=[
            Allocation(e.cycle_ms, e.credits)
            for e in entries
            if e.kind is EntryKind.ALLOCATION and e.cycle_ms is not None and e.cycle_ms > first_ms
        ],
    )


async def cycle_position(store: "Store", account: str, now_ms: int) -> CyclePosition | None:
    """Where an account stands in its running cycle; None when no cycle is known."""
    cycle = running(cycles(await store.audits.seen_resets(account)), now_ms)
    if cycle is None:
        return None
    return CyclePosition(await statement(store, account, cycle), await store.charges.exposure(account))


async def statement(store: "Store", account: str, cycle: Cycle) -> Statement:
    """The books of one cycle."""
    entries = [e for e in await store.audits.account_entries(account) if e.belongs_to(cycle)]
    closed = any(entry.kind is EntryKind.EXPIRY for entry in entries)
    return Statement(account, cycle, closed, entries, await store.charges.post_lines(account, cycle))


class Audits:
    """Remembers, for one process, when it audited each account."""

    def __init__(
        self, store: "Store", providers: Mapping[str, Balances], *, every_ms: int, clock: Clock
    ) -> None:
        self._store = store
        self._providers = providers
        self._every_ms = every_ms
        self._clock = clock
        self._taken_ms: dict[str, int] = {}
        self._judged_ms: dict[str, int] = {}
        self._rest_until_ms: dict[str, int] = {}
        self._resets_at_ms: dict[str, int | None] = {}

    async def audit_due(self, isolated: Isolated | None = None) -> list[Audited]:
        """Audit the accounts of which something may have changed since the last time. A balance is taken
        each time; where comparing it takes long, because a month was busy, that is done less often. What
        fails for one account is kept in `isolated`, and raised at the end without one."""
        done: list[Audited] = []
        kept = isolated or Isolated()
        for account in await self._store.audits.accounts_with_runs():
            with kept.alone():
                done += await self._audit_if_due(account)
        if isolated is None:
            kept.finish()
        return done

    async def _audit_if_due(self, account: str) -> list[Audited]:
        provider, now = self._providers.get(account), self._clock()
        if provider is None or not await self._is_due(account, now):
            return []
        self._taken_ms[account] = now
        balance = await take_balance(self._store, account, provider, now)
        if balance is not None:
            self._resets_at_ms[account] = balance.resets_at_ms
        if now < self._rest_until_ms.get(account, now):
            return []
        return [await self._judge(account, balance, now)]

    async def _judge(self, account: str, balance: Balance | None, now: int) -> Audited:
        since_ms = min(self._judged_ms.get(account, now), now - IDLE_MS)
        self._judged_ms[account] = now
        booked = await book(self._store, account, now)
        drift = await drift_since(self._store, account, since_ms, now)
        position = await cycle_position(self._store, account, now)
        ended = self._clock()
        self._rest_until_ms[account] = ended + RESTS * (ended - now)
        return Audited(account, now, balance, drift, position, booked)

    async def _is_due(self, account: str, now: int) -> bool:
        last = self._taken_ms.get(account)
        if last is None:
            return True
        if 0 <= now - last < self._every_ms:
            return False
        resets_at_ms = self._resets_at_ms.get(account)
        if now - last >= IDLE_MS or (resets_at_ms is not None and last <= resets_at_ms + LAG_MS <= now):
            return True
        moved_ms = await self._store.audits.last_ledger_ms()
        # Once more after the last movement: what the balance lags behind shows only then.
        lately = moved_ms is not None and moved_ms >= last - LAG_MS - SLACK_MS - self._every_ms
        if lately or self._judged_ms.get(account, 0) < last:
            return True
        return bool((await self._store.accounts.outstanding(account)).tasks)
