"""Booking: appends to the books of an account what its balances prove, cycle by cycle.

A cycle's allocation, a change of plan, credits that others spent, what expired. What a balance does not prove
is not booked here, and nothing that stands is changed: each step writes what is missing, so it may be taken
twice.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from app.domain.accounting.balances import HEADER, LAG_MS, SLACK_MS, Balance
from app.domain.accounting.billing import (
    ZERO,
    AccountEntry,
    Cycle,
    EntryKind,
    EntryReason,
    PostLine,
    Statement,
    cycles,
    expiring,
    plan_change,
)
from app.domain.accounting.comparable import EXACT_MS, by_hand_movements, grain, steady
from app.domain.accounting.drift import Drift
from app.domain.accounting.drift import audit as judge
from app.domain.accounting.movements import Movement
from app.domain.time_format import DAY_MS

if TYPE_CHECKING:
    from app.store import Store

LATE_MS = 3 * DAY_MS
"""A closed cycle is looked at again for so long: no report comes later than its task's retention (P1)."""
CLOSE_MS = DAY_MS + DAY_MS // 2
"""So long after its end a cycle waits for work that was begun in it; the provider has forgotten it then."""
EDGE_MS = 600_000
"""So long it waits where posts lie on its end: the next cycle's balances show on which side they were."""


async def book(store: "Store", account: str, now_ms: int) -> list[AccountEntry]:
    """One pass over the cycles of an account that are not done with; what it appended."""
    known = cycles(await store.audits.seen_resets(account))
    entries = await store.audits.account_entries(account)
    booked: list[AccountEntry] = []
    for n, cycle in enumerate(known):
        done = any(e.kind is EntryKind.EXPIRY and e.belongs_to(cycle) for e in entries)
        if done and now_ms >= cycle.ends_ms + LATE_MS:
            continue
        before, after = (known[n - 1] if n else None), (known[n + 1] if n + 1 < len(known) else None)
        booking = _CycleBooking(store, account, now_ms, cycle, [*entries, *booked])
        booked += await booking.book(before, after)
    return booked


