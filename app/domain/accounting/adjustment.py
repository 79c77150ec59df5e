"""Adjustments: a correction is a new entry with a reason, never an edit. Pure.

The reason begins with the credits in words of its own, so that an amount which is edited later no longer
agrees with its text. Who edits both is not found: nothing else says what was agreed.
"""

import re
from collections.abc import Iterator
from decimal import Decimal

from app.domain.credits import ACCOUNT_CREDITS_MAX, MICRO, CreditsError, to_json_number
from app.domain.verification.comparison import Difference, display
from app.domain.verification.stored_rows import Row

REASON_CHARS_MAX = 500
KINDS = ("allocation", "expiry", "foreign", "adjustment")
"""Of account entries."""
PRESUMED = "presumed"
"""In the reason of an allocation that no balance shows: nobody looked in that cycle."""
_NOTED = re.compile(r"([+-]\d+(?:\.\d+)?) credits: ")


def parse_adjustment(text: str) -> Decimal:
    """Credits that an account gains (a refund) or, negative, loses. Raises CreditsError."""
    try:
        if not text.isascii() or "_" in text:
            raise CreditsError(f"{text!r} is not a number")
        credits = Decimal(text.strip())
        micro = credits * MICRO
        whole = micro == micro.to_integral_value()
    except ArithmeticError as error:
        raise CreditsError(f"{text!r} is not a number") from error
    if not whole or not 0 < abs(credits) <= ACCOUNT_CREDITS_MAX:
        most = ACCOUNT_CREDITS_MAX
        raise CreditsError(f"{text!r} must not be 0, must be below {most}, with six decimals at most")
    return credits


def adjustment_reason(credits: Decimal, reason: str) -> str:
    """The reason as it is stored: `+5 credits: agreed with support`."""
    sign = "+" if credits > 0 else ""
    return f"{sign}{to_json_number(credits)} credits: {reason}"


def noted_credits(stored_reason: str) -> Decimal | None:
    """The credits that a stored reason begins with; None: it was not made by hand."""
    noted = _NOTED.match(stored_reason)
    return None if noted is None else Decimal(noted[1])


def account_entry(entry: Row) -> Iterator[Difference]:
    """What is wrong with an entry of an account. `granted`, of an allocation: a balance shows its credits."""
    key = display(entry["id"])
    if entry["kind"] not in KINDS:
        yield Difference("account_entries", key, "kind", entry["kind"], " or ".join(KINDS), "no such kind")
    if not entry["reason"].strip():
        why = "each entry says why it stands"
        yield Difference("account_entries", key, "reason", "empty", "a reason", why)
    noted = noted_credits(entry["reason"]) if entry["kind"] == "adjustment" else None
    if noted is not None and noted != entry["credits"]:
        why = "its reason says the credits in words of its own"
        yield Difference("account_entries", key, "credits", display(entry["credits"]), display(noted), why)
    if entry["kind"] in ("allocation", "expiry") and entry["cycle_ms"] is None:
        why = "it belongs to one"
        yield Difference("account_entries", key, "cycle_ms", "null", "start of a cycle", why)
    if entry["kind"] == "allocation" and not entry["granted"] and PRESUMED not in entry["reason"]:
        why = "no balance of its cycle told this allocation"
        where = "account_entries", key, "credits"
        yield Difference(*where, display(entry["credits"]), "perCycle of a balance", why)
