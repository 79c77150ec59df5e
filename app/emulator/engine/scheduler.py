"""From the queue to an outcome: slots, internal retries, charges and retention (C-E.4, C-H)."""

import heapq
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

from app.emulator.answers import clusters_returned
from app.emulator.billing.organizations import Organization
from app.emulator.billing.pricing import PriceList
from app.emulator.data.editions import Edition
from app.emulator.engine import faults
from app.emulator.engine.charging import charge_of_completed, charge_with_faults
from app.emulator.engine.options import Options
from app.emulator.engine.seeded_draws import draw, purpose
from app.emulator.engine.tasks import Status, Task
from app.emulator.engine.timeline import Timeline

_LATENCY = purpose("latency")
LATENCY_S = {"GOOGLE": (2.0, 6.0), "GOOGLE_NEWS": (2.0, 5.0), "PERPLEXITY": (36.0, 45.0)}
"""Shortest and longest attempt in seconds: a few for Google, 30 to 60 for AI answers, Perplexity as measured
(C-H)."""
_AI_LATENCY_S = (30.0, 60.0)
_EXPIRY_GRAIN_S = 60.0
"""Records past their retention are dropped together at this grain; a lookup checks the exact time itself."""


class Scheduler:
    """Moves tasks through their four states. What a delivery is, it does not know: it calls `deliver` at
    the end."""

    def __init__(
        self,
        options: Options,
        timeline: Timeline,
        prices_of: Callable[[Organization, Edition], PriceList],
        deliver: Callable[[Organization, Task, float], None],
    ) -> None:
        self._options = options
        self._timeline = timeline
        self._prices_of = prices_of
        self._deliver = deliver
        # (task type, country) that stopped being offered; availability lists change over time (C-K.10).
        self.withdrawn: set[tuple[str, str]] = set()
        self._expiries: list[tuple[float, int, Organization, Task]] = []
        self._order = itertools.count()
        self._expiry_armed = False

    def admit(self, organization: Organization, task: Task, now_s: float) -> None:
        """Put a new task in line and start what can start."""
        organization.enqueue(task)
        self.start_ready(organization, now_s)

    def start_ready(self, organization: Organization, now_s: float) -> None:
        """Start tasks while a slot is free and the live balance covers the next one (C-E.4, C-H)."""
        while organization.slots_used < organization.slots:
            task = organization.peek()
            if task is None:
                return
            if not organization.account.covers(task.estimate):
                if self._options.switches.wait_for_credits:
                    return
                organization.dequeue()
                self._fail(organization, task, now_s, "INSUFFICIENT_CREDITS", "Insufficient credits")
                continue
            organization.dequeue()
            if self.withdrawn and self.not_offered(task.task_type, task.payload or {}):
                # Validated again at pick-up, so a task can fail before it starts (C-H).
                self._fail(organization, task, now_s, "VALIDATION_ERROR", "Request validation failed")
                continue
            self.begin_attempt(organization, task, now_s)

    def not_offered(self, task_type: str, payload: dict[str, Any]) -> bool:
        """Whether the engine has been withdrawn from the country of a request."""
        return (task_type, str(payload.get("gl") or payload.get("country") or "US").upper()) in self.withdrawn

    def latency_s(self, task_type: str, number: int, attempt: int) -> float:
        """How long one attempt takes, emulated; fixed by seed, task and attempt."""
        low, high = LATENCY_S.get(task_type, _AI_LATENCY_S)
        return low + (high - low) * draw(self._options.seed, number, _LATENCY + attempt)

    def expire_due(self, now_s: float) -> None:
        """Forget records past their retention: answer, payload and idempotency binding go, the book line
        stays."""
        while self._expiries and self._expiries[0][0] <= now_s:
            _, _, organization, task = heapq.heappop(self._expiries)
            organization.forget(task)

    def begin_attempt(self, organization: Organization, task: Task, now_s: float) -> None:
        """Take a slot for one attempt of a task that may start."""
        organization.slots_used += 1
        organization.processing += 1
        task.status = Status.PROCESSING
        task.attempts += 1
        if task.started_s is None:
            task.started_s = now_s
        due_s = now_s + self.latency_s(task.task_type, task.number, task.attempts)
        self._timeline.at(due_s, partial(self._attempt_over, organization, task))

    def _attempt_over(self, organization: Organization, task: Task, now_s: float) -> None:
        organization.slots_used -= 1
        organization.processing -= 1
        options = self._options
        fails = task.fate.fails or (task.task_type == "GROK" and not self.grok_answers(task.edition))
        again = fails or faults.retries_internally(
            options.faults, options.fault_seed, task.number, task.attempts
        )
        if again and task.attempts < options.attempts_max:
            self._back_off(organization, task, now_s)
        elif fails:
            self._fail(organization, task, now_s, "INTERNAL_SERVER_ERROR", "Task failed after max retries")
        else:
            self._complete(organization, task, now_s)
        self.start_ready(organization, now_s)

    def grok_answers(self, edition: Edition) -> bool:
        """Whether the service behind GROK is on (C-K.4)."""
        chosen = self._options.grok
        return edition.grok if chosen is None else chosen

    def _back_off(self, organization: Organization, task: Task, now_s: float) -> None:
        task.status = Status.QUEUED
        organization.waiting_retries += 1
        wait_s = self._options.internal_backoff_s * 2 ** (task.attempts - 1)
        self._timeline.at(now_s + wait_s, partial(self._requeue, organization, task))

    def _requeue(self, organization: Organization, task: Task, now_s: float) -> None:
        if task.cleared:
            return
        organization.waiting_retries -= 1
        self.admit(organization, task, now_s)

    def _complete(self, organization: Organization, task: Task, now_s: float) -> None:
        task.status = Status.COMPLETED
        organization.totals.completed += 1
        payload = task.payload or {}
        task.clusters = clusters_returned(self._options.seed, task.number, task.task_type, payload)
        prices = self._prices_of(organization, task.edition)
        at_submission = self._options.switches.price_at_submission
        self._end(organization, task, now_s, charge_of_completed(task, prices, at_submission=at_submission))

    def _fail(self, organization: Organization, task: Task, now_s: float, code: str, message: str) -> None:
        task.status = Status.FAILED
        organization.totals.failed += 1
        task.error = {"error": {"code": code, "message": message}}
        self._end(organization, task, now_s, 0)

    def _end(self, organization: Organization, task: Task, now_s: float, right: int) -> None:
        task.completed_s = now_s
        task.charged = charge_with_faults(task, right, self._options.fault_seed)
        if task.charged:
            organization.charge(task.charged, task.task_type, now_s)
        basis_s = task.created_s if task.edition.retention_from_creation else now_s
        task.expires_s = max(now_s, basis_s + self._options.retention_s)
        heapq.heappush(self._expiries, (task.expires_s, next(self._order), organization, task))
        if not self._expiry_armed:
            self._arm_expiry(now_s)
        if task.webhook_url is not None:
            self._deliver(organization, task, now_s)

    def _arm_expiry(self, now_s: float) -> None:
        self._expiry_armed = True
        self._timeline.at(max(self._expiries[0][0], now_s + _EXPIRY_GRAIN_S), self._expiry_tick)

    def _expiry_tick(self, now_s: float) -> None:
        self._expiry_armed = False
        self.expire_due(now_s)
        if self._expiries:
            self._arm_expiry(now_s)
