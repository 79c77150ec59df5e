"""Billing cycles and the statement of one (C-F): when a cycle starts and ends, what it allocates, what was
used of it, what is left. Pure.

The provider reports when the running cycle resets and what a cycle allocates, and nothing else; everything
here is derived from that and from our own entries. May not do I/O, read a clock or log.
"""

import calendar
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from app.domain.time_format import DAY_MS, utc

ZERO = Decimal(0)


class EntryKind(StrEnum):
    """Entries of the account itself, besides the holds, posts and voids of its tasks."""

    ALLOCATION = "allocation"  # what the plan grants at the start of a cycle; one in each
    EXPIRY = "expiry"  # what was left at the end of a cycle and is lost; one in each
    ADJUSTMENT = "adjustment"  # a change of plan, or a correction; its reason says which
    EXTERNAL_USAGE = "foreign"  # charged to the account, but not for a task of ours


class EntryReason(StrEnum):
    """Why an entry of the account was written: the first word of its stored reason. What follows it is for
    people."""

    CYCLE_START = "cycle_start"
    CYCLE_END = "cycle_end"
    PLAN_CHANGED = "plan_changed"
    BEFORE_THE_BOOKS = "before_the_books"
    OTHER_USERS = "other_users"
    LATE_REPORT = "late_report"
    CHARGED_BEFORE_RESET = "charged_before_reset"


@dataclass(frozen=True, slots=True)
class SeenReset:
    """One end of cycle as the provider reported it."""

    resets_at_ms: int
    first_seen_ms: int
    """When it was reported first."""


@dataclass(frozen=True, slots=True)
class Cycle:
    """One billing month, UTC milliseconds; its end belongs to the next one."""

    starts_ms: int
    ends_ms: int

    def holds(self, at_ms: int) -> bool:
        """Whether a time lies in it."""
        return self.starts_ms <= at_ms < self.ends_ms

    def days_left(self, now_ms: int) -> float:
        """Days until its end, to a tenth; 0 after it."""
        return round(max(self.ends_ms - now_ms, 0) / DAY_MS, 1)


@dataclass(frozen=True, slots=True)
class AccountEntry:
    """An entry of the account, as it is stored."""

    at_ms: int
    kind: EntryKind
    credits: Decimal
    """As a rule positive; an adjustment, or external usage that takes an earlier one back, may not be."""
    cycle_ms: int | None
    """Start of the cycle that it belongs to; None: the one that was running."""
    reason: str
    """A Reason, and after a colon what a person should know; or, of a correction made by hand, only that."""

    def belongs_to(self, cycle: Cycle) -> bool:
        """Whether it is an entry of this cycle."""
        return cycle.holds(self.at_ms) if self.cycle_ms is None else self.cycle_ms == cycle.starts_ms

    @property
    def cause(self) -> str:
        """The first word of the reason."""
        return self.reason.partition(":")[0]

    @property
    def by_hand(self) -> bool:
        """A correction that no balance shows and a person agreed on."""
        return self.kind is EntryKind.ADJUSTMENT and self.cause not in tuple(EntryReason)


@dataclass(frozen=True, slots=True)
class PostLine:
    """What one engine cost on one day."""

    day: str
    """ISO date, UTC, of the report that had the charge."""
    task_type: str
    sync: bool
    """Called directly, with the surcharge, and not by the queue."""
    count: int
    credits: Decimal


@dataclass(frozen=True, slots=True)
class Statement:
    """The books of an account over one cycle: allocation + adjusted - used - external usage -
    expired + overage = closing."""

    account: str
    cycle: Cycle
    closed: bool
    """The cycle is over and what it left has expired; before that, closing is what is left so far."""
    entries: Sequence[AccountEntry] = ()
    posts: Sequence[PostLine] = ()

    def total(self, kind: EntryKind, cause: EntryReason | None = None) -> Decimal:
        """Credits of all entries of a kind, or of those with one cause."""
        wanted = (e for e in self.entries if e.kind is kind and cause in (None, e.cause))
        return sum((entry.credits for entry in wanted), ZERO)

    @property
    def allocation(self) -> Decimal:
        """Granted at the start."""
        return self.total(EntryKind.ALLOCATION)

    @property
    def adjusted(self) -> Decimal:
        """Granted or taken since, by changes of plan above all."""
        return self.total(EntryKind.ADJUSTMENT) - self.total(EntryKind.ADJUSTMENT, EntryReason.LATE_REPORT)

    @property
    def used(self) -> Decimal:
        """Charged for our own tasks."""
        return sum((line.credits for line in self.posts), ZERO)

    @property
    def external_usage(self) -> Decimal:
        """Charged for others that use the account."""
        return self.total(EntryKind.EXTERNAL_USAGE)

    @property
    def expired(self) -> Decimal:
        """Lost at the end, less what a late report proved to have been used by then."""
        return self.total(EntryKind.EXPIRY) - self.total(EntryKind.ADJUSTMENT, EntryReason.LATE_REPORT)

    @property
    def remaining(self) -> Decimal:
        """What is left before anything expires; negative once more was used than there was."""
        return self.allocation + self.adjusted - self.used - self.external_usage

    @property
    def overage(self) -> Decimal:
        """Used beyond what there was: billed later under a contract, written off elsewhere (C-F, C-L8)."""
        return max(ZERO, -self.remaining)

    @property
    def closing(self) -> Decimal:
        """What goes on. Nothing rolls over, so it is 0 once the cycle is closed."""
        return self.remaining - self.expired + self.overage


