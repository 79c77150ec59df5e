"""One task as the provider keeps it, and its wire form (C-G.2, C-G.4, C-I.1)."""

from __future__ import annotations

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


class Task:
    """The record of one task. The answer is not kept: it is a pure function of seed, number and payload,
    and is made again for each attempt and poll, which is what keeps 100,000 tasks in memory affordable."""

    __slots__ = (
        "acked",
        "attempts",
        "attempts_sent",
        "charged",
        "cleared",
        "clusters",
        "completed_s",
        "created_iso",
        "created_s",
        "edition",
        "error",
        "estimate",
        "expires_s",
        "fate",
        "faults",
        "first_ack_s",
        "first_terminal_poll_s",
        "free",
        "id",
        "idempotency_key",
        "number",
        "payload",
        "prices",
        "priority",
        "queued",
        "response_lost",
        "sent",
        "started_s",
        "status",
        "task_type",
        "terminal_polls",
        "webhook_url",
    )

    def __init__(
        self,
        *,
        task_id: str,
        number: int,
        edition: Edition,
        task_type: str,
        payload: dict[str, Any],
        estimate: int,
        prices: PriceList,
        free: bool,
        priority: int,
        idempotency_key: str | None,
        webhook_url: str | None,
        fate: TaskFate,
        created_s: float,
    ) -> None:
        self.id = task_id
        self.number = number
        self.edition = edition
        self.task_type = task_type
        self.payload: dict[str, Any] | None = payload  # None once the record is past its retention
        self.estimate = estimate
        self.prices = prices  # the list at submission; another one at completion means prices have changed
        self.free = free  # created with a test key that is not billed (C-L row L29)
        self.priority = priority
        self.idempotency_key = idempotency_key
        self.webhook_url = webhook_url
        self.fate = fate
        self.created_s = created_s
        self.created_iso = iso(created_s)
        self.status = Status.QUEUED
        self.cleared = False  # deleted from the queue (C-G.6)
        self.queued = False  # in the organization's queue, as opposed to waiting for an internal retry
        self.charged: int | None = None  # None until the end
        self.clusters = 0  # AI Mode product clusters billed
        self.error: dict[str, Any] | None = None  # of a failed task
        self.attempts = 0  # internal ones (C-H)
        self.started_s: float | None = None  # first pick-up; None for a task that failed before it
        self.completed_s: float | None = None
        self.expires_s: float | None = None  # end of retention; None until the end
        self.faults: list[str] = []
        self.response_lost = False
        self.attempts_sent = 0  # webhook attempts, original and duplicate together
        self.sent = 0
        self.acked = 0
        self.first_ack_s: float | None = None
        self.terminal_polls = 0
        self.first_terminal_poll_s: float | None = None

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
