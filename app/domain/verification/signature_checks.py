"""Which stored signatures still vouch for their deliveries, when secrets come and go. Pure.

A secret that was rotated is gone at once (P8), and then nobody can check what it signed. So a signature that
fits no secret we know is held against its delivery only where its neighbours in time, before and after, fit.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

MISFITS_KEPT_MAX = 10_000
"""Of one account; a misfit is some 200 bytes. More than this is a wrong secret, not many altered bodies."""


class Vouched(StrEnum):
    """What checking one stored signature found."""

    FITS = "fits"
    STALE = "stale"  # it fits, and was not made when the delivery came
    MISFIT = "misfit"  # no secret that we know made it
    UNSIGNED = "unsigned"
    NO_SECRET = "no_secret"  # noqa: S105 - the account has none configured
    NOT_SIGNED = "not_signed"  # a poll or a sync answer: our own reading, which nobody signs


_DOUBTED = frozenset({Vouched.MISFIT, Vouched.UNSIGNED, Vouched.STALE})


@dataclass(frozen=True, slots=True)
class Misfit:
    """A delivery that nothing vouches for."""

    delivery_id: str
    received_at_ms: int
    vouched: Vouched


@dataclass(slots=True)
class Witnesses:
    """The deliveries of one account."""

    counts: dict[Vouched, int] = field(default_factory=dict)
    first_ms: int | None = None
    last_ms: int | None = None
    """Reception of the first and the last whose signature fits."""
    misfits: list[Misfit] = field(default_factory=list)

    def note(self, delivery_id: str, received_at_ms: int, vouched: Vouched) -> None:
        self.counts[vouched] = self.counts.get(vouched, 0) + 1
        if vouched is Vouched.FITS:
            self._stretch(received_at_ms, received_at_ms)
        elif vouched in _DOUBTED and len(self.misfits) < MISFITS_KEPT_MAX:
            self.misfits.append(Misfit(delivery_id, received_at_ms, vouched))

    def add(self, other: "Witnesses") -> None:
        """Those of another share of the same account."""
        for vouched, count in other.counts.items():
            self.counts[vouched] = self.counts.get(vouched, 0) + count
        if other.first_ms is not None and other.last_ms is not None:
            self._stretch(other.first_ms, other.last_ms)
        self.misfits = (self.misfits + other.misfits)[:MISFITS_KEPT_MAX]

    def suspects(self) -> Iterator[Misfit]:
        """Misfits between deliveries that fit: altered, or signed by a secret in force between them only."""
        for misfit in self.misfits:
            between = (
                self.first_ms is not None
                and self.last_ms is not None
                and self.first_ms <= misfit.received_at_ms <= self.last_ms
            )
            if between or misfit.vouched is Vouched.STALE:
                yield misfit

    def unchecked(self) -> int:
        """Deliveries that nobody can check: their secret is gone, or there never was one."""
        doubtful = (Vouched.MISFIT, Vouched.UNSIGNED, Vouched.NO_SECRET)
        suspected = sum(1 for misfit in self.suspects() if misfit.vouched is not Vouched.STALE)
        return sum(self.counts.get(v, 0) for v in doubtful) - suspected

    def _stretch(self, first_ms: int, last_ms: int) -> None:
        self.first_ms = first_ms if self.first_ms is None else min(self.first_ms, first_ms)
        self.last_ms = last_ms if self.last_ms is None else max(self.last_ms, last_ms)
