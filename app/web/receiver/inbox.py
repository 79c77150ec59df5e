"""The inbox: makes raw deliveries durable, many of them in one commit, before any of them is acknowledged.

One task commits. While one commit runs, the next group is queued; so a group grows with the load, and a
single delivery does not wait for others. May not look into a delivery.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from app import tracing
from app.background_tasks import keep_running
from app.domain.delivery import RawDelivery
from app.limits import Limits
from app.ports import Clock, StoreRefused, StoreUnavailable
from app.web.metrics import Metrics
from app.web.receiver.waker import SettleWake, Waker

if TYPE_CHECKING:
    from app.store import Store

log = structlog.get_logger(__name__)

TRIED_AGAIN_S = 0.5
"""Between two looks whether a database that hung takes writes again."""
LINGER_S, LINGER_STEP_S = 0.02, 0.004
"""How long a commit waits for others to share it, and for how long none may come meanwhile. It costs some
0.4 ms of processor time whatever it holds; at 500 deliveries a second it held five."""
LINGER_FROM, LINGER_SIZE = 4, 32
"""Deliveries: waited only when the commit before held so many, so that a single one is not kept waiting, and
until there are as many as half of what a sender with 64 requests at a time can have."""
SUMMARY_EVERY_S = 10.0
"""One line about commits in this time at most; each single one is logged at debug level."""


class InboxFull(Exception):  # noqa: N818 - a state, not an error
    """No delivery is taken now; the text is full, stalled or draining. Answer 503."""


class CommitFailed(Exception):  # noqa: N818
    """The commit that held this delivery failed or took too long. Answer 503; the provider sends it again."""


Committed = Callable[["CommitFailed | None"], None]
"""Called once about a delivery: it is committed, or why not. Must not raise."""


@dataclass(slots=True)
class _Queued:
    delivery: RawDelivery
    committed: Committed | None
    span: tracing.Span | None
    """None: nobody traces."""

    def finish(self, failure: CommitFailed | None = None) -> None:
        """Tell who waits, if nobody has yet."""
        committed, self.committed = self.committed, None
        if committed is not None:
            if self.span is not None:
                self.span.end(stored=failure is None)
            committed(failure)


def _span_of(delivery: RawDelivery) -> tracing.Span:
    """From its signature to its answer."""
    return tracing.begin(
        "accept",
        root=tracing.of_delivery(delivery.id),
        delivery=delivery.id,
        account=delivery.account,
        bytes=len(delivery.body),
    )


class Inbox:
    """Group commit with bounds. `start` it, `commit_delivery`, `drain` and `close` it, in this order."""

    def __init__(
        self, store: "Store", wake: SettleWake, *, limits: Limits, clock: Clock, metrics: Metrics
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
            group=limits.settle_size,
            pending_max=limits.wakes_pending_max,
            timeout_s=limits.wake_timeout_s,
        )
        self._queued: deque[_Queued] = deque()
        self._has_queued = asyncio.Event()
        self._last_size = 0
        self._committer: asyncio.Task[None] | None = None
        self._draining = False
        self._closing = False
        self._stalled = False
        self._summary = _CommitSummary()
        self.waiting = 0
        """Deliveries that are not committed yet, those of the running commit included."""
        self.waiting_bytes = 0
        self.last_commit_s: float | None = None
        """Monotonic time of the last commit that succeeded."""
        self.last_error: str | None = None
        """Why the last commit failed; None when it succeeded."""

    @property
    def is_dead(self) -> bool:
        """Deliveries are not taken, or not passed on, and never will be."""
        return any(task.done() for task in self.tasks)

    @property
    def refusal_reason(self) -> str | None:
        """Why a delivery would be refused now; checked before a body is read."""
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
        """Start the committer and the waker."""
        name = "inbox committer"
        commit = keep_running(self.commit_groups, name=name, is_over=lambda: self._closing)
        self._committer = asyncio.create_task(commit, name=name)
        self._waker.start()

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """What must run for deliveries to be taken and passed on; WorkFailed comes out of one that cannot."""
        return {task for task in (self._committer, self._waker.task) if task is not None}

    async def commit_delivery(self, delivery: RawDelivery) -> None:
        """Return once the commit that holds `delivery` has succeeded; the caller may acknowledge it then.

        Raises InboxFull or CommitFailed. Cancelling the caller changes nothing for the delivery: the commit
        belongs to the inbox, and the row is settled or merely evidence of a repeat (R15).
        """
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def finish(failure: CommitFailed | None) -> None:
            if outcome.done():
                return
            if failure is None:
                outcome.set_result(None)
            else:
                outcome.set_exception(failure)

        self.queue_delivery(delivery, finish)
        await outcome

    def queue_delivery(self, delivery: RawDelivery, committed: Committed) -> None:
        """The same without waiting: `committed` is called later, by the loop. Raises InboxFull; then
        it is not called."""
        self._require_room(len(delivery.body))
        self.waiting += 1
        self.waiting_bytes += len(delivery.body)
        span = _span_of(delivery) if tracing.is_on() else None
        self._queued.append(_Queued(delivery, committed, span))
        self._has_queued.set()

    def drain(self) -> None:
        """Refuse new requests; those whose body is being read are still taken until `close`."""
        self._draining = True

    async def close(self) -> None:
        """Commit what is queued, send its wakes, end. Bounded by flush_timeout_s for each of the two."""
        self.drain()
        self._closing = True
        self._has_queued.set()
        if self._committer is not None:
            await asyncio.wait({self._committer}, timeout=self._limits.flush_timeout_s)
            self._committer.cancel()
            await asyncio.gather(self._committer, return_exceptions=True)
        self._fail_queued("the receiver has ended")
        self._summary.write_line()
        await self._waker.close(self._limits.flush_timeout_s)

    def _require_room(self, body_bytes: int) -> None:
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

    async def commit_groups(self) -> None:
        """The committer's task: commit what is queued, group by group, until `close`."""
        while True:
            while not self._queued:
                if self._closing:
                    return
                self._has_queued.clear()
                await self._has_queued.wait()
            await self._linger()
            group: list[_Queued] = []
            self._take_queued(group)
            of_all = (tracing.of_delivery(waiting.delivery.id) for waiting in group)
            try:
                with tracing.span("commit", links=of_all) as span:
                    await self._write_group(group)
                    span.set(deliveries=len(group))
            except Exception as error:
                # A bug, not the database; the committer must outlive it all the same.
                self._fail_group(group, error)
            finally:
                # Also when this task is cancelled in the middle: every caller gets a result.
                self._fail_callers(group, "the receiver has ended")
                self.waiting -= len(group)
                self.waiting_bytes -= sum(len(waiting.delivery.body) for waiting in group)

    async def _linger(self) -> None:
        """While deliveries keep coming, wait for some to share the commit."""
        if self._last_size < LINGER_FROM:
            return
        until_s, seen = time.monotonic() + LINGER_S, 0
        enough = min(LINGER_SIZE, self._limits.commit_size_max)
        while seen < len(self._queued) < enough and time.monotonic() < until_s and not self._closing:
            seen = len(self._queued)
            await asyncio.sleep(LINGER_STEP_S)

    def _take_queued(self, group: list[_Queued]) -> list[_Queued]:
        """Add to a group what is queued, as far as it has room; what was added."""
        size = min(len(self._queued), self._limits.commit_size_max - len(group))
        taken = [self._queued.popleft() for _ in range(size)]
        group += taken
        return taken

    async def _write_group(self, group: list[_Queued]) -> None:
        """Others join the group until the database can be written to: while another process writes to an
        SQLite file, that is most of the time that a commit takes."""
        started_s = time.monotonic()
        write = asyncio.ensure_future(
            self._store.inbox.store_deliveries(
                [waiting.delivery for waiting in group],
                due_at_ms=self._clock() + int(self._limits.sweep_after_s * 1000),
                more=lambda: [waiting.delivery for waiting in self._take_queued(group)],
            )
        )
        try:
            await asyncio.wait({write}, timeout=self._limits.commit_timeout_s)
            if not write.done():
                await self._wait_out_slow_commit(write, group)
            elif write.cancelled():
                self._fail_group(group, "cancelled")
            elif (error := write.exception()) is not None:
                self._fail_group(group, error)
            else:
                self._finish_group(group, write.result(), time.monotonic() - started_s)
        finally:
            write.cancel()

    async def _wait_out_slow_commit(self, write: asyncio.Future[set[str]], group: list[_Queued]) -> None:
        """Fail everybody who waits, and take nothing until the commit has ended. What it holds stays counted,
        so a database that hangs cannot make deliveries pile up."""
        self._stalled = True
        try:
            self._fail_group(group, "timeout")
            self._fail_queued("the commit before it took too long")
            write.cancel()
            await asyncio.wait({write})
            if not write.cancelled() and write.exception() is None:
                # It succeeded after all. Unacknowledged rows are harmless: the sweep settles them.
                log.warning("late_commit_succeeded", deliveries=len(group))
            await self._until_it_takes_writes()
        finally:
            self._stalled = False

    async def _until_it_takes_writes(self) -> None:
        """Or each next group waits as long in vain, while another receiver behind the same address could have
        taken it."""
        while not self._closing:
            with contextlib.suppress(StoreUnavailable, StoreRefused, TimeoutError):
                async with asyncio.timeout(self._limits.commit_timeout_s):
                    await self._store.health.try_write()
                return
            await asyncio.sleep(TRIED_AGAIN_S)

    def _fail_queued(self, reason: str) -> None:
        self._fail_callers(self._queued, reason)
        self.waiting -= len(self._queued)
        self.waiting_bytes -= sum(len(waiting.delivery.body) for waiting in self._queued)
        self._queued.clear()

    def _finish_group(self, group: list[_Queued], known: set[str], seconds: float) -> None:
        """Report success to the callers of the group, who answer 2xx now. `known` ids are repeats and wake
        nobody."""
        self.last_commit_s = time.monotonic()
        self.last_error = None
        self._last_size = len(group)
        for waiting in group:
            waiting.finish()
        ids = dict.fromkeys(waiting.delivery.id for waiting in group)
        new = [delivery_id for delivery_id in ids if delivery_id not in known]
        if new:
            self._waker.wake_soon(new)
        if len(new) < len(group):
            self._metrics.repeats.inc(len(group) - len(new))
        self._metrics.commit_size.observe(len(group))
        self._metrics.commit_seconds.observe(seconds)
        log.debug("group_committed", deliveries=len(group), seconds=round(seconds, 4))
        self._summary.count_commit(len(group), seconds)

    def _fail_group(self, group: list[_Queued], reason: str | BaseException) -> None:
        # A database error may quote what was to be stored, from its second line on.
        detail = (str(getattr(reason, "orig", reason)).splitlines() or [""])[0][:300]
        self.last_error = reason if isinstance(reason, str) else type(reason).__name__
        self._metrics.commit_failures.inc()
        log.error("deliveries_not_committed", deliveries=len(group), reason=self.last_error, error=detail)
        self._fail_callers(group, self.last_error)

    def _fail_callers(self, group: Iterable[_Queued], reason: str) -> None:
        for waiting in group:
            if waiting.committed is not None:
                waiting.finish(CommitFailed(reason))


class _CommitSummary:
    """One line about many commits."""

    def __init__(self) -> None:
        self._since_s = time.monotonic()
        self._commits = 0
        self._deliveries = 0
        self._slowest_s = 0.0

    def count_commit(self, deliveries: int, seconds: float) -> None:
        self._commits += 1
        self._deliveries += deliveries
        self._slowest_s = max(self._slowest_s, seconds)
        if time.monotonic() - self._since_s >= SUMMARY_EVERY_S:
            self.write_line()

    def write_line(self) -> None:
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
