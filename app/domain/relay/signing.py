"""Headers of a message: by Standard Webhooks 1.0, or as the provider signs its own (C-I.2, C-I.3). Pure."""

import hashlib
import hmac
from collections.abc import Sequence

from app.domain.notices.notice import NoticeSecretError, signature_of, signing_key
from app.domain.relay.message import Message, Scheme


def headers_of(
    message: Message, scheme: Scheme, secrets: Sequence[str], at_s: int, body: bytes
) -> dict[str, str]:
    """What identifies, dates and signs one try at `at_s` (Unix seconds)."""
    if scheme is Scheme.PROVIDER:
        return _provider_headers(message, secrets[0], at_s, body)
    keys = tuple(signing_key(secret) for secret in secrets)
    return {
        "webhook-id": message.webhook_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": signature_of(keys, message.webhook_id, at_s, body),
    }


def _provider_headers(message: Message, secret: str, at_s: int, body: bytes) -> dict[str, str]:
    # The key is the whole secret as it is written, and the number of the try ends the id.
    digest = hmac.digest(secret.encode(), f"{at_s}.".encode() + body, hashlib.sha256).hex()
    return {
        "X-Cloro-Timestamp": str(at_s),
        "X-Cloro-Signature": f"v1={digest}",
        "X-Cloro-Webhook-Id": f"{message.task_id}-{message.tries + 1}",
    }


def refuse_unusable_secret(secret: str, scheme: Scheme) -> None:
    """Raises NoticeSecretError, which never quotes it."""
    if scheme is Scheme.STANDARD:
        signing_key(secret)
    elif not secret.isascii() or len(secret) < 16:
        raise NoticeSecretError("has fewer than 16 characters, or others than ASCII")
