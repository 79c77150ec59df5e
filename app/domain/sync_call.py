"""Sync calls: one answer now, on one held connection (C-A, C-D, C-E.4). What each end of one means for the
money, and how long to wait for a free slot.
"""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

SLOT_CODES = frozenset({"CONCURRENT_LIMIT_EXCEEDED", "CONCURRENCY_LIMIT_EXCEEDED"})
"""Older and newer name of one condition (C-B4)."""
SLOT_WAIT_FIRST_S = 1.0
SLOT_WAIT_MAX_S = 15.0
RATE_WAIT_S = 1.0
"""The rate window is one second (C-D.1)."""


class SyncEnd(StrEnum):
    """How a sync call ended."""

    ANSWERED = "answered"  # 200 with an answer: billed
    FAILED = "failed"  # the provider tried and says it failed: free, unless it says otherwise
    REFUSED = "refused"  # it did not try, and will not: free
    BUSY = "busy"  # no slot, or too many requests: not tried, free, worth another call
    NOT_SENT = "not_sent"  # no connection came about: free
    LOST = "lost"  # sent, and no answer that can be read: perhaps billed, so never repeated by itself


@dataclass(frozen=True, slots=True)
class SyncAnswer:
    """The end of one sync call, whatever edition answered it."""

    end: SyncEnd
    http_status: int | None = None
    """None: no response."""
    result: bytes = b"null"
    """The raw JSON of the answer, unwrapped; only when ANSWERED."""
    charged: Decimal | None = None
    """X-Credits-Charged; None when it was absent or no number: unknown, never 0."""
    remaining: Decimal | None = None
    """X-Credits-Remaining: what the account had left after this call, and not a minute old (C-E.6)."""
    code: str | None = None
    message: str | None = None
    wait_s: float | None = None
    """What the provider asked us to wait."""
    slots: int | None = None
    """Calls that may run at once (X-Concurrent*-Limit of either spelling); None: not reported."""
    slots_used: int | None = None
    """Of those, in use, this call included."""
    request_id: str | None = None


def end_of(status: int, code: str | None, *, enveloped: bool, slots_left: int | None) -> SyncEnd:
    """The meaning of an answer that is not 2xx.

    `enveloped`: the body is the provider's own error. Anything else, whatever its status, is a gateway's:
    whether the call was made behind it, nobody can say. The provider's word is that errors are free (C-E.4).
    """
    if status in (409, 429) and slots_left == 0:
        return SyncEnd.BUSY  # in its own headers, whatever the body is
    if not enveloped:
        return SyncEnd.LOST
    if status == 429 or code in SLOT_CODES:
        return SyncEnd.BUSY
    if status in (408, 499):
        # The attempt that was running is not stopped and may be billed when it completes (C-B45).
        return SyncEnd.LOST
    if 400 <= status < 500:
        return SyncEnd.REFUSED
    return SyncEnd.FAILED


def busy_wait_s(calls: int, jitter: float, answer: SyncAnswer) -> float:
    """Seconds until call number `calls + 1`: longer and longer for a slot, a second for the rate limit.
    `jitter` is in [0, 1); what the provider asked for is a floor."""
    for_slot = answer.code in SLOT_CODES or answer.slots_used is not None
    ceiling = min(SLOT_WAIT_FIRST_S * 2.0 ** min(calls - 1, 10), SLOT_WAIT_MAX_S) if for_slot else RATE_WAIT_S
    own = ceiling * (0.5 + jitter / 2)
    return own if answer.wait_s is None else max(own, answer.wait_s + own * 0.1)
