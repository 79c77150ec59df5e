"""What becomes of a message, and of its endpoint, after a post. Pure.

A message has a ladder of its own. An endpoint that takes nothing rests as a whole, so that what waits for it
is not tried, and uses up no try, while it is away.
"""

from dataclasses import dataclass

from app.domain.notices.notice import GONE, Answered
from app.domain.relay.message import EndpointState

LADDER_MS = tuple(round(s * 1000) for s in (5, 30, 2 * 60, 10 * 60, 3_600, 3 * 3_600, 6 * 3_600, 12 * 3_600))
TRIES_MAX = 12
"""The ladder, then every 12 h: 35 to 70 hours. Then a message waits for a person."""
FAILURES_MAX = 5
"""Posts in a row that an endpoint does not take before it rests; one is enough once it has rested."""
WAIT_MAX_MS = 24 * 3_600_000
"""Retry-After is believed up to a day."""
LONGEST_MS = max(WAIT_MAX_MS, *LADDER_MS)
"""A try that is further ahead was dated by a wrong clock."""
BUSY = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Tried:
    """What becomes of a message after a post."""

    is_taken: bool
    wait_ms: int | None = None
    """Until the next try; null: there is none, or it was taken."""
    status: int | None = None
    error: str | None = None


def after_post(answered: Answered, *, tries: int, jitter: float) -> Tried:
    """2xx is taken; anything else, redirects too, is tried again, after the ladder's wait or Retry-After's,
    whichever is longer. `tries` counts this one; `jitter` in [0, 1) spreads the upper half of a wait."""
    status = answered.status
    if status is not None and 200 <= status < 300:
        return Tried(is_taken=True, status=status)
    error = answered.error or f"HTTP {status}"
    if tries >= TRIES_MAX:
        return Tried(is_taken=False, status=status, error=f"{error}; given up after {tries} tries")
    return Tried(
        is_taken=False, wait_ms=max(step_ms(tries, jitter), asked_ms(answered)), status=status, error=error
    )


def step_ms(number: int, jitter: float) -> int:
    """The wait after failure `number`, from 1: half of the step, and up to as much again."""
    return int(LADDER_MS[min(number, len(LADDER_MS)) - 1] * (0.5 + jitter / 2))


def asked_ms(answered: Answered) -> int:
    """What Retry-After asks for, within a day; 0 without one."""
    return min(answered.wait_ms or 0, WAIT_MAX_MS)


class Health:
    """Of one endpoint, while one worker posts to it. Decides when it rests and when it is set aside."""

    def __init__(self, *, rests: int, failing_since_ms: int | None) -> None:
        self.rests = rests
        self.failing_since_ms = failing_since_ms
        self.is_gone = False
        self._in_row = 0
        self._asked_ms = 0

    def note(self, answered: Answered, now_ms: int) -> None:
        """Take in how one post ended."""
        if answered.status is not None and 200 <= answered.status < 300:
            self.rests, self.failing_since_ms, self._in_row = 0, None, 0
            return
        self._in_row += 1
        self.failing_since_ms = now_ms if self.failing_since_ms is None else self.failing_since_ms
        self.is_gone = self.is_gone or answered.status == GONE
        if answered.status in BUSY:
            self._asked_ms = max(self._asked_ms, asked_ms(answered))

    @property
    def is_proven(self) -> bool:
        """It took the last message; otherwise one at a time is posted, to see whether it does."""
        return self.failing_since_ms is None

    @property
    def must_rest(self) -> bool:
        """Nothing more is to be posted for now."""
        enough = self._in_row >= (1 if self.rests else FAILURES_MAX)
        return self.is_gone or bool(self._asked_ms) or enough

    def rest_ms(self, jitter: float) -> int:
        """Count one rest, and say how long it is."""
        self.rests += 1
        asked_ms, self._asked_ms = self._asked_ms, 0
        return max(step_ms(self.rests, jitter), asked_ms)

    def is_set_aside(self, now_ms: int, failing_ms: int) -> bool:
        """It said 410, or has taken nothing for `failing_ms`."""
        since_ms = self.failing_since_ms
        return self.is_gone or (since_ms is not None and now_ms - since_ms >= failing_ms)


@dataclass(frozen=True, slots=True)
class Released:
    """What a worker leaves behind at an endpoint."""

    state: EndpointState
    health: Health
    rest_until_ms: int | None
    """Null: it goes on with what is due."""
    error: str | None