class _CycleBooking:
    """One pass over one cycle. Its posts are read once: a month of them may be long."""

    def __init__(
        self, store: "Store", account: str, now_ms: int, cycle: Cycle, entries: Sequence[AccountEntry]
    ) -> None:
        self._store = store
        self._account = account
        self._now_ms = now_ms
        self._cycle = cycle
        self._known = list(entries)
        self._posts: Sequence[PostLine] = ()
        self._movements: tuple[list[Movement], list[Movement]] | None = None
        self._booked: list[AccountEntry] = []

    async def book(self, before: Cycle | None, after: Cycle | None) -> list[AccountEntry]:
        self._posts = await self._store.charges.post_lines(self._account, self._cycle)
        snapshots = await self._snapshots(after)
        await self._grant(snapshots, before)
        if before is None and snapshots and self._now_ms < snapshots[0].at_ms + LATE_MS:
            await self._open_books(snapshots[0])
        last = steady(snapshots)
        if last is not None:
            if before is not None and last.remaining and self._now_ms < self._cycle.starts_ms + EXACT_MS:
                await self._carry_back(before, last)
            await self._book_external_usage(last)
        if self._now_ms >= self._cycle.ends_ms + LAG_MS + SLACK_MS:
            await self._close()
        return self._booked

    def _books(self, cycle: Cycle | None = None) -> Statement:
        chosen = cycle or self._cycle
        entries = [e for e in [*self._known, *self._booked] if e.belongs_to(chosen)]
        closed = any(entry.kind is EntryKind.EXPIRY for entry in entries)
        return Statement(self._account, chosen, closed, entries, self._posts)

    async def _snapshots(self, after: Cycle | None) -> list[Balance]:
        """Snapshots that speak of this cycle: by the end that they report, since clocks may differ."""
        cycle, until_ms = self._cycle, min(self._cycle.ends_ms, self._now_ms)
        taken = await self._store.audits.plan_snapshots(self._account, cycle.starts_ms, until_ms)
        return [
            s
            for s in taken
            if s.resets_at_ms is not None
            and cycle.ends_ms <= s.resets_at_ms
            and (after is None or s.resets_at_ms < after.ends_ms)
        ]

    async def _grant(self, snapshots: Sequence[Balance], before: Cycle | None) -> None:
        """The allocation, and what a change of plan added to it."""
        per_cycle = [s.per_cycle for s in snapshots if s.per_cycle is not None]
        if not per_cycle:
            if before is not None:
                earlier = self._books(before)
                plan = earlier.allocation + earlier.total(EntryKind.ADJUSTMENT, EntryReason.PLAN_CHANGED)
                await self._start(plan, "presumed as in the cycle before: nobody looked")
            return
        await self._start(per_cycle[0], "credits of the plan")
        granted = self._books().allocation
        at_ms = next(s.at_ms for s in snapshots if s.per_cycle == per_cycle[-1])
        note = f"allocation {granted} to {per_cycle[-1]}"
        change = plan_change(granted, per_cycle[-1])
        await self._reach(EntryKind.ADJUSTMENT, EntryReason.PLAN_CHANGED, change, at_ms, note)

    async def _start(self, credits: Decimal, note: str) -> None:
        await self._first(EntryKind.ALLOCATION, EntryReason.CYCLE_START, credits, self._cycle.starts_ms, note)

    async def _open_books(self, first: Balance) -> None:
        """What the first balance ever seen shows to have happened before there were books."""
        found = await self._judged(self._books().allocation, first)
        extra = found.unexplained if first.remaining else ZERO
        for kind, credits in (
            (EntryKind.EXTERNAL_USAGE, found.external_lowest),
            (EntryKind.ADJUSTMENT, extra),
        ):
            note = f"the first balance seen was {first.remaining}"
            await self._reach(kind, EntryReason.BEFORE_THE_BOOKS, credits, first.at_ms, note)

    async def _book_external_usage(self, last: Balance) -> None:
        """Credits that are gone and were not spent by us, as far as it is certain."""
        books = self._books()
        found = await self._judged(self._granted(), last)
        before = books.total(EntryKind.EXTERNAL_USAGE, EntryReason.BEFORE_THE_BOOKS)
        # While work is out the balance allows a range. What is booked stays unless it lies outside.
        target = max(books.external_usage - before, found.external_lowest - before)
        if last.remaining:
            # A balance of 0 hides what was overdrawn, and with it how much.
            target = min(target, max(ZERO, found.external_highest - before))
        note = f"by the balance of {last.remaining}"
        await self._reach(EntryKind.EXTERNAL_USAGE, EntryReason.OTHER_USERS, target, last.at_ms, note)

    async def _carry_back(self, before: Cycle, last: Balance) -> None:
        """Posts that were begun before the reset and reported after it are in this cycle. If all had been
        charged in it, so much less would be left: what is left all the same was charged before."""
        start_ms, books = self._cycle.starts_ms, self._books()
        posts, _ = await self._moved()
        if not any(post.from_ms < start_ms for post in posts):
            return
        pinned = [
            Movement(
                p.credits, max(p.from_ms, start_ms + SLACK_MS + 1), max(p.to_ms, start_ms + SLACK_MS + 1)
            )
            for p in posts
        ]
        booked = books.total(EntryKind.ADJUSTMENT, EntryReason.CHARGED_BEFORE_RESET)
        found = await self._judged(self._granted() - booked, last, pinned)
        credits = max(booked, found.unexplained)
        cause, note = EntryReason.CHARGED_BEFORE_RESET, "work begun in one cycle and reported in the next"
        await self._reach(EntryKind.ADJUSTMENT, cause, credits, start_ms, note)
        await self._reach(EntryKind.ADJUSTMENT, cause, -credits, before.ends_ms, note, cycle=before)

    def _granted(self) -> Decimal:
        """Allocation and adjustments, but for those that move the balance at a time of their own."""
        books = self._books()
        by_hand = sum((entry.credits for entry in books.entries if entry.by_hand), ZERO)
        return books.allocation + books.adjusted - by_hand

    async def _moved(self) -> tuple[list[Movement], list[Movement]]:
        """Posts that may be of this cycle, and open attempts."""
        if self._movements is None:
            start_ms = self._cycle.starts_ms
            grain_ms = grain(self._now_ms - start_ms)
            self._movements = (
                await self._store.charges.post_movements(
                    self._account, start_ms, self._now_ms, grain_ms=grain_ms
                ),
                await self._store.charges.open_movements(self._account, self._now_ms),
            )
        return self._movements

    async def _judged(
        self, granted: Decimal, last: Balance, pinned: Sequence[Movement] | None = None
    ) -> Drift:
        """The cycle from its start to one balance, as a single interval. `pinned`: its posts, if their times
        are to be others than are known."""
        posts, open_attempts = await self._moved()
        start_ms = self._cycle.starts_ms
        start = Balance(start_ms, granted, last.per_cycle, last.resets_at_ms, HEADER)
        adjustments = by_hand_movements(self._known, start_ms)
        return judge(
            [start, last],
            posts if pinned is None else pinned,
            open_attempts=open_attempts,
            adjustments=adjustments,
        )

    async def _close(self) -> None:
        """What is left expires; once it has, reports that come late correct it."""
        books, ends_ms = self._books(), self._cycle.ends_ms
        if not books.entries:
            return
        lost = expiring(books)
        if books.closed:
            late = books.total(EntryKind.EXPIRY) - lost
            note = "charged in the cycle, reported after it was closed"
            await self._reach(EntryKind.ADJUSTMENT, EntryReason.LATE_REPORT, late, self._now_ms, note)
        elif self._now_ms >= ends_ms + CLOSE_MS or not await self._is_unsettled():
            note = f"overage {books.overage}" if books.overage else "unused credits do not roll over"
            await self._first(EntryKind.EXPIRY, EntryReason.CYCLE_END, lost, ends_ms, note)

    async def _is_unsettled(self) -> bool:
        """Whether what was spent by the cycle's end may yet turn out to be more, or less."""
        ends_ms = self._cycle.ends_ms
        if await self._store.charges.working_before(self._account, ends_ms):
            return True
        soon = self._now_ms < ends_ms + EDGE_MS
        return soon and bool(await self._store.charges.post_movements(self._account, ends_ms, ends_ms))

    async def _first(
        self, kind: EntryKind, cause: EntryReason, credits: Decimal, at_ms: int, note: str
    ) -> None:
        if any(entry.kind is kind for entry in self._books().entries):
            return
        entry = AccountEntry(at_ms, kind, credits, self._cycle.starts_ms, f"{cause}: {note}")
        if await self._store.audits.append_if_first(self._account, entry):
            self._booked.append(entry)

    async def _reach(
        self,
        kind: EntryKind,
        cause: EntryReason,
        credits: Decimal,
        at_ms: int,
        note: str,
        *,
        cycle: Cycle | None = None,
    ) -> None:
        if self._books(cycle).total(kind, cause) == credits:
            return
        cycle_ms, reason = (cycle or self._cycle).starts_ms, f"{cause}: {note}"
        target = AccountEntry(at_ms, kind, credits, cycle_ms, reason)
        missing = await self._store.audits.append_missing(self._account, target)
        if missing:
            self._booked.append(AccountEntry(at_ms, kind, missing, cycle_ms, reason))