@dataclass(frozen=True, slots=True)
class CreditExposure:
    """Credits that may still be charged for what was accepted."""

    held_tasks: int = 0
    held: Decimal = ZERO
    """Of attempts that the provider is working on."""
    unknown_tasks: int = 0
    unknown: Decimal = ZERO
    """Of attempts that ended, or were given up, without anybody telling their charge."""


@dataclass(frozen=True, slots=True)
class CyclePosition:
    """Where an account stands in its running cycle."""

    statement: Statement
    exposure: CreditExposure = field(default_factory=CreditExposure)

    @property
    def available(self) -> Decimal:
        """What is left when all that may still be charged is charged as held."""
        return self.statement.remaining - self.exposure.held - self.exposure.unknown


def cycles(seen: Iterable[SeenReset]) -> list[Cycle]:
    """Every cycle from the first that was seen to the last, without a gap, oldest first.

    Each end is as the provider reported it. A cycle of which nothing was seen, because nobody looked for a
    month, ends on the day of the month on which its neighbours do (C-F: the same day, clamped in short
    months). A reset that moved although its cycle was not over is a new subscription: the cycle before ends
    where the new one begins.
    """
    found: list[Cycle] = []
    day = 0
    for reset in sorted(seen, key=lambda reset: reset.first_seen_ms):
        ends = reset.resets_at_ms
        if found and ends <= found[-1].ends_ms:
            continue  # an old answer, once more
        starts = months_after(ends, -1, utc(ends).day)
        day = max(day, utc(ends).day)
        if found and reset.first_seen_ms < found[-1].ends_ms:
            day = utc(ends).day
            cut = min(max(starts, found[-1].starts_ms + 1), reset.first_seen_ms)
            found[-1] = Cycle(found[-1].starts_ms, cut)
        while found and _months(found[-1].ends_ms, ends) > 1:
            found.append(Cycle(found[-1].ends_ms, months_after(found[-1].ends_ms, 1, day)))
        found.append(Cycle(found[-1].ends_ms if found else starts, ends))
    return found


def running(known: Sequence[Cycle], now_ms: int) -> Cycle | None:
    """The cycle that `now_ms` lies in, or would if months went on as they did; None when none is known."""
    if not known or now_ms < known[0].starts_ms:
        return None
    inside = next((cycle for cycle in known if cycle.holds(now_ms)), None)
    if inside is not None:
        return inside
    day = max(utc(cycle.ends_ms).day for cycle in known)
    last = known[-1]
    while not last.holds(now_ms):
        last = Cycle(last.ends_ms, months_after(last.ends_ms, 1, day))
    return last


def months_after(at_ms: int, months: int, day: int) -> int:
    """The same time of day on `day` of the month so many months later (negative: earlier), or on the last day
    of a month that is shorter (C-F, C-L31)."""
    at = utc(at_ms)
    years, month = divmod(at.year * 12 + at.month - 1 + months, 12)
    last = calendar.monthrange(years, month + 1)[1]
    moved = at.replace(year=years, month=month + 1, day=min(day, last))
    return round(moved.timestamp() * 1000)


def plan_change(granted: Decimal, per_cycle: Decimal) -> Decimal:
    """The adjustment that makes a cycle's grant the allocation of its plan now; 0 when nothing changed. What
    was used stays used, so that after an upgrade the new allocation less the used is available (C-F). A
    downgrade comes with the next cycle, whose allocation it is."""
    return per_cycle - granted


def expiring(statement: Statement) -> Decimal:
    """What is lost at the end of the cycle: all that is left, never less than nothing (C-F)."""
    return max(ZERO, statement.remaining)


def _months(from_ms: int, to_ms: int) -> int:
    start, end = utc(from_ms), utc(to_ms)
    return (end.year - start.year) * 12 + end.month - start.month
