"""Sync calls: one slot each, refused at once without one, retried inside a five-minute budget (C-A, C-D.3,
C-H)."""

import asyncio
import itertools
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from app.emulator.answers import clusters_returned
from app.emulator.billing.organizations import ApiKey, Organization
from app.emulator.billing.pricing import clusters_price
from app.emulator.checks.payload import check_payload
from app.emulator.engine import errors
from app.emulator.engine.charging import price_of_sync_call
from app.emulator.engine.clock import iso
from app.emulator.engine.emulator import Emulator
from app.emulator.engine.faults import TaskFate, fate_of, retries_internally
from app.emulator.http.exchange import Exchange

_FIRST_NUMBER = 1 << 40
"""Sync calls draw from numbers of their own, so that they leave the fates of async tasks as they were."""
_RECENT_MAX = 50
_CONCURRENCY_HEADERS = {
    "concurrent": ("X-Concurrent",),
    "concurrency": ("X-Concurrency",),
    "both": ("X-Concurrency", "X-Concurrent"),
}


@dataclass(slots=True)
class Call:
    """One accepted sync call."""

    request: web.Request
    key: ApiKey
    task_type: str
    body: dict[str, Any]
    number: int
    price: int
    """Surcharge included, product clusters not."""
    fate: TaskFate
    charged: int = 0

    @property
    def abandoned(self) -> bool:
        """The client has closed its connection (499)."""
        return self.request.transport is None or self.request.transport.is_closing()


