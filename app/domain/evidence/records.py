"""What is kept as proof, as data: of a delivery that was acknowledged and lost, of a figure in dispute.

May not do I/O, read a clock or log.
"""

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class AcknowledgedWebhook:
    """The provider says that it had a 2xx for a task's webhook (C-G.4)."""

    provider_task_id: str
    at: str | None
    """`deliveredAt` as sent: ISO 8601, the provider's clock."""
    url: str | None
    """Where it was sent, without what may be secret in it."""


@dataclass(frozen=True, slots=True)
class Send:
    """How one create call ended."""

    at_ms: int
    answer: str
    """domain.retry.Answer."""
    http_status: int | None
    """None: no response."""
    code: str | None
    message: str | None
    provider_task_id: str | None
    credits_to_charge: Decimal | None
    request_id: str | None


@dataclass(frozen=True, slots=True)
class StoredReport:
    """A report as it was received, byte for byte, with the headers that it was signed by."""

    id: str
    attempt: int | None
    """None: it belongs to no task of ours."""
    source: str
    """delivery, poll or sync; only the first is signed."""
    received_at_ms: int
    effect: str | None
    webhook_id: str | None
    signed_at: str | None
    signature: str | None
    body: bytes


@dataclass(frozen=True, slots=True)
class DisputedAttempt:
    """One attempt, what was sent for it and what came back."""

    attempt: int
    state: str
    money: str
    estimate: Decimal
    to_charge: Decimal | None
    held: Decimal | None
    charged: Decimal | None
    provider_task_id: str | None
    first_sent_at_ms: int | None
    submitted_at_ms: int | None
    settled_at_ms: int | None
    sends: tuple[Send, ...] = ()
    reports: tuple[StoredReport, ...] = ()


@dataclass(frozen=True, slots=True)
class DisputedTask:
    """One prompt, with the attempts that a discrepancy is about."""

    id: str
    ordinal: int
    task_type: str
    payload_json: str
    priority: int
    custom_id: str | None
    metadata: str | None
    """Own columns, as JSON; they are in an archive only where its maker wants it."""
    sample: int | None
    repeats: int | None
    """Which of how many samples of its record it is; None: its record asks for one only."""
    attempts: tuple[DisputedAttempt, ...]


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One finding and everything that bears on it."""

    id: int
    """Of the finding; they are numbered in the order they were found."""
    at_ms: int
    verdict: str
    expected: Decimal | None
    actual: Decimal | None
    detail: str
    attempt: int | None
    """None, as `task`: a report about a task that we never sent."""
    task: DisputedTask | None
    loose: tuple[StoredReport, ...] = ()
    """The report itself, where there is no task."""

    def about(self) -> DisputedAttempt | None:
        """The attempt that was found to be wrong."""
        attempts = self.task.attempts if self.task is not None else ()
        return next((a for a in attempts if a.attempt == self.attempt), None)


@dataclass(frozen=True, slots=True)
class Request:
    """A create call as it is sent, without its headers: one of them is the API key."""

    method: str
    path: str
    body: bytes
