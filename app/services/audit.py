"""The audit: the provider's own balance, taken regularly, and what it says about our ledger.

Appends to the books of the account what the balance proves: a cycle's allocation, what expired at its end, a
change of plan, credits that others spent. What it cannot explain it reports and never books. Every step may
be taken by any number of processes, or twice: it writes what is missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from typing import Protocol

from app.domain.balances import HEADER, LAG_MS, SLACK_MS, Allocation, Snapshot
from app.domain.billing import (
    DAY_MS,
    ZERO,
    AccountEntry,
    Cycle,
    EntryKind,
    Exposure,
    PostLine,
    Reason,
    SeenReset,
    Standing,
    Statement,
    cycles,
    expiring,
    plan_change,
    running,
)
from app.domain.drift import Drift
from app.domain.drift import audit as judge
from app.domain.movements import Movement
from app.ports import Balance, Clock, Outstanding

GRAIN_MS = 60_000
"""Posts of the same minute are judged as one; no finer than the lag of what they are compared with."""
SNAPSHOTS_MAX = 200
"""Intervals of one audit. A month of snapshots, one a minute, is told in stretches of some hours."""
LATE_MS = 3 * 86_400_000
"""A closed cycle is looked at again for so long: no report comes later than its task's retention (P1)."""
BY_HAND_MS = 2 * DAY_MS
"""Between a correction that was agreed on and its entry, one way or the other."""
IDLE_MS = 6 * 3_600_000
"""Where nothing of ours moves, others may: so often they are looked for."""


class Balances(Protocol):
    """The provider, as far as this needs it."""

    async def balance(self, now_ms: int) -> Balance | None: ...


