"""`/v1/async/*` (C-G)."""

import asyncio
from typing import Any

import msgspec

from app.emulator.checks.validation import kind_of
from app.emulator.engine import errors
from app.emulator.engine.emulator import Emulator
from app.emulator.engine.faults import LOSE_RESPONSE
from app.emulator.engine.tasks import Task
from app.emulator.http.exchange import Exchange
from app.emulator.http.request_faults import ConnectionLostError

BATCH_ITEMS_MAX = 500
_OVERTAKEN_S_MAX = 10.0
_OVERTAKEN_POLL_S = 0.005


class AsyncRoutes:
    """Handlers of the task queue."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    async def create(self, exchange: Exchange) -> bytes:
        """POST /v1/async/task (C-G.2)."""
        emulator, key = self._emulator, exchange.key
        task = emulator.create_task(key, await exchange.json(key.edition.invalid_task_status))
        # Written before the task can start: the answer has QUEUED, the state that was stored.
        body = msgspec.json.encode({"success": True, **task.head(key.edition, None)})
        emulator.scheduler.admit(key.organization, task, task.created_s)
        if task.fate.overtaken:
            await _wait_for_webhook(task)
        if task.fate.loses_response:
            self._lose(exchange, [task])
        return body

    async def create_old(self, exchange: Exchange) -> bytes:
        """POST /v1/task of the oldest layer (row B50)."""
        if not exchange.key.edition.run_endpoint:
            raise errors.route_not_found(exchange.request.path)
        return await self.create(exchange)

    async def create_batch(self, exchange: Exchange) -> bytes:
        """POST /v1/async/task/batch: 200 even if every item failed, nothing stored if the queue overflows
        (C-G.3)."""
        key, organization = exchange.key, exchange.key.organization
        if not key.edition.batch:
            raise errors.route_not_found(exchange.request.path)
        items = await exchange.json(key.edition.invalid_task_status)
        self._check_batch(exchange, items)
        accepted: list[Task] = []
        results = [self._item(exchange, index, item, accepted) for index, item in enumerate(items)]
        summary = {"total": len(items), "succeeded": len(accepted), "failed": len(items) - len(accepted)}
        body = msgspec.json.encode({"success": True, "summary": summary, "results": results})
        for task in accepted:
            organization.enqueue(task)
        self._emulator.scheduler.start_ready(organization, self._emulator.clock.now())
        if accepted and accepted[0].fate.loses_response and not any(task.fate.drops for task in accepted):
            self._lose(exchange, accepted)
        return body

    def _check_batch(self, exchange: Exchange, items: Any) -> None:
        edition, organization = exchange.key.edition, exchange.key.organization
        problem = None
        if not isinstance(items, list):
            problem = f"Invalid input: expected array, received {kind_of(items)}"
        elif not items:
            problem = "Too small: expected array to have >=1 items"
        elif len(items) > BATCH_ITEMS_MAX:
            problem = f"Too big: expected array to have <={BATCH_ITEMS_MAX} items"
        if problem is not None:
            raise errors.validation_failed(edition.invalid_task_status, [{"field": "", "message": problem}])
        if organization.queued_tasks + len(items) > organization.queue_max:
            raise errors.queue_full(edition, organization.queue_max, organization.queued_tasks, len(items))

    def _item(self, exchange: Exchange, index: int, item: Any, accepted: list[Task]) -> dict[str, Any]:
        try:
            task = self._accept(exchange, index, item, accepted)
        except errors.RefusalError as refusal:
            now_s = self._emulator.clock.now()
            error = errors.error_object(refusal.code, refusal.message, refusal.details, now_s)
            return {"success": False, "index": index, "error": error}
        accepted.append(task)
        return {"success": True, "index": index, **task.head(exchange.key.edition, None)}

    def _accept(self, exchange: Exchange, index: int, item: Any, accepted: list[Task]) -> Task:
        emulator, key = self._emulator, exchange.key
        problems = emulator.problems(key, item)
        if problems:
            raise _invalid_item(exchange, index, problems)
        emulator.refuse_bound(key.organization, item.get("idempotencyKey"))
        credits = emulator.estimate(key, item)
        # Nothing is reserved, so earlier items of the same batch are counted here or nowhere (C-L row L10).
        against_all = emulator.options.switches.batch_against_balance
        running = 0 if against_all else sum(task.estimate for task in accepted)
        if not key.organization.account.covers(running + credits):
            raise errors.RefusalError(403, "INSUFFICIENT_CREDITS", "Insufficient credits")
        return emulator.accept(key, item, credits)

    async def retrieve(self, exchange: Exchange) -> bytes:
        """GET /v1/async/task/{taskId} (C-G.4)."""
        key = exchange.key
        task = self._emulator.find_task(key.organization, exchange.request.match_info["task_id"])
        return self._emulator.status_body(task, key.edition)

    async def status(self, exchange: Exchange) -> bytes:
        """GET /v1/async/status (C-G.5)."""
        return msgspec.json.encode(self._emulator.queue_status(exchange.key))

    async def clear_queue(self, exchange: Exchange) -> bytes:
        """DELETE /v1/async/queue: records deleted, no webhooks, no credits (C-G.6, L22, row B23)."""
        if not (exchange.key.edition.clear_queue or self._emulator.options.switches.clear_queue):
            raise errors.route_not_found(exchange.request.path)
        return msgspec.json.encode({"success": True, "cleared": exchange.key.organization.clear_queue()})

    def _lose(self, exchange: Exchange, tasks: list[Task]) -> None:
        for task in tasks:
            task.response_lost = True
            task.faults.append(LOSE_RESPONSE)
        exchange.key.organization.totals.responses_lost += 1
        raise ConnectionLostError


async def _wait_for_webhook(task: Task) -> None:
    """Wait, in real time and not for ever, until the webhook has arrived."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + _OVERTAKEN_S_MAX
    while task.first_ack_s is None and loop.time() < give_up:  # noqa: ASYNC110 - a rare fault needs no event per task
        await asyncio.sleep(_OVERTAKEN_POLL_S)


def _invalid_item(exchange: Exchange, index: int, problems: list[dict[str, str]]) -> errors.RefusalError:
    """The item error of row B47."""
    edition = exchange.key.edition
    details: dict[str, Any] = {"errors": problems} if edition.batch_item_errors else dict(problems[0])
    return errors.RefusalError(
        400, "VALIDATION_ERROR", edition.batch_item_message.format(index=index), details
    )
