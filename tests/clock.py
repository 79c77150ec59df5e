"""A clock that only tests move, and times as they write them."""

from datetime import UTC, datetime

START_MS = 1_790_812_800_000
"""2026-10-01T00:00:00Z: after the last dated price list."""


class SteppedClock:
    """Satisfies app.ports.Clock: called, it returns UTC milliseconds since 1970."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, ms: float) -> int:
        """Move on by milliseconds; the new time."""
        self.now_ms += int(ms)
        return self.now_ms


def unix_ms(iso: str) -> int:
    """UTC milliseconds since 1970 of an ISO time; one without a zone is UTC."""
    time = datetime.fromisoformat(iso)
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)
