"""How figures are written on the page: exact numbers, shares, spans of time. Pure; text only, no markup."""

from decimal import Decimal

Number = int | Decimal
NO_BREAK = "\N{NO-BREAK SPACE}"
SHARE_MIN, SHARE_MAX = Decimal("0.1"), Decimal("99.9")
"""Percent. What is less, or more and not all, is written so: a share of 0 % is none, one of 100 % is all."""


def figure(value: Number) -> str:
    """A number for people: exact, in groups of three."""
    return f"{value:,f}" if isinstance(value, Decimal) else f"{value:,}"


def share(part: Number, whole: Number) -> str:
    """A share in percent, with one decimal; empty where there is no whole."""
    if whole <= 0:
        return ""
    percent = Decimal(part) * 100 / Decimal(whole)
    if 0 < percent < SHARE_MIN:
        shown = f"<{SHARE_MIN}"
    elif SHARE_MAX < percent < 100:
        shown = f">{SHARE_MAX}"
    else:
        shown = f"{percent:.1f}".removesuffix(".0")
    return f"{shown}{NO_BREAK}%"


def amount(credits: int | str | None) -> Decimal | None:
    """Credits of a document, exact; None: unknown."""
    return None if credits is None else Decimal(credits)


def second(iso: str | None) -> str:
    """A time to the second."""
    return (iso or "")[:19].replace("T", " ")


def duration(ms: int | None) -> str:
    """A duration, with one decimal; empty where there is none."""
    if ms is None:
        return ""
    unit, size_ms = next((u, size) for u, size in _UNITS if ms >= 2 * size or size == _UNITS[-1][1])
    return f"{ms / size_ms:,.1f}{NO_BREAK}{unit}"


_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000))


def span(ms: int) -> str:
    """A whole duration in its largest unit."""
    whole = ms // 1000
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if whole % size == 0:
            return f"{whole // size}{NO_BREAK}{unit}"
    return f"{whole}{NO_BREAK}s"
