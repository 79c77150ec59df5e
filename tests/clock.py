"""A clock that only tests move, and times as they write them."""

import time
from datetime import UTC, datetime

DAY_S = 86_400
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


def wait_out_midnight(before_s: float = 60.0) -> None:
    """Wait until it is past, where this machine's UTC day ends so soon: for what is compared with today."""
    left_s = DAY_S - time.time() % DAY_S
    if left_s < before_s:
        time.sleep(left_s + 0.1)


def unix_ms(iso: str) -> int:
    """UTC milliseconds since 1970 of an ISO time; one without a zone is UTC."""
    moment = datetime.fromisoformat(iso)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