class SyncCalls:
    """Runs `/v1/monitor/*` for all engines."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._numbers = itertools.count(_FIRST_NUMBER)
        self.running: set[asyncio.Task[bytes]] = set()
        """Calls that occupy a slot."""
        self.recent: deque[dict[str, Any]] = deque(maxlen=_RECENT_MAX)

    async def run(self, exchange: Exchange, task_type: str, body: object) -> bytes:
        """Validate, gate, occupy a slot, and answer (order of C-D.4)."""
        call = self._checked(exchange, task_type, body)
        organization = exchange.key.organization
        organization.slots_used += 1
        running = asyncio.get_running_loop().create_task(self._occupy(call))
        self.running.add(running)
        running.add_done_callback(self.running.discard)
        # Shielded: an abandoned call goes on at the provider and holds its slot until its attempt ends (B45).
        answer = await asyncio.shield(running)
        exchange.headers["X-Credits-Remaining"] = str(organization.account.reported)
        exchange.headers["X-Credits-Charged"] = str(call.charged)
        return b'{"success":true,"result":' + answer + b"}"

    def _checked(self, exchange: Exchange, task_type: str, body: object) -> Call:
        emulator, key = self._emulator, exchange.key
        organization, edition = key.organization, key.edition
        if not isinstance(body, dict):
            problem = {"field": "", "message": "Invalid input: expected object"}
            raise errors.validation_failed(400, [problem])
        problems = check_payload(task_type, body, edition, emulator.options.switches.leniency)
        if not problems and emulator.withdrawn:
            problems = emulator.withdrawal_problems(task_type, body, "")
        if problems:
            raise errors.validation_failed(400, problems)
        prices = emulator.registry.prices(organization, edition)
        price = price_of_sync_call(key, prices, task_type, body)
        self._write_slots(exchange, organization, emulator.options.switches.concurrency_headers)
        if not organization.account.covers(price):
            raise errors.insufficient_credits(edition)
        if organization.slots_used >= organization.slots:
            raise errors.concurrency_full(edition, organization.slots)
        options, number = emulator.options, next(self._numbers)
        fate = fate_of(options.faults, options.fault_seed, number, has_webhook=False)
        return Call(exchange.request, key, task_type, body, number, price, fate)

    @staticmethod
    def _write_slots(exchange: Exchange, organization: Organization, spelling: str | None) -> None:
        """Slots, this request included; on a refusal that is one more than there are (C-D.2, L34)."""
        current = organization.slots_used + 1
        names = _CONCURRENCY_HEADERS.get(spelling or "", (exchange.key.edition.concurrency_header,))
        for name in names:
            exchange.headers[f"{name}-Limit"] = str(organization.slots)
            exchange.headers[f"{name}-Current"] = str(current)
            exchange.headers[f"{name}-Remaining"] = str(max(0, organization.slots - current))

    async def _occupy(self, call: Call) -> bytes:
        organization, totals = call.key.organization, call.key.organization.totals
        status = 200
        try:
            answer = await self._work(call)
            totals.sync_completed += 1
            return answer
        except errors.RefusalError as refusal:
            status = refusal.status
            if status == 499:
                totals.sync_canceled += 1
            else:
                totals.sync_failed += 1
            raise
        finally:
            organization.slots_used -= 1
            totals.sync_charged += call.charged
            now_s = self._emulator.clock.now()
            self.recent.append(
                {"engine": call.task_type, "status": status, "charged": call.charged, "at": iso(now_s)}
            )
            self._emulator.scheduler.start_ready(organization, now_s)

    async def _work(self, call: Call) -> bytes:
        """Attempts until one succeeds, the client has gone, or the budget is spent (C-H)."""
        emulator, options = self._emulator, self._emulator.options
        started_s = emulator.clock.now()
        off = call.task_type == "GROK" and not emulator.scheduler.grok_answers(call.key.edition)
        for attempt in range(1, options.attempts_max + 1):
            if emulator.clock.now() - started_s >= options.sync_budget_s:
                raise errors.internal_error("Maximum timeout (5 minutes) exceeded")
            await self._pass(emulator.scheduler.latency_s(call.task_type, call.number, attempt))
            again = retries_internally(options.faults, options.fault_seed, call.number, attempt)
            failed = off or call.fate.fails or (again and attempt < options.attempts_max)
            if call.abandoned:
                self._bill_abandoned(call, completed=not failed)
                raise errors.RefusalError(499, "REQUEST_CANCELED", "Request was canceled by client")
            if not failed:
                return self._answer(call)
            await self._pass(options.internal_backoff_s * 2 ** (attempt - 1))
        raise errors.internal_error("Maximum retries exceeded")

    def _answer(self, call: Call) -> bytes:
        emulator, key = self._emulator, call.key
        call.charged = self._price_now(call)
        self._charge(call)
        link_id = str(uuid.UUID(int=call.number << 64 | emulator.options.seed & 0xFFFF, version=4))
        return emulator.answers.compose(call.task_type, key.edition, call.body, call.number, link_id)

    def _charge(self, call: Call) -> None:
        if call.charged:
            now_s = self._emulator.clock.now()
            call.key.organization.charge(call.charged, call.task_type, now_s, sync=True)

    def _price_now(self, call: Call) -> int:
        if call.key.free:
            return 0
        emulator, key = self._emulator, call.key
        clusters = clusters_returned(emulator.options.seed, call.number, call.task_type, call.body)
        return call.price + clusters_price(emulator.registry.prices(key.organization, key.edition), clusters)

    def _bill_abandoned(self, call: Call, *, completed: bool) -> None:
        """Row B45 and C-L row L23: billed always, never, or if the attempt that was running has completed."""
        rule = self._emulator.options.switches.bill_canceled
        if rule is None:
            rule = "always" if call.key.edition.bill_canceled else "completed"
        if rule == "always" or (rule == "completed" and completed):
            call.charged = self._price_now(call) if completed else call.price
            self._charge(call)

    async def _pass(self, emulated_s: float) -> None:
        """Wait on the emulated clock."""
        passed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timeline = self._emulator.timeline
        timeline.at(self._emulator.clock.now() + emulated_s, _resolve(passed))
        await passed


def _resolve(future: asyncio.Future[None]) -> Callable[[float], None]:
    def action(now_s: float) -> None:
        if not future.done():
            future.set_result(None)

    return action
