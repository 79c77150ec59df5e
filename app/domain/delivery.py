"""A raw report as it is kept: the bytes of a webhook delivery, or of a poll's answer, and what names it."""

import hashlib
import re

import msgspec

from app.domain.settlement import Report, Source
from app.domain.task import new_id

_ATTEMPT = re.compile(r".*-([1-9])", re.DOTALL)
"""Of a webhook id `<task id>-<attempt>`; the provider makes five (C-I.5)."""


def signed_delivery_id(account: str, webhook_id: str | None, signed_s: int, signature: str) -> str:
    """The id of a delivery that was verified: the same whenever the same delivery comes again, so that the
    key of the table is what keeps one row of it. A UUIDv7 of the time of signing.

    The signature covers time and body, not the webhook id, so whoever has captured
    one delivery may write there what he likes; the body names the task, and only the attempt is read from it:
    ten rows come of one captured delivery at most. `signature` is the hex, with or without its scheme.
    """
    attempt = _ATTEMPT.fullmatch(webhook_id or "")
    named = f"{account}/{attempt[1] if attempt else 0}/{signature.rpartition('=')[2]}"
    digest = hashlib.sha256(named.encode()).digest()
    return new_id(signed_s * 1000, int.from_bytes(digest[:10]))


class RawDelivery(msgspec.Struct, frozen=True, gc=False):
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
    """At whose address it came, and so whose secret verifies it; None: what we asked for ourselves."""


class ParsedDelivery(msgspec.Struct, frozen=True, gc=False):
    """A raw report together with what it says."""

    id: str
    source: Source
    received_at_ms: int
    report: Report
    account: str | None = None
    """It may only be about this account's tasks; None: about any."""
    has_anothers_id: bool = False
    """The provider gave the id that it names to another attempt than its key names."""
