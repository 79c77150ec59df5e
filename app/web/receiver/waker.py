"""Tells the queue about committed deliveries, off the request path. Best effort by design: whatever is not
told is found by the sweep, so a slow, full or dead Redis costs a delay and never a delivery (R18, R19).
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import structlog

from app.background_tasks import keep_running
from app.web.metrics import Metrics

log = structlog.get_logger(__name__)


class SettleWake(Protocol):
    """The part of app.ports.Wake that receiving needs."""

    async def wake_settle(self, delivery_ids: Sequence[str]) -> bool: ...


class Waker:
    """Gathers ids for `delay_s`, or until there are `size`, and passes them on; one call at a time."""

    def __init__(
        self,
        wake: SettleWake,
        metrics: Metrics,
        *,
        delay_s: float,
        size: int,
        pending_max: int,
        timeout_s: float,
    ) -> None:
        self._wake = wake
        self._metrics = metrics
        self._delay_s = delay_s
        self._size = size
        self._pending: deque[str] = deque(maxlen=pending_max)
        self._timeout_s = timeout_s
        self._some = asyncio.Event()
        self._enough = asyncio.Event()
        self._closing = False
        self._failing = False
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin passing ids on."""
        run = keep_running(self._pass_on_groups, name="waker", is_over=lambda: self._closing)
        self.task = asyncio.create_task(run, name="waker")

    def add(self, delivery_ids: Sequence[str]) -> None:
        """Pass these on soon. Never waits; when too many wait, the oldest are left to the sweep."""
        room = (self._pending.maxlen or 0) - len(self._pending)
        if len(delivery_ids) > room:
            self._metrics.wakes_dropped.inc(len(delivery_ids) - room)
        self._pending.extend(delivery_ids)
        self._some.set()
        if len(self._pending) >= self._size:
            self._enough.set()

    async def close(self, timeout_s: float) -> None:
        """Pass on what is left, for `timeout_s` at most."""
        self._closing = True
        self._some.set()
        self._enough.set()
        if self.task is None:
            return
        await asyncio.wait({self.task}, timeout=timeout_s)
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _pass_on_groups(self) -> None:
        while True:
            await self._some.wait()
            if not self._closing:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._delay_s):
                        await self._enough.wait()
            ids = [self._pending.popleft() for _ in range(min(self._size, len(self._pending)))]
            if ids:
                await self._pass_on_group(ids)
            if len(self._pending) < self._size and not self._closing:
                self._enough.clear()
            if not self._pending:
                if self._closing:
                    return
                self._some.clear()

    async def _pass_on_group(self, ids: list[str]) -> None:
        taken = False
        try:
            async with asyncio.timeout(self._timeout_s):
                taken = await self._wake.wake_settle(ids)
        except TimeoutError:
            pass
        except Exception as error:
            # The port promises not to raise; should it, later deliveries still deserve their wake.
            log.error("wake_raised", error=repr(error))
        if not taken:
            self._metrics.wake_failures.inc(len(ids))
        # Only the turns are told: an outage of an hour is two lines.
        if not taken and not self._failing:
            log.warning("wakes_not_taken", deliveries=len(ids))
        elif taken and self._failing:
            log.info("wakes_taken_again")
        self._failing = not taken
