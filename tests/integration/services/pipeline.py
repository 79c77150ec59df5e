"""One run on a real store, and the services called on it with a stepped clock. How the tests of this folder
reach the code, so that a change of its calls is followed in one place.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count
from typing import Any

from app.domain.delivery import RawDelivery
from app.domain.settlement import Source
from app.domain.task import TaskSpec, new_id
from app.limits import Limits, to_ms
from app.ports import Provider
from app.provider.wire import read_report
from app.services.settle import SettleSummary, settle
from app.services.submit import SubmitSummary, submit
from app.services.sweep import SweepSummary, sweep
from app.store import Store
from tests.books import Books, checked_books
from tests.changed_limits import changed
from tests.clock import SteppedClock
from tests.scripted_provider import Accepted, ScriptedProvider

HOUR_MS = 3_600_000
LIMITS = Limits(claim_size=50, submit_in_flight=8, submit_job_s=15, settle_size=20, poll_size=100)
UNMATCHED_MS = 60_000
ESTIMATE = Decimal(5)

_tokens = count(1)


@dataclass
class Pipeline:
    """A store, a provider, and the verbs."""

    store: Store
    clock: SteppedClock
    provider: ScriptedProvider = field(default_factory=ScriptedProvider)
    limits: Limits = LIMITS
    run_id: str = ""
    task_ids: list[str] = field(default_factory=list)

    async def start(
        self, tasks: int, *, budget: Decimal | None = None, engines: Sequence[str] = ("CHATGPT",), **how: Any
    ) -> list[str]:
        """A running run of that many tasks of 5 credits each, of each engine in turn; their ids."""
        self.run_id = await self.store.runs.create_run(
            name="run", source="-", budget=budget, now_ms=self.clock(), **how
        )
        specs = [
            (TaskSpec(n, engines[n % len(engines)], {"prompt": f"p{n}", "country": "DE"}), ESTIMATE)
            for n in range(1, tasks + 1)
        ]
        self.task_ids = await self.store.runs.add_tasks(self.run_id, specs, self.clock())
        await self.store.runs.start_run_if_loading(self.run_id, sha256="", bad_lines=0)
        return self.task_ids

    async def submit(
        self,
        *,
        provider: Provider | None = None,
        token: str | None = None,
        stopping: Callable[[], bool] = lambda: False,
        **limits: float,
    ) -> SubmitSummary:
        """One submit job."""
        return await submit(
            self.store,
            provider or self.provider,
            limits=changed(self.limits, **limits),
            clock=self.clock,
            jitter=lambda: 0.5,
            token=token or f"job-{next(_tokens)}",
            stopping=stopping,
        )

    async def receive(self, *bodies: bytes | Accepted) -> list[str]:
        """Commit deliveries as the receiver does; their ids."""
        raw = [
            RawDelivery(
                new_id(self.clock()),
                Source.DELIVERY,
                self.clock(),
                body.body() if isinstance(body, Accepted) else body,
            )
            for body in bodies
        ]
        await self.store.inbox.store_deliveries(raw, due_at_ms=self.clock() + to_ms(LIMITS.sweep_after_s))
        return [delivery.id for delivery in raw]

    async def settle(self, delivery_ids: list[str]) -> SettleSummary:
        """One settle job."""
        return await settle(
            self.store, read_report, delivery_ids, clock=self.clock, unmatched_ms=UNMATCHED_MS
        )

    async def deliver(self, *bodies: bytes | Accepted) -> SettleSummary:
        """Receive, then settle."""
        return await self.settle(await self.receive(*bodies))

    async def sweep(
        self, provider: Provider | None = None, *, unreleased: set[str] | None = None, **limits: float
    ) -> SweepSummary:
        """One pass of the sweep, in a process of its own unless it is given what the one before left."""
        return await sweep(
            self.store,
            {"default": provider or self.provider},
            lambda ids: self.settle(list(ids)),
            limits=changed(LIMITS, **limits),
            clock=self.clock,
            unreleased=set() if unreleased is None else unreleased,
        )

    async def books(self) -> Books:
        """The rows, after their invariants have been checked."""
        return await checked_books(self.store)


async def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait for a condition of this process, turn by turn of the event loop."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - a condition has no event
            await asyncio.sleep(0.001)
