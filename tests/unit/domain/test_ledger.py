"""Double entry: whatever is written, the accounts sum to zero, and the balance is what the provider shows."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.double_entry import Account, Entry, Kind, LedgerError, balances, remaining, transfers

A, B = ("task-a", 1), ("task-b", 1)


def entry(kind: Kind, credits: int, attempt: tuple[str, int] | None = None) -> Entry:
    return Entry(kind, Decimal(credits), attempt)


GRANT = entry(Kind.ALLOCATION, 100)
HOLD_A = entry(Kind.HOLD, 5, A)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([GRANT], {Account.PROVIDER: -100, Account.AVAILABLE: 100}),
        ([GRANT, HOLD_A], {Account.PROVIDER: -100, Account.AVAILABLE: 95, Account.HELD: 5}),
        (
            [GRANT, HOLD_A, entry(Kind.POST, 7, A)],
            {Account.PROVIDER: -100, Account.AVAILABLE: 93, Account.SPENT: 7},
        ),
        ([GRANT, HOLD_A, entry(Kind.POST, 0, A)], {Account.PROVIDER: -100, Account.AVAILABLE: 100}),
        ([GRANT, HOLD_A, entry(Kind.VOID, 5, A)], {Account.PROVIDER: -100, Account.AVAILABLE: 100}),
        (
            [GRANT, entry(Kind.EXTERNAL_USAGE, 8), entry(Kind.EXPIRY, 92)],
            {Account.PROVIDER: -100, Account.EXTERNAL: 8, Account.EXPIRED: 92},
        ),
        (
            [GRANT, HOLD_A, entry(Kind.POST, 7, A), entry(Kind.ADJUSTMENT, 2)],
            {Account.PROVIDER: -100, Account.AVAILABLE: 95, Account.SPENT: 7, Account.ADJUSTED: -2},
        ),
        (
            [GRANT, entry(Kind.ADJUSTMENT, -3)],
            {Account.PROVIDER: -100, Account.AVAILABLE: 97, Account.ADJUSTED: 3},
        ),
    ],
)
def test_what_each_entry_moves(entries: list[Entry], expected: dict[Account, int]) -> None:
    found = balances(entries)
    assert {account: credits for account, credits in found.items() if credits} == expected
    assert set(found) == set(Account)
    assert sum(found.values()) == 0


def test_every_kind_has_its_accounts() -> None:
    for kind in Kind:
        moved = transfers(entry(kind, 5, A), held=Decimal(5))
        assert all(one.source is not one.target for one in moved), kind


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([entry(Kind.POST, 5, A)], "post without a hold"),
        ([entry(Kind.VOID, 5, A)], "void without a hold"),
        ([HOLD_A, HOLD_A], "second hold"),
        ([HOLD_A, entry(Kind.POST, 5, A), entry(Kind.POST, 5, A)], "second post beside post"),
        ([HOLD_A, entry(Kind.POST, 5, A), entry(Kind.VOID, 5, A)], "second void beside post"),
        ([HOLD_A, entry(Kind.VOID, 4, A)], "void of 4 for 5 held"),
        ([HOLD_A, entry(Kind.POST, 5, B)], "without a hold"),
        ([entry(Kind.HOLD, 5)], "about no attempt"),
    ],
)
def test_entries_that_are_no_books_are_refused(entries: list[Entry], message: str) -> None:
    with pytest.raises(LedgerError, match=message):
        balances(entries)


def test_a_post_alone_cannot_be_moved() -> None:
    with pytest.raises(LedgerError, match="post of 5 without a hold"):
        transfers(entry(Kind.POST, 5, A))


AMOUNTS = st.decimals(0, 10_000, places=6)
ATTEMPTS = st.lists(st.tuples(AMOUNTS, st.sampled_from([None, Kind.POST, Kind.VOID]), AMOUNTS), max_size=20)
OTHERS = st.lists(
    st.builds(
        Entry, st.sampled_from([Kind.ALLOCATION, Kind.EXPIRY, Kind.EXTERNAL_USAGE, Kind.ADJUSTMENT]), AMOUNTS
    ),
    max_size=10,
)


@given(ATTEMPTS, OTHERS, st.randoms())
def test_the_sum_is_zero_and_the_rest_remains(attempts, others, rng) -> None:  # type: ignore[no-untyped-def]
    entries = list(others)
    spent, held = Decimal(0), Decimal(0)
    for number, (promised, closing, charged) in enumerate(attempts):
        attempt = (f"task-{number}", 1)
        entries.append(Entry(Kind.HOLD, promised, attempt))
        if closing is None:
            held += promised
        else:
            credits = charged if closing is Kind.POST else promised
            spent += charged if closing is Kind.POST else Decimal(0)
            entries.append(Entry(closing, credits, attempt))
    rng.shuffle(entries)
    found = balances(entries)
    assert sum(found.values()) == 0
    assert (found[Account.SPENT], found[Account.HELD]) == (spent, held)
    signs = {Kind.ALLOCATION: 1, Kind.ADJUSTMENT: 1, Kind.EXPIRY: -1, Kind.EXTERNAL_USAGE: -1}
    granted = sum((signs[one.kind] * one.credits for one in others), Decimal(0))
    assert remaining(found) == granted - spent
