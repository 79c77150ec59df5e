"""A raw report as it is kept: the bytes of a webhook delivery, or of a poll's answer. Data only."""

from dataclasses import dataclass

from app.domain.settlement import Report, Source


@dataclass(frozen=True, slots=True)
class RawDelivery:
    """What is committed before a 2xx, and what can be verified again later."""

    id: str
    source: Source
    received_at_ms: int
    body: bytes
    webhook_id: str | None = None
    """X-Cloro-Webhook-Id: differs for each attempt, so it names evidence, not the effect (P6)."""
    signed_at: str | None = None
    """X-Cloro-Timestamp, as sent."""
    signature: str | None = None
    """X-Cloro-Signature, as sent."""
    account: str | None = None
    """At whose address it came, and so whose secret vouches for it; None: what we asked for ourselves."""


@dataclass(frozen=True, slots=True)
class ParsedDelivery:
    """A raw report together with what it says."""

    id: str
    source: Source
    received_at_ms: int
    report: Report
    account: str | None = None
    """It may only be about this account's tasks; None: about any."""
