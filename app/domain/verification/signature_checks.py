"""Which stored signatures still vouch for their deliveries, when secrets come and go. Pure.

A secret that was rotated is gone at once (P8), and then nobody can check what it signed. So a signature that
fits no secret we know is held against its delivery only where its neighbours in time, before and after, fit.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

UNVERIFIED_KEPT_MAX = 10_000
"""Of one account; a misfit is some 200 bytes. More than this is a wrong secret, not many altered bodies."""


class SignatureStatus(StrEnum):
    """What checking one stored signature found."""

    FITS = "fits"
    STALE = "stale"  # it fits, and was not made when the delivery came
    MISFIT = "misfit"  # no secret that we know made it
    UNSIGNED = "unsigned"
    NO_SECRET = "no_secret"  # noqa: S105 - the account has none configured
    NOT_SIGNED = "not_signed"  # a poll or a sync answer: our own reading, which nobody signs


_DOUBTFUL = frozenset({SignatureStatus.MISFIT, SignatureStatus.UNSIGNED, SignatureStatus.STALE})


@dataclass(frozen=True, slots=True)
class UnverifiedDelivery:
    """A delivery that nothing vouches for."""

    delivery_id: str
    received_at_ms: int
    signature_status: SignatureStatus


@dataclass(slots=True)
class SignatureSummary:
    """The deliveries of one account."""

    counts: dict[SignatureStatus, int] = field(default_factory=dict)
    first_ms: int | None = None
    last_ms: int | None = None
    """Reception of the first and the last whose signature fits."""
    unverified: list[UnverifiedDelivery] = field(default_factory=list)

    def note(self, delivery_id: str, received_at_ms: int, signature_status: SignatureStatus) -> None:
        self.counts[signature_status] = self.counts.get(signature_status, 0) + 1
        if signature_status is SignatureStatus.FITS:
            self._stretch(received_at_ms, received_at_ms)
        elif signature_status in _DOUBTFUL and len(self.unverified) < UNVERIFIED_KEPT_MAX:
            self.unverified.append(UnverifiedDelivery(delivery_id, received_at_ms, signature_status))

    def add(self, other: "SignatureSummary") -> None:
        """Those of another share of the same account."""
        for signature_status, count in other.counts.items():
            self.counts[signature_status] = self.counts.get(signature_status, 0) + count
        if other.first_ms is not None and other.last_ms is not None:
            self._stretch(other.first_ms, other.last_ms)
        self.unverified = (self.unverified + other.unverified)[:UNVERIFIED_KEPT_MAX]

    def suspects(self) -> Iterator[UnverifiedDelivery]:
        """Misfits between deliveries that fit: altered, or signed by a secret in force between them only."""
        for misfit in self.unverified:
            between = (
                self.first_ms is not None
                and self.last_ms is not None
                and self.first_ms <= misfit.received_at_ms <= self.last_ms
            )
            if between or misfit.signature_status is SignatureStatus.STALE:
                yield misfit

    def unchecked(self) -> int:
        """Deliveries that nobody can check: their secret is gone, or there never was one."""
        doubtful = (SignatureStatus.MISFIT, SignatureStatus.UNSIGNED, SignatureStatus.NO_SECRET)
        suspected = sum(
            1 for misfit in self.suspects() if misfit.signature_status is not SignatureStatus.STALE
        )
        return sum(self.counts.get(v, 0) for v in doubtful) - suspected

    def _stretch(self, first_ms: int, last_ms: int) -> None:
        self.first_ms = first_ms if self.first_ms is None else min(self.first_ms, first_ms)
        self.last_ms = last_ms if self.last_ms is None else max(self.last_ms, last_ms)
