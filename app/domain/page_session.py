"""A session of the page: what a browser has, and what is stored of it. Pure: random bytes are arguments."""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass

SECRET_BYTES = 32
LASTS_MS = 12 * 3_600_000
"""A day's work: then the token is asked for again, whatever was done meanwhile."""
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class PageSessionRow:
    """A session as its row says; not what its browser has."""

    sha256: str
    """In hex, of what the browser has."""
    token_id: str
    created_at_ms: int
    expires_at_ms: int


def make_session(random: bytes) -> str:
    """What a browser gets, of SECRET_BYTES random bytes."""
    return base64.urlsafe_b64encode(random).decode().rstrip("=")


def hash_of_session(text: str) -> str | None:
    """By which a session is found; None: this is none by its form."""
    return hashlib.sha256(text.encode()).hexdigest() if _SECRET.fullmatch(text) else None


def form_token(session: str) -> str:
    """What every form of a session carries. Only who has the session can make it, and it tells nothing of
    it."""
    return hmac.digest(session.encode(), b"tallyhook form", hashlib.sha256).hex()


def is_form_token(given: str, session: str) -> bool:
    """Whether a form is of this session; takes as long whatever differs."""
    return hmac.compare_digest(given.encode(), form_token(session).encode())
