"""Credits stay exact, and a missing charge stays unknown."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.credits import (
    CHARGE_MAX,
    CreditsError,
    from_micro,
    parse_credits,
    reconcile,
    to_json_number,
    to_micro,
)
from app.domain.verdicts import Verdict

AMOUNTS = st.integers(0, CHARGE_MAX * 1_000_000).map(from_micro)


@pytest.mark.parametrize(
    ("value", "amount"),
    [
        (5, "5"),
        (0, "0"),
        (7.1, "7.1"),
        (0.000001, "0.000001"),
        (5.0, "5"),
        (Decimal("2.5"), "2.5"),
        (4_000, "4000"),
    ],
)
def test_a_number_off_the_wire_keeps_its_spelling(value: object, amount: str) -> None:
    assert parse_credits(value, "creditsCharged") == Decimal(amount)


def test_missing_is_unknown_and_never_zero() -> None:
    assert parse_credits(None, "creditsCharged") is None


@pytest.mark.parametrize(
    "value",
    [
        "5",
        True,
        False,
        [],
        {},
        -1,
        -0.5,
        0.0000001,
        float("nan"),
        float("inf"),
        float("-inf"),
        100_000.000001,
        10**12,
        Decimal("1e5000"),
        1e300,
        b"5",
    ],
)
def test_anything_else_is_an_error_that_names_the_field(value: object) -> None:
    with pytest.raises(CreditsError, match="creditsToCharge"):
        parse_credits(value, "creditsToCharge")


@given(AMOUNTS)
def test_the_books_give_back_what_was_put_in(amount: Decimal) -> None:
    assert from_micro(to_micro(amount)) == amount
    assert parse_credits(amount, "x") == amount


@given(st.lists(AMOUNTS, max_size=20))
def test_sums_of_millionths_are_exact(amounts: list[Decimal]) -> None:
    assert from_micro(sum(map(to_micro, amounts))) == sum(amounts, Decimal(0))


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (None, None),
        (Decimal(5), 5),
        (Decimal("5.0"), 5),
        (Decimal("7.10"), "7.1"),
        (Decimal("1E3"), 1000),
        (Decimal("0.000001"), "0.000001"),
    ],
)
def test_figures_for_json(amount: Decimal | None, shown: object) -> None:
    assert to_json_number(amount) == shown
    assert type(to_json_number(amount)) is type(shown)


@pytest.mark.parametrize(
    ("completed", "to_charge", "charged", "extra", "verdict"),
    [
        (True, 5, 5, 0, Verdict.MATCHED),
        (True, 0, 0, 0, Verdict.MATCHED),
        (True, 4, 7, 3, Verdict.EXPLAINED),
        (True, 4, 4, 3, Verdict.UNDERCHARGED),
        (True, 4, 8, 3, Verdict.OVERCHARGED),
        (True, 5, 6, 0, Verdict.OVERCHARGED),
        (True, 5, 4, 0, Verdict.UNDERCHARGED),
        (True, 5, 0, 0, Verdict.UNDERCHARGED),
        (True, 5, None, 0, Verdict.UNKNOWN),
        (False, 5, 0, 0, Verdict.FREE_FAILURE),
        (False, 5, 5, 0, Verdict.CHARGED_FAILURE),
        (False, 5, 1, 0, Verdict.CHARGED_FAILURE),
        (False, 5, None, 0, Verdict.UNKNOWN),
        (False, 0, 0, 0, Verdict.FREE_FAILURE),
    ],
)
def test_the_table_of_verdicts(
    completed: bool, to_charge: int, charged: int | None, extra: int, verdict: Verdict
) -> None:
    found = reconcile(
        completed=completed,
        to_charge=Decimal(to_charge),
        charged=None if charged is None else Decimal(charged),
        extra_explained=Decimal(extra),
    )
    assert found is verdict


def test_a_difference_of_a_millionth_is_seen() -> None:
    found = reconcile(
        completed=True, to_charge=Decimal(5), charged=Decimal("5.000001"), extra_explained=Decimal(0)
    )
    assert found is Verdict.OVERCHARGED


def test_what_may_be_charged_adds_up_in_64_bits() -> None:
    """Of more attempts than any store of ours holds."""
    assert to_micro(Decimal(CHARGE_MAX)) * 9 * 10**7 < 2**63
    with pytest.raises(CreditsError, match=r"creditsCharged is out of range: 100001 is not 0 to 100000"):
        parse_credits(100_001, "creditsCharged")
