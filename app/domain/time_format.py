"""UTC milliseconds as days and as ISO text, and back. May not read a clock."""

from datetime import UTC, datetime
from typing import overload

DAY_MS = 86_400_000
FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999


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
    return round(datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).timestamp() * 1000)


def utc(at_ms: int) -> datetime:
    """UTC milliseconds as a datetime of UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC)
