"""Who may use the API: scopes, and the form of a token. Pure: random bytes are arguments."""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from enum import StrEnum

SECRET_BYTES = 32
"""256 bits: nobody guesses one, so one round of SHA-256 protects it as well as a slow hash would."""
NAME_BYTES = 6
NO_HASH = "0" * 64
"""In place of a hash where there is none to compare with: nobody knows a token that has it."""
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_NAME_CHARS, _SECRET_CHARS = 9, 43
"""As many digits as the largest number of so many bytes has."""
_TOKEN = re.compile(rf"thk_([0-9A-Za-z]{{{_NAME_CHARS}}})_[0-9A-Za-z]{{{_SECRET_CHARS}}}")


class Scope(StrEnum):
    """What a token may do; each includes those before it."""

    READ = "read"
    SUBMIT = "submit"
    OPERATE = "operate"

    def includes(self, other: "Scope") -> bool:
        """Whether who has this one may do what needs `other`."""
        return _RANK[self] >= _RANK[other]


_RANK = {scope: rank for rank, scope in enumerate(Scope)}


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token as its row says; not the token itself."""

    id: str
    name: str
    prefix: str
    sha256: str
    scope: str
    """domain.access.Scope."""
    account: str | None
    created_at_ms: int
    expires_at_ms: int | None
    revoked_at_ms: int | None
    last_used_at_ms: int | None
    webhook_url: str | None = None
    """Where results of its runs and tasks are posted to that name no URL themselves."""

    def is_valid(self, now_ms: int) -> bool:
        """Neither revoked nor expired."""
        expired = self.expires_at_ms is not None and self.expires_at_ms <= now_ms
        return self.revoked_at_ms is None and not expired

    def state(self, now_ms: int) -> str:
        """valid, expired or revoked."""
        return (
            "revoked" if self.revoked_at_ms is not None else "valid" if self.is_valid(now_ms) else "expired"
        )


@dataclass(frozen=True, slots=True)
class ActionRow:
    """One write, or one that was tried."""

    id: str
    at_ms: int
    actor: str
    token_id: str | None
    action: str
    subject: str | None
    request_id: str | None
    status: int | None


def make_token(name: bytes, secret: bytes) -> str:
    """A token of NAME_BYTES and SECRET_BYTES random bytes. Without a sign at which a double click ends."""
    return f"thk_{_base62(name, _NAME_CHARS)}_{_base62(secret, _SECRET_CHARS)}"


def prefix_of(token: str) -> str | None:
    """The part of a token that may be shown, and by which it is found; None: this is no token of ours."""
    found = _TOKEN.fullmatch(token)
    return None if found is None else f"thk_{found[1]}"


def hash_of(token: str) -> str:
    """What is stored of a token, in hex."""
    return hashlib.sha256(token.encode()).hexdigest()


def webhook_secret(sha256: str) -> str:
    """With which results pushed for a token are signed, of its stored hash: whoever has the token has it, and
    nobody who has the secret has the token."""
    digest = hmac.digest(bytes.fromhex(sha256), b"tallyhook webhook secret", hashlib.sha256)
    return "whsec_" + base64.b64encode(digest).decode()


def is_same(token: str, sha256: str) -> bool:
    """Whether a stored hash is this token's; takes as long whatever differs."""
    return hmac.compare_digest(hash_of(token), sha256)


def _base62(value: bytes, chars: int) -> str:
    number, digits = int.from_bytes(value), ""
    for _ in range(chars):
        number, digit = divmod(number, 62)
        digits = _DIGITS[digit] + digits
    return digits
