"""What a delivery says outside of its body, what verifying it found, and what is stored of it.
Reads and writes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import msgspec

from app.domain.delivery import RawDelivery, signed_delivery_id
from app.domain.settlement import Source
from app.domain.task import new_id
from app.domain.text import printable_ascii
from app.provider.signature import Refused, Verified
from app.provider.wire import decode

HEADER_CHARS_MAX = 200
"""A webhook id has 38 characters, a signature 67."""

# Raw values are skipped over, not built: an 18 KB answer costs a dict of three entries and 8 µs.
_json_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class SignatureHeaders:
    """The headers of a delivery that matter, as they came."""

    webhook_id: str | None
    timestamp: str | None
    signature: str | None

    @classmethod
    def among(cls, headers: Mapping[str, str]) -> "SignatureHeaders":
        return cls(
            headers.get("X-Cloro-Webhook-Id"),
            headers.get("X-Cloro-Timestamp"),
            headers.get("X-Cloro-Signature"),
        )

    @property
    def is_unsigned(self) -> bool:
        return self.timestamp is None and self.signature is None


class WithoutSignature(Enum):
    """What became of a body, but for the outcomes of a signature check."""

    ALLOWED = "allowed"
    """No signature is needed."""
    MALFORMED = "malformed"
    """It is no JSON object."""


Outcome = Verified | Refused | WithoutSignature


def delivery_of(
    account: str, headers: SignatureHeaders, body: bytes, now_ms: int, outcome: Verified | WithoutSignature
) -> RawDelivery:
    """What is stored of a delivery that may be stored."""
    if isinstance(outcome, Verified) and headers.signature is not None:
        delivery_id = signed_delivery_id(account, headers.webhook_id, outcome.signed_s, headers.signature)
    else:
        # What nobody signed has no identity: a stranger could take the place of a delivery that is still to
        # come.
        delivery_id = new_id(now_ms)
    return RawDelivery(
        id=delivery_id,
        source=Source.DELIVERY,
        received_at_ms=now_ms,
        body=body,
        webhook_id=storable_header(headers.webhook_id),
        signed_at=storable_header(headers.timestamp),
        signature=storable_header(headers.signature),
        account=account,
    )


def is_json_object(body: bytes) -> bool:
    """Whether `body` is one JSON object, of whatever shape, half a surrogate pair in it or not. Nesting
    deeper than our parsers follow is accepted: it is kept as evidence, set aside by settlement (R23).
    """
    try:
        if not body.isascii():
            body.decode()
        decode(_json_object, body)
    except (UnicodeDecodeError, msgspec.MsgspecError):
        return False
    except RecursionError:
        return True
    return True


def storable_header(value: str | None) -> str | None:
    """A header as it may be stored and logged: printable ASCII, bounded. PostgreSQL takes no NUL."""
    if value is None:
        return None
    return printable_ascii(value[:HEADER_CHARS_MAX])
