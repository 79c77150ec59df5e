"""Times as days and as ISO text, durations as people write them: 90m, 6h, 1d, 2h30m. May not read a clock."""

import re
from datetime import UTC, datetime
from typing import overload

DAY_MS = 86_400_000
FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999
_UNIT_MS = {"w": 7 * DAY_MS, "d": DAY_MS, "h": 3_600_000, "m": 60_000, "s": 1_000}
_DURATION = re.compile("".join(f"(?:([0-9]+){unit})?" for unit in _UNIT_MS))
DIGITS_MAX = 9
DURATION_MS_MAX = 3_660 * DAY_MS
"""Ten years: what is added to the present stays a time that has a date."""
REMEDY = "write it like 90m, 6h, 1d or 2h30m: weeks w, days d, hours h, minutes m, seconds s, largest first"


@overload
def iso_utc(at_ms: int) -> str: ...
@overload
def iso_utc(at_ms: None) -> None: ...
@overload
def iso_utc(at_ms: int | None) -> str | None: ...
def iso_utc(at_ms: int | None) -> str | None:
    """UTC milliseconds as ISO 8601 text; None stays null. Its first ten characters are the day. What lies
    before year 1 or after year 9999 is given as the end of that."""
    if at_ms is None:
        return None
    at_ms = min(max(at_ms, FIRST_MS), LAST_MS)
    return utc(at_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def iso_day(at_ms: int) -> str:
    """The UTC day of a time, as ISO text."""
    return utc(at_ms).date().isoformat()


def day_start_ms(day: str) -> int:
    """When a day written as 2026-11-21 begins. Raises ValueError for a text that is no day."""
    if not day.isascii():
        raise ValueError("digits of another script")
    return round(datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).timestamp() * 1000)


def utc(at_ms: int) -> datetime:
    """UTC milliseconds as a datetime of UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC)


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
