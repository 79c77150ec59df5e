"""Credits that moved at times known only to lie between two: the lowest and highest sums that fit a time.

May not do I/O, read a clock or log. Times are UTC milliseconds, credits Decimal.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate
from typing import NamedTuple

ZERO = Decimal(0)


class Span(NamedTuple):
    """A time somewhere between two, both included."""

    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Movement:
    """Credits that left the balance once, at an unknown time between two; negative ones came back."""

    credits: Decimal
    from_ms: int
    """Of a post: when the attempt was first sent."""
    to_ms: int
    """Of a post: when the report with its charge arrived. Of an open attempt: the present."""


class Movements:
    """Movements in the two orders that bounding their sums needs."""

    def __init__(self, movements: Iterable[Movement]) -> None:
        every = list(movements)
        self._gone = _Ordered([m for m in every if m.credits > 0])
        self._back = _Ordered([m for m in every if m.credits < 0])

    def lowest(self, a: Span, b: Span) -> Decimal:
        """Lowest sum that fits a span from a time in `a` to one in `b`; `a` ends before `b` begins."""
        return self.sure(a, a.end, b.begin) + self._back.possible(a, b)

    def highest(self, a: Span, b: Span) -> Decimal:
        """Highest sum that fits it."""
        return self._gone.possible(a, b) + self._back.sure(a.end, a.end, b.begin)

    def sure(self, since: Span, reported_after: int, reported_until: int) -> Decimal:
        """What went for certain after `since`, by when its end was reported, so that a sum over a long time
        can be carried on from one span to the next; what came back is left out."""
        return self._gone.sure(since.end, reported_after, reported_until)

    def came_back(self, a: Span, b: Span) -> Decimal:
        """Lowest sum, 0 or negative, of what perhaps came back."""
        return self._back.possible(a, b)


class _Ordered:
    """Movements of one sign."""

    def __init__(self, movements: list[Movement]) -> None:
        self._by_end = sorted(movements, key=lambda m: m.to_ms)
        self._ends = [m.to_ms for m in self._by_end]
        self._end_sums = [ZERO, *accumulate(m.credits for m in self._by_end)]
        by_begin = sorted(movements, key=lambda m: m.from_ms)
        self._begins = [m.from_ms for m in by_begin]
        self._begin_sums = [ZERO, *accumulate(m.credits for m in by_begin)]

    def possible(self, a: Span, b: Span) -> Decimal:
        """All that began by the end of `b`, but for what ended by the begin of `a`."""
        begun = self._begin_sums[bisect_right(self._begins, b.end)]
        return begun - self._end_sums[bisect_right(self._ends, a.begin)]

    def sure(self, begun_after: int, ended_after: int, ended_until: int) -> Decimal:
        first, last = bisect_right(self._ends, ended_after), bisect_right(self._ends, ended_until)
        return sum((m.credits for m in self._by_end[first:last] if m.from_ms > begun_after), ZERO)
