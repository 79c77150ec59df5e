"""Wakes settlement for committed deliveries, off the request path. Best effort by design: the sweep finds
whatever was not woken, so a slow, full or dead Redis costs a delay and never a delivery (R18, R19).
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import structlog

from app.background_tasks import keep_running
from app.waiting import set_within
from app.web.metrics import Metrics

log = structlog.get_logger(__name__)


class SettleWake(Protocol):
    """The part of app.ports.Wake that receiving needs."""

    async def wake_settle(self, delivery_ids: Sequence[str]) -> bool: ...


class Waker:
    """Gathers ids for `delay_s`, or until there are `size`, and enqueues them; one call at a time. Of more
    than `group`, which one transaction settles, whole groups: for a few it costs as much."""

    def __init__(
        self,
        wake: SettleWake,
        metrics: Metrics,
        *,
        delay_s: float,
        size: int,
        group: int,
        pending_max: int,
        timeout_s: float,
    ) -> None:
        self._wake = wake
        self._metrics = metrics
        self._delay_s = delay_s
        self._size = size
        self._group = group
        self._pending: deque[str] = deque(maxlen=pending_max)
        self._timeout_s = timeout_s
        self._has_pending = asyncio.Event()
        self._has_full_wake = asyncio.Event()
        self._closing = False
        self._failing = False
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task that sends wakes."""
        send = keep_running(self.send_wakes, name="waker", is_over=lambda: self._closing)
        self.task = asyncio.create_task(send, name="waker")

    def wake_soon(self, delivery_ids: Sequence[str]) -> None:
        """Enqueue these soon. Never waits; when too many are pending, the oldest are left to the sweep."""
        room = (self._pending.maxlen or 0) - len(self._pending)
        if len(delivery_ids) > room:
            self._metrics.wakes_dropped.inc(len(delivery_ids) - room)
        self._pending.extend(delivery_ids)
        self._has_pending.set()
        if len(self._pending) >= self._size:
            self._has_full_wake.set()

    async def close(self, timeout_s: float) -> None:
        """Enqueue what is pending, for `timeout_s` at most."""
        self._closing = True
        self._has_pending.set()
        self._has_full_wake.set()
        if self.task is None:
            return
        await asyncio.wait({self.task}, timeout=timeout_s)
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def send_wakes(self) -> None:
        """The waker's task, until `close`."""
        while True:
            await self._has_pending.wait()
            if not self._closing:
                await set_within(self._has_full_wake, self._delay_s)
            ids = [self._pending.popleft() for _ in range(self._due_count())]
            if ids:
                await self._enqueue_wake(ids)
            if len(self._pending) < self._size and not self._closing:
                self._has_full_wake.clear()
            if not self._pending:
                if self._closing:
                    return
                self._has_pending.clear()

    def _due_count(self) -> int:
        count = min(self._size, len(self._pending))
        # Those that are left are the first of the next wake.
        return count if count < self._group or self._closing else count - count % self._group

    async def _enqueue_wake(self, ids: list[str]) -> None:
        is_taken = False
        try:
            async with asyncio.timeout(self._timeout_s):
                is_taken = await self._wake.wake_settle(ids)
        except TimeoutError:
            pass
        except Exception as error:
            # The port promises not to raise; should it, later deliveries still get their wake.
            log.error("wake_raised", error=repr(error))
        if not is_taken:
            self._metrics.wake_failures.inc(len(ids))
        # Only changes are logged: an outage of an hour is two lines.
        if not is_taken and not self._failing:
            log.warning("wakes_not_taken", deliveries=len(ids))
        elif is_taken and self._failing:
            log.info("wakes_taken_again")
        self._failing = not is_taken
