"""The emulator without its HTTP: tenants, tasks and their life, on one clock (C-C, C-E, C-G, C-H)."""

import asyncio
import itertools
import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from app.emulator.answers import Answers
from app.emulator.billing.organizations import ApiKey, Organization
from app.emulator.billing.registry import Registry
from app.emulator.checks.task_body import check_task
from app.emulator.data.editions import Edition
from app.emulator.data.engine_table import ENGINES
from app.emulator.engine import errors
from app.emulator.engine.charging import price_of_request
from app.emulator.engine.clock import Clock
from app.emulator.engine.faults import fate_of
from app.emulator.engine.options import Options
from app.emulator.engine.scheduler import Scheduler
from app.emulator.engine.tasks import Status, Task
from app.emulator.engine.timeline import Timeline
from app.emulator.engine.webhooks import Deliveries


def _new_id() -> str:
    return str(uuid.uuid4())


class Emulator:
    """One provider. Single-threaded: everything happens on the loop that drives its timeline."""

    def __init__(
        self, options: Options, *, clock: Clock | None = None, new_id: Callable[[], str] = _new_id
    ) -> None:
        self.options = options
        self.clock = clock or Clock(options.time_scale)
        self.timeline = Timeline(self.clock)
        self.answers = Answers(options.seed)
        self.answers.short = options.switches.short_answers
        self.deliveries = Deliveries(options, self.clock, self.timeline, self.report_body)
        self.registry = Registry(options, self.clock, self.timeline, self._start_ready)
        self.scheduler = Scheduler(options, self.timeline, self.registry.prices, self.deliveries.schedule)
        self.edition = self.registry.edition
        self.organizations = self.registry.organizations
        self.withdrawn = self.scheduler.withdrawn
        self._new_id = new_id
        self._numbers = itertools.count(1)

    def _start_ready(self, organization: Organization, now_s: float) -> None:
        self.scheduler.start_ready(organization, now_s)

    async def start(self) -> None:
        """Let time pass and deliveries leave, on the running loop."""
        await self.deliveries.open()
        self.timeline.attach(asyncio.get_running_loop())

    async def stop(self) -> None:
        """Stop time; attempts in flight are abandoned."""
        self.timeline.detach()
        await self.deliveries.close()

    async def advance(self, seconds: float) -> None:
        """Step the clock through everything that falls due, in order, letting deliveries finish on the
        way, so that a retry ladder of 30 minutes passes in one call."""
        target_s = self.clock.now() + seconds
        while (due_s := self.timeline.next_due_s()) is not None and due_s <= target_s:
            self.clock.jump_to(max(due_s, self.clock.now()))
            self.timeline.run_due(due_s)
            await asyncio.sleep(0)  # sync calls that wait for this time go on before the next action
            await self.deliveries.idle()
        self.clock.jump_to(max(target_s, self.clock.now()))
        self.timeline.rearm()

    def create_task(self, key: ApiKey, body: object) -> Task:
        """Check and accept one async task, in the order of C-D.4: body, key, credits, queue."""
        organization, edition = key.organization, key.edition
        problems = self.problems(key, body)
        if problems or not isinstance(body, dict):
            raise errors.validation_failed(edition.invalid_task_status, problems)
        self.refuse_bound(organization, body.get("idempotencyKey"))
        credits = self.estimate(key, body)
        if not organization.account.covers(credits):
            raise errors.insufficient_credits(edition)
        if organization.queued_tasks >= organization.queue_max:
            raise errors.queue_full(edition, organization.queue_max, organization.queued_tasks, 1)
        return self.accept(key, body, credits)

    def problems(self, key: ApiKey, body: object) -> list[dict[str, str]]:
        """Everything wrong with a task object, withdrawn countries included."""
        found = check_task(body, key.edition, self.options.switches.leniency)
        if not found and self.withdrawn and isinstance(body, dict):
            found = self.withdrawal_problems(body["taskType"], body["payload"], "payload.")
        return found

    def withdrawal_problems(
        self, task_type: str, payload: dict[str, Any], prefix: str
    ) -> list[dict[str, str]]:
        """Problems of a request that is valid but for a country withdrawn from its engine."""
        if not self.scheduler.not_offered(task_type, payload):
            return []
        message = f"The {ENGINES[task_type].model} model is not available in this country."
        return [{"field": f"{prefix}country", "message": message}]

    def estimate(self, key: ApiKey, body: dict[str, Any]) -> int:
        """`creditsToCharge` of a valid task object (C-E.1)."""
        prices = self.registry.prices(key.organization, key.edition)
        return price_of_request(key, prices, body["taskType"], body["payload"])

    def refuse_bound(self, organization: Organization, idempotency_key: str | None) -> None:
        """409 while the record of an earlier task with this key exists, whatever its outcome (C-H, L24,
        L25)."""
        if idempotency_key is None:
            return
        earlier = organization.bound_keys.get(idempotency_key)
        if earlier is None:
            return
        now_s = self.clock.now()
        if earlier.expires_s is not None and earlier.expires_s <= now_s:
            self.scheduler.expire_due(now_s)
            return
        organization.totals.conflicts += 1
        raise errors.already_exists(idempotency_key)

    def accept(self, key: ApiKey, body: dict[str, Any], credits: int) -> Task:
        """Store a task that passed every check; `scheduler.admit` then puts it in line."""
        organization, options = key.organization, self.options
        number = next(self._numbers)
        webhook = body.get("webhook")
        task = Task(
            id=self._new_id(),
            number=number,
            edition=key.edition,
            task_type=body["taskType"],
            payload=body["payload"],
            estimate=credits,
            prices=self.registry.prices(organization, key.edition),
            free=key.free,
            priority=int(body.get("priority", 1)),
            idempotency_key=body.get("idempotencyKey"),
            webhook_url=webhook["url"] if webhook else None,
            fate=fate_of(options.faults, options.fault_seed, number, has_webhook=webhook is not None),
            created_s=self.clock.now(),
        )
        task.faults.extend(task.fate.names())
        organization.tasks[task.id] = task
        organization.totals.tasks += 1
        if task.idempotency_key is not None:
            organization.bound_keys[task.idempotency_key] = task
        return task

    def find_task(self, organization: Organization, task_id: str) -> Task:
        """A live record of the organization, or 404 (C-G.4)."""
        task = organization.tasks.get(task_id)
        if task is None and self.options.switches.lookup_by_key:
            task = organization.bound_keys.get(task_id)
        if task is None or (task.expires_s is not None and task.expires_s <= self.clock.now()):
            raise errors.task_not_found(task_id)
        return task

    def task_anywhere(self, task_id: str) -> Task | None:
        """A task of any organization, also past its retention."""
        for organization in self.organizations.values():
            task = organization.tasks.get(task_id)
            if task is not None:
                return task
            for archived in organization.archive:
                if archived.id == task_id:
                    return archived
        return None

    def status_body(self, task: Task, edition: Edition) -> bytes:
        """The answer to a status call (C-G.4)."""
        if not task.terminal:
            return msgspec.json.encode(task.head(edition, edition.charged_in_status_early))
        task.terminal_polls += 1
        if task.first_terminal_poll_s is None:
            task.first_terminal_poll_s = self.clock.now()
        head = task.head(edition, None)
        if edition.webhook_in_task and task.webhook_url is not None:
            head["webhook"] = task.webhook_block()
        return self._with_response(head, task, task.payload or {}, edition)

    def report_body(self, task: Task, payload: dict[str, Any]) -> bytes:
        """The webhook's body: the status answer without the `webhook` block (C-I.1)."""
        return self._with_response(task.head(task.edition, None), task, payload, task.edition)

    def _with_response(
        self, head: dict[str, Any], task: Task, payload: dict[str, Any], edition: Edition
    ) -> bytes:
        if task.fate.credits_in_task:
            head["task"]["creditsCharged"] = head.pop("credits")["creditsCharged"]
        if task.status is Status.COMPLETED:
            response = self.answers.compose(task.task_type, edition, payload, task.number, task.id)
            if task.fate.wrapped:
                response = b'{"success":true,"result":' + response + b"}"
        else:
            response = msgspec.json.encode(task.error)
        return msgspec.json.encode(head)[:-1] + b',"response":' + response + b"}"

    def queue_status(self, key: ApiKey) -> dict[str, Any]:
        """`GET /v1/async/status` (C-G.5)."""
        organization = key.organization
        status: dict[str, Any] = {
            "queuedTasks": organization.queued_tasks,
            "processingTasks": organization.processing,
        }
        if key.edition.priority_breakdown:
            status["priorityBreakdown"] = [
                {"priority": priority, "count": count}
                for priority, count in sorted(organization.priorities.items(), reverse=True)
            ]
        status["concurrency"] = {"used": organization.slots_used, "max": organization.slots}
        return status
