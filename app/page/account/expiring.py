"""Credits that end with the cycle: what is left when all that is queued and scheduled has run. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Planned:
    """A schedule until the end of the cycle."""

    name: str
    slots: int
    per_run: Decimal | None
    """Credits, as its last finished runs cost on the mean; None: it has none yet."""
    runs_measured: int

    @property
    def credits(self) -> Decimal | None:
        return None if self.per_run is None else self.per_run * self.slots


def slots_until(next_at_ms: int, every_ms: int, until_ms: int) -> int:
    """Slots of a schedule that come before a time."""
    return max(0, -(-(until_ms - next_at_ms) // every_ms))


def expiring(available: Decimal, queued: Decimal, planned: Sequence[Planned]) -> Decimal | None:
    """Credits that nothing is going to use; None: the cost of a schedule is not known."""
    costs = [one.credits for one in planned if one.slots]
    known = [cost for cost in costs if cost is not None]
    if len(known) < len(costs):
        return None
    return max(Decimal(0), available - queued - sum(known, Decimal(0)))
