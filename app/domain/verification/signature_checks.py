"""Which stored signatures still check, when secrets come and go. Pure.

A secret that was rotated is gone at once (P8), and then nobody can check what it signed. So a signature that
no secret we know made counts against its delivery only where those before and after it are valid.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

UNVERIFIED_KEPT_MAX = 10_000
"""Of one account; an entry is some 200 bytes. More than this is a wrong secret, not many altered bodies."""


class SignatureStatus(StrEnum):
    """What checking one stored signature found."""

    VALID = "fits"
    STALE = "stale"  # valid, but not made when the delivery came
    NO_MATCH = "misfit"  # no secret that we know made it
    UNSIGNED = "unsigned"
    NO_SECRET = "no_secret"  # noqa: S105 - the account has none configured
    NOT_SIGNED = "not_signed"  # a poll or a sync answer: our own reading, which nobody signs


_DOUBTFUL = frozenset({SignatureStatus.NO_MATCH, SignatureStatus.UNSIGNED, SignatureStatus.STALE})


@dataclass(frozen=True, slots=True)
class UnverifiedDelivery:
    """A delivery whose signature does not check."""

    delivery_id: str
    received_at_ms: int
    signature_status: SignatureStatus


@dataclass(slots=True)
class SignatureSummary:
    """The deliveries of one account."""

    counts: dict[SignatureStatus, int] = field(default_factory=dict)
    first_ms: int | None = None
    last_ms: int | None = None
    """Reception of the first and the last whose signature is valid."""
    unverified: list[UnverifiedDelivery] = field(default_factory=list)

    def note(self, delivery_id: str, received_at_ms: int, signature_status: SignatureStatus) -> None:
        self.counts[signature_status] = self.counts.get(signature_status, 0) + 1
        if signature_status is SignatureStatus.VALID:
            self._extend_span(received_at_ms, received_at_ms)
        elif signature_status in _DOUBTFUL and len(self.unverified) < UNVERIFIED_KEPT_MAX:
            self.unverified.append(UnverifiedDelivery(delivery_id, received_at_ms, signature_status))

    def add(self, other: "SignatureSummary") -> None:
        """Those of another share of the same account."""
        for signature_status, count in other.counts.items():
            self.counts[signature_status] = self.counts.get(signature_status, 0) + count
        if other.first_ms is not None and other.last_ms is not None:
            self._extend_span(other.first_ms, other.last_ms)
        self.unverified = (self.unverified + other.unverified)[:UNVERIFIED_KEPT_MAX]

    def suspects(self) -> Iterator[UnverifiedDelivery]:
        """Unverified deliveries between valid ones: altered, or signed by a secret in force only then."""
        for delivery in self.unverified:
            between = (
                self.first_ms is not None
                and self.last_ms is not None
                and self.first_ms <= delivery.received_at_ms <= self.last_ms
            )
            if between or delivery.signature_status is SignatureStatus.STALE:
                yield delivery

    def unchecked(self) -> int:
        """Deliveries that nobody can check: their secret is gone, or there never was one."""
        unchecked = (SignatureStatus.NO_MATCH, SignatureStatus.UNSIGNED, SignatureStatus.NO_SECRET)
        suspected = sum(
            1 for delivery in self.suspects() if delivery.signature_status is not SignatureStatus.STALE
        )
        return sum(self.counts.get(v, 0) for v in unchecked) - suspected

    def _extend_span(self, first_ms: int, last_ms: int) -> None:
        self.first_ms = first_ms if self.first_ms is None else min(self.first_ms, first_ms)
        self.last_ms = last_ms if self.last_ms is None else max(self.last_ms, last_ms)
