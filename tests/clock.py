"""A clock that stands still until a test moves it."""

START_MS = 1_790_812_800_000
"""2026-10-01T00:00:00Z: after the last dated price list."""


class SteppedClock:
    """Satisfies app.ports.Clock: called, it tells UTC milliseconds since 1970."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, ms: float) -> int:
        """Move on by milliseconds; the new time."""
        self.now_ms += int(ms)
        return self.now_ms
