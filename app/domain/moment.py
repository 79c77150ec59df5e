"""A moment as text. May not read a clock."""

from datetime import UTC, datetime
from typing import overload


@overload
def iso(at_ms: int) -> str: ...
@overload
def iso(at_ms: None) -> None: ...
@overload
def iso(at_ms: int | None) -> str | None: ...
def iso(at_ms: int | None) -> str | None:
    """UTC milliseconds as ISO 8601 text; None stays null. Its first ten characters are the day."""
    if at_ms is None:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
