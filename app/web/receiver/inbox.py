"""The inbox: makes raw deliveries durable, many of them in one commit, before any of them is acknowledged.

One task commits. While one commit runs, the next group gathers; so the group grows with the load, and a
single delivery does not wait for company. May not look into a delivery.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from app.background_tasks import keep_running
from app.domain.delivery import RawDelivery
from app.ports import Clock
from app.web.limits import WebLimits
from app.web.metrics import Metrics
from app.web.receiver.waker import SettleWake, Waker

if TYPE_CHECKING:
    from app.store import Store

log = structlog.get_logger(__name__)

SUMMARY_EVERY_S = 10.0
"""One line about commits in this time at most; each by itself is told at debug level."""


class InboxFull(Exception):  # noqa: N818 - a state, not an error
    """Nothing more is taken now; the text is full, stalled or draining. Answer 503."""


class CommitFailed(Exception):  # noqa: N818
    """The commit that held this delivery failed or took too long. Answer 503; the provider sends it again."""


@dataclass(slots=True)
class _Waiting:
    delivery: RawDelivery
    committed: asyncio.Future[None]


class Inbox:
    """Group commit with bounds. `start` it, `accept` deliveries, `drain` and `close` it, in this order."""

    def __init__(
        self, store: "Store", wake: SettleWake, *, limits: WebLimits, clock: Clock, metrics: Metrics
    ) -> None:
        self._store = store
        self._limits = limits
        self._clock = clock
        self._metrics = metrics
        self._waker = Waker(
            wake,
            metrics,
            delay_s=limits.wake_delay_s,
            size=limits.wake_size,
            pending_max=limits.wakes_pending_max,
            timeout_s=limits.wake_timeout_s,
        )
        self._gathered: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._committer: asyncio.Task[None] | None = None
        self._draining = False
        self._closing = False
        self._stalled = False
        self._summary = _Summary()
        self.waiting = 0
        """Deliveries taken and not yet committed, those of the running commit included."""
        self.waiting_bytes = 0
        self.last_commit_s: float | None = None
        """Monotonic moment of the last commit that succeeded."""
        self.last_error: str | None = None
        """Why the last commit failed; null when it succeeded."""

    @property
    def is_dead(self) -> bool:
        """Deliveries are not taken, or not passed on, and never will be."""
        return any(task.done() for task in self.tasks)

    @property
    def refusal(self) -> str | None:
        """Why nothing more would be taken now; asked before a body is read."""
        if self._draining:
            return "draining"
        if self._committer is None or self._committer.done():
            return "not_running"
        if self._stalled:
            return "stalled"
        limits = self._limits
        if self.waiting >= limits.deliveries_waiting_max or self.waiting_bytes >= limits.waiting_bytes_max:
            return "full"
        return None

    def start(self) -> None:
        """Begin to commit."""
        name = "inbox committer"
        run = keep_running(self._commit_groups, name=name, is_over=lambda: self._closing)
        self._committer = asyncio.create_task(run, name=name)
        self._waker.start()

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """What must run for deliveries to be taken and passed on; WorkFailed comes out of one that cannot."""
        return {task for task in (self._committer, self._waker.task) if task is not None}

    async def accept(self, delivery: RawDelivery) -> None:
        """Return once the commit that holds `delivery` has succeeded.

        Raises InboxFull or CommitFailed. Cancelling the caller changes nothing for the delivery: the commit
        belongs to the inbox, and the row is settled or merely evidence of a repeat (R15).
        """
        self._check_room(len(delivery.body))
        waiting = _Waiting(delivery, asyncio.get_running_loop().create_future())
        self.waiting += 1
        self.waiting_bytes += len(delivery.body)
        self._gathered.append(waiting)
        self._arrived.set()
        await waiting.committed

    def drain(self) -> None:
        """Refuse new requests; those whose body is being read are still taken until `close`."""
        self._draining = True

    async def close(self) -> None:
        """Commit what is gathered, pass its wakes on, end. Bounded by flush_timeout_s for each of the two."""
        self.drain()
        self._closing = True
        self._arrived.set()
        if self._committer is not None:
            await asyncio.wait({self._committer}, timeout=self._limits.flush_timeout_s)
            self._committer.cancel()
            await asyncio.gather(self._committer, return_exceptions=True)
        self._fail_gathered("the receiver has ended")
        self._summary.tell()
        await self._waker.close(self._limits.flush_timeout_s)

    def _check_room(self, body_bytes: int) -> None:
        if self._closing:
            raise InboxFull("draining")
        if self._stalled:
            raise InboxFull("stalled")
        limits = self._limits
        if (
            self.waiting >= limits.deliveries_waiting_max
            or self.waiting_bytes + body_bytes > limits.waiting_bytes_max
        ):
            raise InboxFull("full")

    async def _commit_groups(self) -> None:
        while True:
            while not self._gathered:
                if self._closing:
                    return
                self._arrived.clear()
                await self._arrived.wait()
            size = min(len(self._gathered), self._limits.commit_size_max)
            group = [self._gathered.popleft() for _ in range(size)]
            try:
                await self._commit_group(group)
            except Exception as error:
                # A bug, not the database; the committer must outlive it all the same.
                self._failed(group, error)
            finally:
                # Also when this task is cancelled in the middle: a waiter is answered, whatever happens.
                self._fail(group, "the receiver has ended")
                self.waiting -= len(group)
                self.waiting_bytes -= sum(len(waiting.delivery.body) for waiting in group)

    async def _commit_group(self, group: list[_Waiting]) -> None:
        started_s = time.monotonic()
        due_at_ms = self._clock() + int(self._limits.due_after_s * 1000)
        write = asyncio.ensure_future(
            self._store.inbox.store_deliveries([waiting.delivery for waiting in group], due_at_ms=due_at_ms)
        )
        try:
            await asyncio.wait({write}, timeout=self._limits.commit_timeout_s)
            if not write.done():
                await self._give_up(write, group)
            elif write.cancelled():
                self._failed(group, "cancelled")
            elif (error := write.exception()) is not None:
                self._failed(group, error)
            else:
                self._acknowledge(group, write.result(), time.monotonic() - started_s)
        finally:
            write.cancel()

    async def _give_up(self, write: asyncio.Future[set[str]], group: list[_Waiting]) -> None:
        """The commit takes too long: answer everybody who waits, and take nothing until it has ended. What it
        holds stays counted, so a database that hangs cannot make us pile up deliveries."""
        self._stalled = True
        try:
            self._failed(group, "timeout")
            self._fail_gathered("the commit before it took too long")
            write.cancel()
            await asyncio.wait({write})
            if not write.cancelled() and write.exception() is None:
                # It succeeded after all. Unacknowledged rows are harmless: the sweep settles them.
                log.warning("late_commit_succeeded", deliveries=len(group))
        finally:
            self._stalled = False

    def _fail_gathered(self, reason: str) -> None:
        self._fail(self._gathered, reason)
        self.waiting -= len(self._gathered)
        self.waiting_bytes -= sum(len(waiting.delivery.body) for waiting in self._gathered)
        self._gathered.clear()

    def _acknowledge(self, group: list[_Waiting], known: set[str], seconds: float) -> None:
        self.last_commit_s = time.monotonic()
        self.last_error = None
        for waiting in group:
            if not waiting.committed.done():
                waiting.committed.set_result(None)
        ids = dict.fromkeys(waiting.delivery.id for waiting in group)
        new = [delivery_id for delivery_id in ids if delivery_id not in known]
        if new:
            self._waker.add(new)
        if len(new) < len(group):
            self._metrics.repeats.inc(len(group) - len(new))
        self._metrics.commit_size.observe(len(group))
        self._metrics.commit_seconds.observe(seconds)
        log.debug("group_committed", deliveries=len(group), seconds=round(seconds, 4))
        self._summary.note(len(group), seconds)

    def _failed(self, group: list[_Waiting], reason: str | BaseException) -> None:
        # A database error may quote what was to be stored, from its second line on.
        detail = (str(getattr(reason, "orig", reason)).splitlines() or [""])[0][:300]
        self.last_error = reason if isinstance(reason, str) else type(reason).__name__
        self._metrics.commit_failures.inc()
        log.error("deliveries_not_committed", deliveries=len(group), reason=self.last_error, error=detail)
        self._fail(group, self.last_error)

    def _fail(self, group: Iterable[_Waiting], reason: str) -> None:
        for waiting in group:
            if not waiting.committed.done():
                waiting.committed.set_exception(CommitFailed(reason))


class _Summary:
    """One line about many commits."""

    def __init__(self) -> None:
        self._since_s = time.monotonic()
        self._commits = 0
        self._deliveries = 0
        self._slowest_s = 0.0

    def note(self, deliveries: int, seconds: float) -> None:
        self._commits += 1
        self._deliveries += deliveries
        self._slowest_s = max(self._slowest_s, seconds)
        if time.monotonic() - self._since_s >= SUMMARY_EVERY_S:
            self.tell()

    def tell(self) -> None:
        if self._commits:
            log.info(
                "deliveries_committed",
                deliveries=self._deliveries,
                commits=self._commits,
                slowest_s=round(self._slowest_s, 4),
            )
        self._since_s = time.monotonic()
        self._commits = self._deliveries = 0
        self._slowest_s = 0.0
