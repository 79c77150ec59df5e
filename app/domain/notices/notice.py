"""Notices: what somebody should know, how often, and how it is signed and sent again. Pure.

Signed by Standard Webhooks 1.0 (standardwebhooks.com). A notice holds names, counts and credits; never a
prompt, an answer or a secret. May not do I/O, read a clock or log.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from app.domain.credits import to_json_number
from app.domain.time_format import iso_utc

SECRET_PREFIX = "whsec_"  # noqa: S105 - how a secret begins, not one
KEY_BYTES_MIN, KEY_BYTES_MAX = 24, 64
SECRET_REMEDY = "write it as whsec_ and the base64 of 24 to 64 random bytes"  # noqa: S105 - a sentence

RETRY_FIRST_MS = 5_000
RETRY_FACTOR = 4
RETRY_MAX_MS = 12 * 3_600_000
"""5 s, 20 s, 80 s, 5 min, 21 min, 85 min, 6 h, then every 12 h at most: twelve tries take 28 to 56 hours."""

GONE = 410


class NoticeKind(StrEnum):
    """What a notice is about; its `type` on the wire."""

    RUN_FINISHED = "run.finished"
    RUN_PAUSED = "run.paused"
    RUN_STOPPED = "run.stopped"
    RUN_RESUMED = "run.resumed"
    RUN_LATE = "run.late"  # will not finish before the cycle's reset
    BUDGET_REACHED = "budget.reached"
    SCHEDULE_FAILED = "schedule.failed"  # a slot has no run, or slots before it had none
    DISCREPANCY = "discrepancy.found"
    DRIFT = "drift.found"
    ENGINE_FAILING = "engine.failing"  # few of its newest results can be used
    RELAY_FAILING = "relay.endpoint_failing"  # results wait, because it takes none
    SET_ASIDE = "delivery.set_aside"
    BALANCE_UNKNOWN = "balance.unknown"  # it is unknown, and runs wait for it
    CREDITS_LOW = "credits.low"
    CREDITS_SHORT = "credits.short"  # will not suffice for what is queued
    SLOTS_HIGH = "slots.high"
    REQUESTS_HIGH = "requests.high"
    TEST = "test"


class NoticeState(StrEnum):
    """Where a notice stands."""

    NEW = "new"  # to be logged and sent
    SENT = "sent"  # taken by the receiver
    LOGGED = "logged"  # in the log only: nowhere to send it
    FAILED = "failed"  # given up; kept


@dataclass(frozen=True, slots=True)
class Notice:
    """One notice, before it is stored."""

    kind: NoticeKind
    account: str
    dedupe_key: str
    """The same thing has the same key, and is sent once."""
    message: str
    """A plain sentence."""
    at_ms: int
    run_id: str | None = None
    data: Mapping[str, object] = field(default_factory=dict)
    """Figures, as JSON; credits as Decimal."""

    def body(self) -> str:
        """The JSON text that is stored, signed and sent: `type`, `timestamp` of the event, `data`."""
        figures = {key: to_json_number(v) if isinstance(v, Decimal) else v for key, v in self.data.items()}
        data = {"account": self.account, "run_id": self.run_id, "message": self.message, **figures}
        document = {"type": self.kind.value, "timestamp": iso_utc(self.at_ms), "data": data}
        return json.dumps(document, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class DueNotice:
    """A stored notice that is to be tried now."""

    id: str
    kind: str
    account: str
    run_id: str | None
    body: str
    tries: int
    """This one counted."""


class NoticeSecretError(ValueError):
    """A secret that cannot be used; the text says what is wrong with it and never quotes it."""


def signing_key(secret: str) -> bytes:
    """The key of a secret written as `whsec_<base64>`. Raises NoticeSecretError."""
    if not secret.startswith(SECRET_PREFIX):
        raise NoticeSecretError(f"does not begin with {SECRET_PREFIX}; {SECRET_REMEDY}")
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise NoticeSecretError(f"is not base64; {SECRET_REMEDY}") from error
    if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
        raise NoticeSecretError(f"has {len(key)} bytes; {SECRET_REMEDY}")
    return key


def signature_of(keys: Sequence[bytes], notice_id: str, at_s: int, body: bytes) -> str:
    """The header `webhook-signature`: one `v1,<base64>` for each key, the current one first, so that a
    receiver may change its secret while notices are under way."""
    signed = f"{notice_id}.{at_s}.".encode() + body
    return " ".join(
        "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys
    )


@dataclass(frozen=True, slots=True)
class Answered:
    """How one request with a notice ended."""

    status: int | None
    """HTTP status; None: no response."""
    wait_ms: int | None = None
    """What Retry-After asked for."""
    error: str | None = None
    """Why there was no response: the kind of failure."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of a notice after one try."""

    state: NoticeState
    wait_ms: int = 0
    """NEW: until the next try."""
    error: str | None = None


def outcome_of(answered: Answered, *, tries: int, tries_max: int, jitter: float) -> Outcome:
    """2xx is taken; 410 ends it at once; anything else, redirects too, is tried again until `tries_max`.

    `tries` counts this one; `jitter` is in [0, 1) and spreads the upper half of each wait. Retry-After is a
    floor of the wait.
    """
    status = answered.status
    if status is not None and 200 <= status < 300:
        return Outcome(NoticeState.SENT)
    error = answered.error or f"HTTP {status}"
    if status == GONE:
        return Outcome(NoticeState.FAILED, error="HTTP 410: the receiver wants no more notices")
    if tries >= tries_max:
        return Outcome(NoticeState.FAILED, error=f"{error}; given up after {tries} tries")
    ceiling = min(RETRY_FIRST_MS * RETRY_FACTOR ** min(tries - 1, 20), RETRY_MAX_MS)
    return Outcome(NoticeState.NEW, max(int(ceiling * (0.5 + jitter / 2)), answered.wait_ms or 0), error)
