"""A tenant: its keys, plan, slots, queue and webhook secret (C-A, C-D.1)."""

import heapq
from collections import deque
from dataclasses import dataclass

from app.emulator.billing.account import Account
from app.emulator.billing.cycle import ChargeLine
from app.emulator.data.editions import Edition
from app.emulator.engine.clock import iso
from app.emulator.engine.tasks import Status, Task

QUEUE_TASKS_MAX = 100_000
"""QUEUED per organization (C-D.1)."""


@dataclass(slots=True)
class Totals:
    """Counters that outlive the records they count."""

    tasks: int = 0
    completed: int = 0
    failed: int = 0
    cleared: int = 0
    conflicts: int = 0
    responses_lost: int = 0
    deliveries_sent: int = 0
    deliveries_acked: int = 0
    deliveries_given_up: int = 0
    deliveries_dropped: int = 0
    sync_completed: int = 0
    sync_failed: int = 0
    sync_canceled: int = 0
    sync_charged: int = 0


class Organization:
    """State of one tenant. Its rules live elsewhere; this class keeps queue, slots and records in order."""

    def __init__(
        self,
        name: str,
        account: Account,
        *,
        slots: int | None = None,
        webhook_secret: str | None = None,
        queue_max: int = QUEUE_TASKS_MAX,
        archive_max: int = 200_000,
    ) -> None:
        self.name = name
        self.account = account
        self.slots_share = slots  # its part of a shared plan's slots, or an override; None: the plan's
        self.price_list: str | None = None  # None: that of the key's edition
        self.price_overrides: dict[str, int] = {}  # base price by task type (C-E.5, C-F)
        self.webhook_secret = webhook_secret
        self.queue_max = queue_max
        self.charged = 0  # by this organization alone, where several share an account
        self.slots_used = 0
        self.waiting_retries = 0  # QUEUED too, and counted against the queue limit (C-H)
        self.pending_deliveries = 0
        self.totals = Totals()
        self.tasks: dict[str, Task] = {}
        self.bound_keys: dict[str, Task] = {}
        self.archive: deque[Task] = deque(maxlen=archive_max)  # book lines of records past retention
        self.priorities: dict[int, int] = {}
        self.processing = 0
        self._queue: list[tuple[int, int, Task]] = []
        self._queued = 0

    @property
    def slots(self) -> int:
        """Concurrency slots, shared by sync calls and PROCESSING tasks (C-D.1)."""
        return self.account.slots if self.slots_share is None else self.slots_share

    def charge(
        self, credits: int, task_type: str = "", at_s: float | None = None, *, sync: bool = False
    ) -> None:
        """Deduct for work that has succeeded; without `at_s` the statement has no line for it."""
        self.charged += credits
        line = None if at_s is None else ChargeLine(iso(at_s)[:10], self.name, task_type, sync)
        self.account.charge(credits, line)

    @property
    def queued_tasks(self) -> int:
        """Tasks in QUEUED, those waiting for an internal retry included."""
        return self._queued + self.waiting_retries

    def enqueue(self, task: Task) -> None:
        """Put a task in line: priority descending, then by creation, so a retry keeps its place (C-H)."""
        task.queued = True
        self._queued += 1
        self.priorities[task.priority] = self.priorities.get(task.priority, 0) + 1
        heapq.heappush(self._queue, (-task.priority, task.number, task))

    def peek(self) -> Task | None:
        """The next task in line, or None."""
        queue = self._queue
        while queue and not queue[0][2].queued:  # cleared ones are skipped here instead of searched for
            heapq.heappop(queue)
        return queue[0][2] if queue else None

    def dequeue(self) -> Task:
        """Take what `peek` showed."""
        task = heapq.heappop(self._queue)[2]
        self.leave_queue(task)
        return task

    def leave_queue(self, task: Task) -> None:
        """Take a task out of the counts; its heap entry, if any, is skipped later."""
        task.queued = False
        self._queued -= 1
        left = self.priorities[task.priority] - 1
        if left:
            self.priorities[task.priority] = left
        else:
            del self.priorities[task.priority]

    def clear_queue(self) -> int:
        """Delete every QUEUED task, those waiting for a retry included; how many (C-G.6). The heap's
        entries are skipped when they come up."""
        cleared = [task for task in self.tasks.values() if task.status is Status.QUEUED]
        for task in cleared:
            if task.queued:
                self.leave_queue(task)
            else:
                self.waiting_retries -= 1
            self.forget(task)
            task.cleared = True
        self.totals.cleared += len(cleared)
        return len(cleared)

    def forget(self, task: Task) -> None:
        """Drop a record and free its idempotency key; the book line stays (C-H)."""
        self.tasks.pop(task.id, None)
        key = task.idempotency_key
        if key is not None and self.bound_keys.get(key) is task:
            del self.bound_keys[key]
        task.payload = None
        self.archive.append(task)


@dataclass(slots=True)
class ApiKey:
    """One key of an organization, with the edition it speaks (C-C)."""

    secret: str
    organization: Organization
    edition: Edition
    free: bool = False
    """A test key whose calls are not billed (C-L row L29)."""
    invalid_from_s: float | None = None
    """An invalidated key works on for up to a minute (C-C)."""
