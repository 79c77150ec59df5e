"""`/v1/async/*` (C-G)."""

from __future__ import annotations

import msgspec

from .engine import Emulator
from .exchange import ConnectionLostError, Exchange
from .faults import LOSE_RESPONSE


class AsyncRoutes:
    """Handlers of the task queue."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    async def create(self, exchange: Exchange) -> bytes:
        """POST /v1/async/task (C-G.2)."""
        emulator, key = self._emulator, exchange.key
        task = emulator.create_task(key, await exchange.json(key.edition.invalid_task_status))
        body = emulator.created_body(task, key.edition)
        emulator.scheduler.admit(key.organization, task, task.created_s)
        if task.fate.loses_response:
            task.response_lost = True
            task.faults.append(LOSE_RESPONSE)
            key.organization.totals.responses_lost += 1
            raise ConnectionLostError
        return body

    async def retrieve(self, exchange: Exchange) -> bytes:
        """GET /v1/async/task/{taskId} (C-G.4)."""
        key = exchange.key
        task = self._emulator.find_task(key.organization, exchange.request.match_info["task_id"])
        return self._emulator.status_body(task, key.edition)

    async def status(self, exchange: Exchange) -> bytes:
        """GET /v1/async/status (C-G.5)."""
        return msgspec.json.encode(self._emulator.queue_status(exchange.key))
