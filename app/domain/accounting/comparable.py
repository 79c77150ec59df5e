"""What books and balances need before drift can compare them: which balances to believe, how exact times
are. Pure.

May not do I/O, read a clock or log. Times are UTC milliseconds, credits Decimal.
"""

from collections.abc import Sequence
from itertools import pairwise

from app.domain.accounting.balances import LAG_MS, SLACK_MS, Balance
from app.domain.accounting.billing import AccountEntry
from app.domain.accounting.movements import Movement
from app.domain.time_format import DAY_MS

SNAPSHOTS_MAX = 200
"""Intervals of one comparison. A month of snapshots, one a minute, is shown in spans of some hours."""
GRAIN_MS = 60_000
"""Posts of the same minute are judged as one; no finer than the lag of what they are compared with."""
EXACT_MS = DAY_MS
"""Over so short a time they are judged one by one."""
BY_HAND_MS = 2 * DAY_MS
"""Between a correction that was agreed on and its entry, one way or the other."""


def steady(balances: Sequence[Balance]) -> Balance | None:
    """The last balance that cannot be older than the change of plan, or of cycle, before it: the same was
    reported a whole lag earlier. None: wait."""
    last = balances[-1] if balances else None
    for earlier in reversed(balances):
        if last is None or (earlier.per_cycle, earlier.resets_at_ms) != (last.per_cycle, last.resets_at_ms):
            return None
        if last.at_ms - earlier.at_ms > LAG_MS + SLACK_MS:
            return last
    return None


def by_hand_movements(entries: Sequence[AccountEntry], since_ms: int) -> list[Movement]:
    """Corrections that a person agreed on: the provider moves the credits within two days of the entry."""
    return [
        Movement(-e.credits, e.at_ms - BY_HAND_MS, e.at_ms + BY_HAND_MS)
        for e in entries
        if e.by_hand and e.at_ms + BY_HAND_MS >= since_ms
    ]


def grain(span_ms: int) -> int:
    """How exact the times of posts are over so long a span."""
    return 1 if span_ms <= EXACT_MS else GRAIN_MS


def thinned(taken: Sequence[Balance]) -> list[Balance]:
    """At most about SNAPSHOTS_MAX of them, evenly, and each next to a change of plan or cycle."""
    step = -(-len(taken) // SNAPSHOTS_MAX)
    if step <= 1:
        return list(taken)
    kept = set(range(0, len(taken), step)) | {len(taken) - 1}
    known = [n for n, s in enumerate(taken) if s.resets_at_ms is not None]
    for first, second in pairwise(known):
        before, after = taken[first], taken[second]
        if (before.per_cycle, before.resets_at_ms) != (after.per_cycle, after.resets_at_ms):
            kept |= {first, second}
    return [taken[n] for n in sorted(kept)]