class AuditStore(Protocol):
    """What the audit needs of the store."""

    async def store_balance(self, account: str, balance: Balance) -> None: ...

    async def seen_resets(self, account: str) -> list[SeenReset]: ...

    async def snapshots(self, account: str, from_ms: int, to_ms: int) -> list[Snapshot]: ...

    async def account_entries(self, account: str) -> list[AccountEntry]: ...

    async def append_if_first(self, account: str, entry: AccountEntry) -> bool: ...

    async def append_missing(self, account: str, target: AccountEntry) -> Decimal: ...

    async def post_lines(self, account: str, cycle: Cycle) -> list[PostLine]: ...

    async def post_movements(
        self, account: str, from_ms: int, to_ms: int, *, grain_ms: int = ...
    ) -> list[Movement]: ...

    async def open_movements(self, account: str, now_ms: int) -> list[Movement]: ...

    async def exposure(self, account: str) -> Exposure: ...

    async def working_before(self, account: str, at_ms: int) -> int: ...

    async def outstanding(self, account: str) -> Outstanding: ...

    async def accounts_with_runs(self) -> list[str]: ...

    async def last_ledger_ms(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Audited:
    """One audit of one account."""

    account: str
    at_ms: int
    balance: Balance | None
    """As the provider told it just now; None: it did not, as in editions without that endpoint (C-B22)."""
    drift: Drift
    standing: Standing | None
    """None: no billing cycle is known."""
    booked: Sequence[AccountEntry] = field(default_factory=list)
    """What this audit added to the books."""


async def audit(
    store: AuditStore, account: str, provider: Balances | None, *, now_ms: int, since_ms: int | None = None
) -> Audited:
    """Take a balance, book what it proves, and judge every change since `since_ms`; None: since the running
    cycle began. Without a provider only what is known already is judged."""
    balance = None if provider is None else await provider.balance(now_ms)
    if balance is not None:
        await store.store_balance(account, balance)
    booked = await Booking(store, account, now_ms).book()
    found = await standing(store, account, now_ms)
    if since_ms is None:
        # A day more, for a balance of the cycle before: what its end took and gave is judged too.
        since_ms = 0 if found is None else found.statement.cycle.starts_ms - DAY_MS
    drift = await drift_since(store, account, since_ms, now_ms)
    return Audited(account, now_ms, balance, drift, found, booked)


async def drift_since(store: AuditStore, account: str, since_ms: int, now_ms: int) -> Drift:
    """Every change of the balance since a moment, explained or not."""
    taken = thinned(await store.snapshots(account, since_ms, now_ms))
    first_ms = taken[0].at_ms - LAG_MS if taken else now_ms
    entries = await store.account_entries(account)
    return judge(
        taken,
        await store.post_movements(account, first_ms, now_ms, grain_ms=_grain(now_ms - first_ms)),
        open_attempts=await store.open_movements(account, now_ms),
        adjustments=_by_hand(entries, first_ms),
        allocations=[
            Allocation(e.cycle_ms, e.credits)
            for e in entries
            if e.kind is EntryKind.ALLOCATION and e.cycle_ms is not None and e.cycle_ms > first_ms
        ],
    )


async def standing(store: AuditStore, account: str, now_ms: int) -> Standing | None:
    """Where an account stands in its running cycle; None when no cycle is known."""
    cycle = running(cycles(await store.seen_resets(account)), now_ms)
    if cycle is None:
        return None
    return Standing(await statement(store, account, cycle), await store.exposure(account))


async def statement(store: AuditStore, account: str, cycle: Cycle) -> Statement:
    """The books of one cycle."""
    entries = [e for e in await store.account_entries(account) if e.belongs_to(cycle)]
    closed = any(entry.kind is EntryKind.EXPIRY for entry in entries)
    return Statement(account, cycle, closed, entries, await store.post_lines(account, cycle))


class Booking:
    """One pass over the cycles of an account that are not done with."""

    def __init__(self, store: AuditStore, account: str, now_ms: int) -> None:
        self._store = store
        self._account = account
        self._now_ms = now_ms
        self._booked: list[AccountEntry] = []

    async def book(self) -> list[AccountEntry]:
        """Append what is missing; what was."""
        known = cycles(await self._store.seen_resets(self._account))
        done = {
            e.cycle_ms for e in await self._store.account_entries(self._account) if e.kind is EntryKind.EXPIRY
        }
        for n, cycle in enumerate(known):
            if cycle.starts_ms in done and self._now_ms >= cycle.ends_ms + LATE_MS:
                continue
            told = await self._told(cycle, known[n + 1] if n + 1 < len(known) else None)
            await self._grant(cycle, told, known[n - 1] if n else None)
            if n == 0:
                await self._open_books(cycle, told)
            await self._foreign(cycle, told)
            if self._now_ms >= cycle.ends_ms + LAG_MS + SLACK_MS:
                await self._close(cycle)
        return self._booked

    async def _told(self, cycle: Cycle, following: Cycle | None) -> list[Snapshot]:
        """Snapshots that speak of this cycle: by the end that they tell, since clocks may differ."""
        until_ms = min(cycle.ends_ms, self._now_ms)
        taken = await self._store.snapshots(self._account, cycle.starts_ms, until_ms)
        return [
            s
            for s in taken
            if s.per_cycle is not None
            and s.resets_at_ms is not None
            and cycle.ends_ms <= s.resets_at_ms
            and (following is None or s.resets_at_ms < following.ends_ms)
        ]

    async def _grant(self, cycle: Cycle, told: Sequence[Snapshot], before: Cycle | None) -> None:
        """The allocation, and what a change of plan added to it."""
        per_cycle = [s.per_cycle for s in told if s.per_cycle is not None]
        if not per_cycle:
            if before is not None:
                earlier = await statement(self._store, self._account, before)
                note = "presumed as in the cycle before: nobody looked"
                await self._start(cycle, earlier.allocation + _changes(earlier), note)
            return
        await self._start(cycle, per_cycle[0], "credits of the plan")
        granted = (await statement(self._store, self._account, cycle)).allocation
        at_ms = next(s.at_ms for s in told if s.per_cycle == per_cycle[-1])
        note = f"allocation {granted} to {per_cycle[-1]}"
        change = plan_change(granted, per_cycle[-1])
        await self._reach(cycle, EntryKind.ADJUSTMENT, Reason.PLAN_CHANGED, change, at_ms, note)

    async def _start(self, cycle: Cycle, credits: Decimal, note: str) -> None:
        await self._first(cycle, EntryKind.ALLOCATION, Reason.CYCLE_START, credits, cycle.starts_ms, note)

    async def _open_books(self, cycle: Cycle, told: Sequence[Snapshot]) -> None:
        """What the first balance ever seen shows to have happened before there were books."""
        if not told:
            return
        first, grant = told[0], (await statement(self._store, self._account, cycle)).allocation
        found = await self._judged(cycle, grant, first)
        kinds = ((EntryKind.FOREIGN, found.foreign_lowest), (EntryKind.ADJUSTMENT, found.unexplained))
        for kind, credits in kinds:
            note = f"the first balance seen was {first.remaining}"
            await self._reach(cycle, kind, Reason.BEFORE_THE_BOOKS, credits, first.at_ms, note)

    async def _foreign(self, cycle: Cycle, told: Sequence[Snapshot]) -> None:
        """Credits that are gone and were not spent by us, as far as it is certain."""
        last = steady(told)
        if last is None:
            return
        books = await statement(self._store, self._account, cycle)
        by_hand = sum((entry.credits for entry in books.entries if entry.by_hand), ZERO)
        found = await self._judged(cycle, books.allocation + books.adjusted - by_hand, last)
        before = books.total(EntryKind.FOREIGN, Reason.BEFORE_THE_BOOKS)
        booked = books.foreign - before
        # While work is out the balance allows a range. What is booked stays unless it lies outside.
        lowest, highest = (max(ZERO, sum_ - before) for sum_ in (found.foreign_lowest, found.foreign_highest))
        target = min(max(booked, lowest), highest)
        note = f"by the balance of {last.remaining}"
        await self._reach(cycle, EntryKind.FOREIGN, Reason.OTHER_USERS, target, last.at_ms, note)

    async def _judged(self, cycle: Cycle, granted: Decimal, last: Snapshot) -> Drift:
        """The cycle from its start to one balance, as a single interval."""
        start = Snapshot(cycle.starts_ms, granted, last.per_cycle, last.resets_at_ms, HEADER)
        return judge(
            [start, last],
            await self._store.post_movements(
                self._account, cycle.starts_ms, self._now_ms, grain_ms=_grain(last.at_ms - cycle.starts_ms)
            ),
            open_attempts=await self._store.open_movements(self._account, self._now_ms),
            adjustments=_by_hand(await self._store.account_entries(self._account), cycle.starts_ms),
        )

    async def _close(self, cycle: Cycle) -> None:
        """What is left expires; once it has, reports that come late correct it."""
        books = await statement(self._store, self._account, cycle)
        if not books.entries:
            return
        lost = expiring(books)
        if books.closed:
            late = books.total(EntryKind.EXPIRY) - lost
            note = "charged in the cycle, reported after it was closed"
            await self._reach(cycle, EntryKind.ADJUSTMENT, Reason.LATE_REPORT, late, self._now_ms, note)
            return
        if self._now_ms < cycle.ends_ms + LATE_MS / 2 and await self._store.working_before(
            self._account, cycle.ends_ms
        ):
            return  # it may yet turn out to have been charged before the end
        note = f"overage {books.overage}" if books.overage else "unused credits do not roll over"
        await self._first(cycle, EntryKind.EXPIRY, Reason.CYCLE_END, lost, cycle.ends_ms, note)

    async def _first(
        self, cycle: Cycle, kind: EntryKind, cause: Reason, credits: Decimal, at_ms: int, note: str
    ) -> None:
        entry = AccountEntry(at_ms, kind, credits, cycle.starts_ms, f"{cause}: {note}")
        if await self._store.append_if_first(self._account, entry):
            self._booked.append(entry)

    async def _reach(
        self, cycle: Cycle, kind: EntryKind, cause: Reason, credits: Decimal, at_ms: int, note: str
    ) -> None:
        entry = AccountEntry(at_ms, kind, credits, cycle.starts_ms, f"{cause}: {note}")
        missing = await self._store.append_missing(self._account, entry)
        if missing:
            self._booked.append(AccountEntry(at_ms, kind, missing, cycle.starts_ms, entry.reason))


class Audits:
    """Remembers, for one process, when it audited each account."""

    def __init__(
        self, store: AuditStore, providers: Mapping[str, Balances], *, every_ms: int, clock: Clock
    ) -> None:
        self._store = store
        self._providers = providers
        self._every_ms = every_ms
        self._clock = clock
        self._audited_ms: dict[str, int] = {}
        self._resets_at_ms: dict[str, int | None] = {}

    async def audit_due(self) -> list[Audited]:
        """Audit the accounts of which something may have changed since the last time."""
        done = []
        for account in await self._store.accounts_with_runs():
            provider, now = self._providers.get(account), self._clock()
            if provider is None or not await self._is_due(account, now):
                continue
            since_ms = min(self._audited_ms.get(account, now), now - IDLE_MS)
            self._audited_ms[account] = now
            found = await audit(self._store, account, provider, now_ms=now, since_ms=since_ms)
            if found.balance is not None:
                self._resets_at_ms[account] = found.balance.resets_at_ms
            done.append(found)
        return done

    async def _is_due(self, account: str, now: int) -> bool:
        last = self._audited_ms.get(account)
        if last is None:
            return True
        if now - last < self._every_ms:
            return False
        resets_at_ms = self._resets_at_ms.get(account)
        if now - last >= IDLE_MS or (resets_at_ms is not None and last <= resets_at_ms + LAG_MS <= now):
            return True
        moved_ms = await self._store.last_ledger_ms()
        # Once more after the last movement: what the balance lags behind shows only then.
        lately = moved_ms is not None and moved_ms >= last - LAG_MS - SLACK_MS - self._every_ms
        return lately or bool((await self._store.outstanding(account)).tasks)


def steady(told: Sequence[Snapshot]) -> Snapshot | None:
    """The last balance that cannot be older than the change of plan, or of cycle, before it: the same was
    told a whole lag earlier. None: wait."""
    last = told[-1] if told else None
    for earlier in reversed(told):
        if last is None or (earlier.per_cycle, earlier.resets_at_ms) != (last.per_cycle, last.resets_at_ms):
            return None
        if last.at_ms - earlier.at_ms > LAG_MS + SLACK_MS:
            return last
    return None


def thinned(taken: Sequence[Snapshot]) -> list[Snapshot]:
    """At most about SNAPSHOTS_MAX of them, evenly, and each beside a change of plan or cycle."""
    step = -(-len(taken) // SNAPSHOTS_MAX)
    if step <= 1:
        return list(taken)
    kept = set(range(0, len(taken), step)) | {len(taken) - 1}
    known = [n for n, s in enumerate(taken) if s.resets_at_ms is not None]
    for one, other in pairwise(known):
        before, after = taken[one], taken[other]
        if (before.per_cycle, before.resets_at_ms) != (after.per_cycle, after.resets_at_ms):
            kept |= {one, other}
    return [taken[n] for n in sorted(kept)]


def _by_hand(entries: Sequence[AccountEntry], since_ms: int) -> list[Movement]:
    """Corrections that a person agreed on: the provider moves the credits within two days of the entry."""
    return [
        Movement(-e.credits, e.at_ms - BY_HAND_MS, e.at_ms + BY_HAND_MS)
        for e in entries
        if e.by_hand and e.at_ms + BY_HAND_MS >= since_ms
    ]


def _changes(books: Statement) -> Decimal:
    return books.total(EntryKind.ADJUSTMENT, Reason.PLAN_CHANGED)


def _grain(span_ms: int) -> int:
    """Exact over a day, by the minute beyond it."""
    return 1 if span_ms <= IDLE_MS * 4 else GRAIN_MS
