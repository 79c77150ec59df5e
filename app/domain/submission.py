"""A task on its way out: claimed, then sent, then recorded. Data only."""

from dataclasses import dataclass
from decimal import Decimal

import msgspec

from app.domain.send_outcome import Answer


class ClaimedTask(msgspec.Struct, frozen=True, gc=False):
    """A task that this process has claimed and may send."""

    id: str
    run_id: str
    attempt: int
    idempotency_key: str
    task_type: str
    payload_json: str
    priority: int
    credits_estimate: Decimal
    sends: int
    """How often this attempt was claimed for sending, this time included."""
    first_sent_at_ms: int
    claim: str
    """Token of the process that claimed it; only that one may give it back."""
    ordinal: int = 0
    in_range: bool = False
    """Claimed with its neighbours by one row: its own does not show this send before it ended."""


@dataclass(frozen=True, slots=True)
class SendOptions:
    """How the tasks of one run are sent."""

    batch_size: int
    """Tasks in one create call."""
    is_restored: bool
    """The run goes on from a backup: keys that the provider knows were sent by us since."""


class Submission(msgspec.Struct, frozen=True, gc=False):
    """The end of one send, ready to be recorded."""

    task: ClaimedTask
    answer: Answer
    at_ms: int
    not_before_ms: int = 0
    """For answers that are sent again: not before this time."""
    next_poll_at_ms: int | None = None
    """For accepted attempts: when to ask the provider, should no delivery come."""
    http_status: int | None = None
    code: str | None = None
    message: str | None = None
    provider_task_id: str | None = None
    credits_to_charge: Decimal | None = None
    request_id: str | None = None
