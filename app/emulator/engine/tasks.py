"""One task as the provider keeps it, and its wire form (C-G.2, C-G.4, C-I.1)."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from app.emulator.billing.pricing import PriceList
from app.emulator.data.editions import Edition
from app.emulator.engine.clock import iso
from app.emulator.engine.faults import TaskFate


class Status(StrEnum):
    """Exactly four states (C-H)."""

    QUEUED = "QUEUED"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


@dataclass(slots=True, eq=False, kw_only=True)
class Task:
    """The record of one task; times are emulated Unix seconds. The answer is not kept: it is a pure function
    of seed, number and payload, and is made again for each attempt and poll, so that 100,000 tasks fit into
    memory."""

    id: str
    number: int
    edition: Edition
    task_type: str
    payload: dict[str, Any] | None
    """None once the record is past its retention."""
    estimate: int
    prices: PriceList
    """The list at submission; another one at completion means that prices have changed."""
    free: bool
    """Created with a test key that is not billed (C-L row L29)."""
    priority: int
    idempotency_key: str | None
    webhook_url: str | None
    fate: TaskFate
    created_s: float
    created_iso: str = field(init=False)
    status: Status = Status.QUEUED
    cleared: bool = False
    """Deleted from the queue (C-G.6)."""
    queued: bool = False
    """In the organization's queue, as opposed to waiting for an internal retry."""
    charged: int | None = None
    """Credits; None until the end."""
    clusters: int = 0
    """AI Mode product clusters billed."""
    error: dict[str, Any] | None = None
    """Of a failed task."""
    attempts: int = 0
    """Internal ones (C-H)."""
    started_s: float | None = None
    """First pick-up; None for a task that failed before it."""
    completed_s: float | None = None
    expires_s: float | None = None
    """End of retention; None until the end."""
    faults: list[str] = field(default_factory=list)
    response_lost: bool = False
    attempts_sent: int = 0
    """Webhook attempts begun, original and duplicate together."""
    sent: int = 0
    """Those of them that were posted."""
    acked: int = 0
    first_ack_s: float | None = None
    terminal_polls: int = 0
    first_terminal_poll_s: float | None = None

    def __post_init__(self) -> None:
        self.created_iso = iso(self.created_s)

    @property
    def terminal(self) -> bool:
        """COMPLETED or FAILED; never changes afterwards."""
        return self.completed_s is not None

    @property
    def latency_ms(self) -> int | None:
        """First pick-up to outcome, back-off between retries included (C-G.2)."""
        if self.completed_s is None or self.started_s is None:
            return None
        return round((self.completed_s - self.started_s) * 1000)

    def head(self, edition: Edition, charged_early: int | None) -> dict[str, Any]:
        """`task` and `credits`, with the keys the edition knows (rows B17, B25, B27)."""
        task: dict[str, Any] = {"id": self.id, "taskType": self.task_type, "status": self.status.value}
        if edition.priority_in_task:
            task["priority"] = self.priority
        task["createdAt"] = self.created_iso
        if edition.latency_in_task:
            task["latencyMs"] = self.latency_ms
        task["idempotencyKey"] = self.idempotency_key
        charged = self.charged if self.terminal else charged_early
        return {"task": task, "credits": {"creditsToCharge": self.estimate, "creditsCharged": charged}}

    def webhook_block(self) -> dict[str, Any]:
        """`webhook` of a finished task (row B26)."""
        acked = self.first_ack_s
        return {
            "url": self.webhook_url,
            "deliveredAt": None if acked is None else iso(acked),
            "delivered": acked is not None,
        }
