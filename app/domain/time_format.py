"""A moment as text. May not read a clock."""

from datetime import UTC, datetime
from typing import overload

FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999


@overload
def iso_utc(at_ms: int) -> str: ...
@overload
def iso_utc(at_ms: None) -> None: ...
@overload
def iso_utc(at_ms: int | None) -> str | None: ...
def iso_utc(at_ms: int | None) -> str | None:
    """UTC milliseconds as ISO 8601 text; None stays null. Its first ten characters are the day. What lies
    before year 1 or after year 9999 is told as the end of that."""
    if at_ms is None:
        return None
    at_ms = min(max(at_ms, FIRST_MS), LAST_MS)
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
