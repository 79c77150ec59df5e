"""Webhook signatures (C-I.2, C-I.3): HMAC-SHA-256 over `timestamp.body`, keyed with the whole secret
string."""

import hashlib
import hmac


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """`v1=` and 64 lower-case hex digits. The secret is used as it stands, `whsec_` included."""
    return "v1=" + hmac.digest(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hex()


def headers(secret: str | None, task_id: str, attempt: int, wall_s: float, body: bytes) -> dict[str, str]:
    """The three headers of a signed delivery, none when signing is off. The timestamp is the real clock's,
    because the receiver compares it with its own."""
    if secret is None:
        return {}
    timestamp = str(int(wall_s))
    return {
        "X-Cloro-Timestamp": timestamp,
        "X-Cloro-Signature": signature(secret, timestamp, body),
        "X-Cloro-Webhook-Id": f"{task_id}-{attempt}",
    }
