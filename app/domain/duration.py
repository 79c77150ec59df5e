"""Durations as people write them: 90m, 6h, 1d, 2h30m."""

import re

_UNIT_MS = {"w": 7 * 86_400_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000}
_DURATION = re.compile("".join(f"(?:([0-9]+){unit})?" for unit in _UNIT_MS))
DIGITS_MAX = 9
DURATION_MS_MAX = 3_660 * 86_400_000
"""Ten years: what is added to the present stays a moment that has a date."""
REMEDY = "write it like 90m, 6h, 1d or 2h30m: weeks w, days d, hours h, minutes m, seconds s, largest first"


class DurationError(ValueError):
    """A text that is no duration; the text of the error says what is wrong and how to write one."""


def parse_duration(text: str) -> int:
    """Milliseconds of a duration: whole numbers with their units, each unit once, the largest first.

    Raises DurationError; a bare number has no unit and is one of the mistakes, so is 0.
    """
    wanted = text.strip().lower()
    if wanted.isascii() and wanted.isdigit():
        raise DurationError(f"{text!r} has no unit; {REMEDY}")
    found = _DURATION.fullmatch(wanted)
    if found is None or not wanted or any(part and len(part) > DIGITS_MAX for part in found.groups()):
        raise DurationError(f"{text[:40]!r} is not a duration; {REMEDY}")
    total = sum(
        int(part) * unit_ms for part, unit_ms in zip(found.groups(), _UNIT_MS.values(), strict=True) if part
    )
    if total > DURATION_MS_MAX:
        raise DurationError(f"{text[:40]!r} is longer than ten years; {REMEDY}")
    if not total:
        raise DurationError(f"{text!r} is no time at all; {REMEDY}")
    return total


def display_duration(ms: int) -> str:
    """The shortest spelling that parse_duration reads back; what is below a second is left out."""
    parts = []
    for unit, unit_ms in _UNIT_MS.items():
        count, ms = divmod(ms, unit_ms)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
