"""The ledger in double entry: every entry moves credits between named accounts, and the sum is always zero.

The stored entries say what happened; which accounts they move is derived here and stored nowhere. A
correction is a new entry with a reason, never an edit. May not do I/O, read a clock or log.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple


class Account(StrEnum):
    """Where credits can be. `available` and `held` together are what the provider shows as remaining (C-E.4:
    it reserves nothing)."""

    PROVIDER = "provider"  # grants; below zero by what it ever granted
    AVAILABLE = "available"
    HELD = "held"  # promised to accepted attempts
    SPENT = "spent"  # charged for our attempts
    EXTERNAL = "external"  # charged for somebody else's
    EXPIRED = "expired"  # unused at the end of a cycle (C-F)
    ADJUSTED = "adjusted"  # the other side of corrections


class Kind(StrEnum):
    """What an entry does. The first three stand in `ledger`, about an attempt; the others in
    `account_entries`."""

    HOLD = "hold"
    POST = "post"
    VOID = "void"
    ALLOCATION = "allocation"
    EXPIRY = "expiry"
    EXTERNAL_USAGE = "foreign"
    ADJUSTMENT = "adjustment"


CLOSING = frozenset({Kind.POST, Kind.VOID})


class LedgerError(ValueError):
    """Entries that cannot be books: a closing without its hold, two holds, two closings."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored entry, of either table."""

    kind: Kind
    credits: Decimal
    """Never negative, but for an adjustment that takes credits away, and external usage that takes an
    earlier one back."""
    attempt: tuple[str, int] | None = None
    """(task id, attempt) of a hold, a post or a void."""


class Transfer(NamedTuple):
    """Credits that go from one account to another."""

    source: Account
    target: Account
    credits: Decimal


_MOVES = {
    Kind.HOLD: (Account.AVAILABLE, Account.HELD),
    Kind.VOID: (Account.HELD, Account.AVAILABLE),
    Kind.ALLOCATION: (Account.PROVIDER, Account.AVAILABLE),
    Kind.EXPIRY: (Account.AVAILABLE, Account.EXPIRED),
    Kind.EXTERNAL_USAGE: (Account.AVAILABLE, Account.EXTERNAL),
    Kind.ADJUSTMENT: (Account.ADJUSTED, Account.AVAILABLE),
}


def transfers(entry: Entry, held: Decimal | None = None) -> tuple[Transfer, ...]:
    """What an entry moves. `held`: for a post, the credits of its hold, which it releases whole before it
    spends what was charged. Raises LedgerError for a post without one."""
    if entry.kind is not Kind.POST:
        source, target = _MOVES[entry.kind]
        return (Transfer(source, target, entry.credits),)
    if held is None:
        raise LedgerError(f"a post of {entry.credits} without a hold: {entry.attempt}")
    return (
        Transfer(Account.HELD, Account.AVAILABLE, held),
        Transfer(Account.AVAILABLE, Account.SPENT, entry.credits),
    )


def balances(entries: Iterable[Entry]) -> Mapping[Account, Decimal]:
    """What every account holds after all entries, in any order; their sum is zero.

    Raises LedgerError where the entries of an attempt are no books: a second hold, a second closing, a
    closing without a hold, or a void of other credits than were held.
    """
    found = dict.fromkeys(Account, Decimal(0))
    every = list(entries)
    holds = _by_attempt(every, frozenset({Kind.HOLD}))
    for attempt, closing in _by_attempt(every, CLOSING).items():
        if attempt not in holds:
            raise LedgerError(f"a {closing.kind} without a hold: {attempt}")
        if closing.kind is Kind.VOID and closing.credits != holds[attempt].credits:
            raise LedgerError(f"a void of {closing.credits} for {holds[attempt].credits} held: {attempt}")
    for entry in every:
        held = holds[entry.attempt].credits if entry.kind is Kind.POST and entry.attempt else None
        for source, target, credits in transfers(entry, held):
            found[source] -= credits
            found[target] += credits
    return found


def remaining(found: Mapping[Account, Decimal]) -> Decimal:
    """What the provider should show as the balance: it reserves nothing, so holds are still there (C-E.4)."""
    return found[Account.AVAILABLE] + found[Account.HELD]


def _by_attempt(entries: Iterable[Entry], kinds: frozenset[Kind]) -> dict[tuple[str, int], Entry]:
    found: dict[tuple[str, int], Entry] = {}
    for entry in entries:
        if entry.kind not in kinds:
            continue
        if entry.attempt is None:
            raise LedgerError(f"a {entry.kind} about no attempt")
        if entry.attempt in found:
            raise LedgerError(f"a second {entry.kind} beside {found[entry.attempt].kind}: {entry.attempt}")
        found[entry.attempt] = entry
    return found
