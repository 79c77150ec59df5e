"""Signatures of deliveries (contract C-I.3): HMAC-SHA-256 over the timestamp's text, a dot and the raw body.

The key is the whole secret string, `whsec_` included. Nothing here parses the body, reads a clock or raises
for anything a stranger may send.
"""

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

SCHEME = "v1"
TIMESTAMP_DIGITS_MAX = 12
"""Unix seconds have 10 digits until the year 2286; more than this is nonsense, not a time."""
_DIGEST = "sha256"
_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")


class RefusalReason(StrEnum):
    """Why a delivery does not verify."""

    MISSING_HEADERS = "missing_headers"
    BAD_TIMESTAMP = "bad_timestamp"
    BAD_SCHEME = "bad_scheme"
    MISMATCH = "mismatch"
    STALE = "stale"
    """Signed with one of our secrets, but too far from our clock: a replay, or a wrong clock (R5, R6)."""


@dataclass(frozen=True, slots=True)
class Verified:
    """The delivery was signed with one of our secrets, within the window."""

    signed_s: int
    """Moment of signing, Unix seconds, as the header says."""
    secret_index: int
    """Which secret it was; 0 is the current one."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The delivery must be answered with 401."""

    reason: RefusalReason
    signed_s: int | None = None
    """What the timestamp header says; null when it says nothing readable. Only with STALE is it proven."""


def ill_formed(timestamp_header: str | None, signature_header: str | None) -> Refused | None:
    """Why these headers can verify no body at all, so that none needs to be read; None if they may."""
    if not timestamp_header or not signature_header:
        return Refused(RefusalReason.MISSING_HEADERS)
    if (
        len(timestamp_header) > TIMESTAMP_DIGITS_MAX
        or not timestamp_header.isascii()
        or not timestamp_header.isdigit()
    ):
        return Refused(RefusalReason.BAD_TIMESTAMP)
    signed_s = int(timestamp_header)
    given = _given_digest(signature_header)
    if given is None:
        return Refused(RefusalReason.BAD_SCHEME, signed_s)
    # What is no digest is the digest of nothing.
    return None if _HEX_DIGEST.fullmatch(given) else Refused(RefusalReason.MISMATCH, signed_s)


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """The X-Cloro-Signature header of a body signed at `timestamp` (Unix seconds as decimal text)."""
    return f"{SCHEME}={_hex_digest(secret, timestamp.encode(), body)}"


def verify(
    secrets: Sequence[str],
    timestamp_header: str | None,
    signature_header: str | None,
    body: bytes,
    now_s: int,
    window_s: int,
) -> Verified | Refused:
    """Whether one of `secrets` signed `body` within `window_s` of `now_s`.

    The MAC is computed for a stale timestamp too: only so can a wrong clock of ours be distinguished from a
    forgery.
    """
    if (refused := ill_formed(timestamp_header, signature_header)) is not None:
        return refused
    if timestamp_header is None or signature_header is None:
        raise AssertionError("missing headers were refused")
    signed_s = int(timestamp_header)
    given = (_given_digest(signature_header) or "").encode()
    index = _matching_secret(secrets, timestamp_header.encode(), body, given)
    if index is None:
        return Refused(RefusalReason.MISMATCH, signed_s)
    if abs(now_s - signed_s) > window_s:
        return Refused(RefusalReason.STALE, signed_s)
    return Verified(signed_s, index)


def answer_challenge(secret: str, challenge: str) -> str:
    """Hex proof that its maker holds `secret`, without telling it.

    It cannot serve to forge a delivery: what deliveries sign begins with the digits of a timestamp, which
    `verify` insists on, and this begins with a letter, so no challenge makes the two messages equal.
    """
    message = f"tallyhook-doctor.{challenge}".encode()
    return hmac.new(secret.encode(), message, _DIGEST).hexdigest()


def _given_digest(header: str) -> str | None:
    """The hex part of `v1=<hex>` or of a bare `<hex>`; None for another scheme."""
    scheme, separator, digest = header.partition("=")
    if not separator:
        return scheme
    return digest if scheme == SCHEME else None


def _matching_secret(secrets: Sequence[str], timestamp: bytes, body: bytes, given: bytes) -> int | None:
    found = None
    # Every secret is tried, so that the time taken does not tell which one matched.
    for index, secret in enumerate(secrets):
        expected = _hex_digest(secret, timestamp, body).encode()
        if hmac.compare_digest(expected, given) and found is None:
            found = index
    return found


def _hex_digest(secret: str, timestamp: bytes, body: bytes) -> str:
    mac = hmac.new(secret.encode(), timestamp + b".", _DIGEST)
    mac.update(body)
    return mac.hexdigest()
