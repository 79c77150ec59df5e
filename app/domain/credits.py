"""Credits as exact numbers, and what reconciling two of them finds (C-E.5).

A missing charge is unknown and never 0; nothing here ever becomes a float.
"""

from decimal import Decimal, InvalidOperation
from enum import StrEnum

from app.domain.verdicts import Verdict

MICRO = 1_000_000
"""The books keep credits as whole millionths: the wire type is a JSON number, not an integer (P10)."""

CHARGE_MAX = 100_000
"""Of one attempt, promised or charged. The dearest task costs 25 (admission), so a larger number is a
malformed report and not a price. Databases add up millionths in 64 bits: 100,000 credits x 10^6 x 9 * 10^7
rows are 9 * 10^18, below 2^63 = 9.2 * 10^18. Ninety million attempts on SQLite, whose sums are no wider,
would be a file of 150 GB; PostgreSQL adds up without a bound."""
ACCOUNT_CREDITS_MAX = 10**9
"""Of one entry of an account: a balance, an allocation, a correction. Balances are not added up; of the
others 9,000 of this size would fit, and a cycle has one of most kinds."""
SHOWN_CHARS_MAX = 40


class ExplanationCode(StrEnum):
    """Why a charge is `explained` although it is not what was promised; kept with its post (C-E.5)."""

    AI_MODE_CLUSTERS = "ai_mode_clusters"  # one credit for each product cluster returned
    PRICE_CHANGE = "price_change"  # the price of a list that came into force in between, clusters included


class CreditsError(ValueError):
    """A credit figure that is neither a number nor absent."""


def parse_credits(value: object, field: str, most: int = CHARGE_MAX) -> Decimal | None:
    """A credit figure off the wire; None when it is missing or null, which means unknown.

    Raises CreditsError, naming `field`, for anything that is not a finite JSON number from 0 to `most`, of at
    most six decimals.
    """
    if value is None:
        return None
    if type(value) is int and 0 <= value <= most:
        return Decimal(value)  # nearly all of them are, and three are read for a task
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise CreditsError(f"{field} must be a number, not {type(value).__name__}")
    try:
        # repr of a float is its shortest exact spelling, so 7.1 stays 7.1.
        amount = value if isinstance(value, Decimal) else Decimal(repr(value))
        micro = amount * MICRO
        if not 0 <= amount <= most or micro != micro.to_integral_value():
            shown = str(amount)[:SHOWN_CHARS_MAX]
            raise CreditsError(
                f"{field} is out of range: {shown} is not 0 to {most} with six decimals at most"
            )
    except InvalidOperation as error:
        raise CreditsError(f"{field} is not a finite number") from error
    return amount


def to_micro(amount: Decimal) -> int:
    """Exact millionths of a credit, as the books hold them."""
    return int(amount * MICRO)


def from_micro(micro: int) -> Decimal:
    """Credits from exact millionths, without an exponent or trailing zeros."""
    whole, rest = divmod(micro, MICRO)
    return Decimal(whole) if not rest else Decimal(micro) / MICRO


def to_json_number(amount: Decimal | None) -> int | str | None:
    """For JSON: an int when whole, otherwise the exact decimal text; None stays null."""
    if amount is None:
        return None
    return int(amount) if amount == amount.to_integral_value() else format(amount.normalize(), "f")


def reconcile(
    *, completed: bool, to_charge: Decimal, charged: Decimal | None, extra_explained: Decimal
) -> Verdict:
    """The verdict on one finished task (the table in docs/architecture.md).

    `extra_explained` is what the contract adds on top of the estimate for this very answer, such as one
    credit for each AI Mode product cluster returned (C-E.2). `charged` None means that nobody reported it.
    """
    if charged is None:
        return Verdict.UNKNOWN
    if not completed:
        return Verdict.FREE_FAILURE if charged == 0 else Verdict.CHARGED_FAILURE
    due = to_charge + extra_explained
    if charged == due:
        return Verdict.EXPLAINED if extra_explained else Verdict.MATCHED
    return Verdict.OVERCHARGED if charged > due else Verdict.UNDERCHARGED
