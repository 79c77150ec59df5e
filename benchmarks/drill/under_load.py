"""A cluster under load, and what happened to it."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace

import aiohttp

from benchmarks.drill.figures import Fault
from tests.e2e.cluster import Cluster
from tests.servers.machines import Machine
from tests.servers.pairs import DatabasePair, RedisPair

RECOVERED_S = 120.0
FINISHED_S = 240.0


@dataclass(frozen=True)
class Size:
    """How much load, and how long each part lasts."""

    rate_per_s: int
    tasks: int
    quiet_s: float
    partition_s: float
    service_s: float
    """How long a machine is cut off from one service, or hindered in another way."""
    calm_s: float
    """Between two faults, once the run goes on."""


FULL = Size(rate_per_s=60, tasks=30_000, quiet_s=60, partition_s=30, service_s=20, calm_s=6)
OTHERS = replace(FULL, tasks=40_000)
OTHERS_SHORT = replace(FULL, tasks=18_000, quiet_s=15, service_s=8, calm_s=2)
RATE = Size(rate_per_s=60, tasks=3_600, quiet_s=45, partition_s=0, service_s=0, calm_s=0)
SHORT = Size(rate_per_s=60, tasks=7_000, quiet_s=15, partition_s=10, service_s=8, calm_s=2)


@dataclass
class Drill:
    """A cluster under load, and what happened to it."""

    cluster: Cluster
    machines: dict[str, Machine]
    database: DatabasePair
    redis: RedisPair
    size: Size
    faults: list[Fault] = field(default_factory=list)
    asked: int = 0
    unanswered: int = 0

    async def settled(self) -> int:
        """How many tasks; -1 while the database cannot tell."""
        with contextlib.suppress(Exception):
            states = (await self.cluster.store.queries.progress(self.cluster.run_id)).states
            return states.get("completed", 0) + states.get("failed", 0)
        return -1

    async def pending(self) -> int:
        """How many tasks still have to be sent."""
        return (await self.cluster.store.queries.progress(self.cluster.run_id)).states.get("pending", 0)

    async def until_more_settled(self) -> None:
        """Wait until work of two seconds was settled since."""
        before = await self.settled()

        async def more() -> bool:
            nonlocal before
            now = await self.settled()
            before = now if before < 0 else before
            return now >= before + 2 * self.size.rate_per_s >= 0

        await self.cluster.until(more, "settling that goes on", timeout_s=RECOVERED_S)

    async def meet(self, name: str, fault: Callable[[], Awaitable[None]]) -> None:
        """Let a fault be, under load, and wait until the run goes on."""
        if not await self.pending():
            raise AssertionError(f"all tasks were sent before {name}: give more --tasks")
        print(f"{time.strftime('%H:%M:%S', time.gmtime())} {name}", file=sys.stderr, flush=True)
        self.begin(name)
        await fault()
        await self.until_more_settled()
        await asyncio.sleep(self.size.calm_s)

    def begin(self, name: str) -> None:
        """From now on what happens is put down to this."""
        now = time.time_ns() // 1_000_000
        if self.faults:
            self.faults[-1].to_ms = now
        self.faults.append(Fault(name, now, now))

    @contextlib.asynccontextmanager
    async def asking(self, token: str) -> AsyncIterator[None]:
        """A client that asks the API for the run, twice a second, whatever happens."""
        client = asyncio.create_task(self._ask(token))
        try:
            yield
        finally:
            client.cancel()
            await asyncio.wait([client])

    async def _ask(self, token: str) -> None:
        url = f"{self.cluster.api_url}/v1/runs/{self.cluster.run_id}"
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {token}"}, timeout=timeout
        ) as client:
            while True:
                self.asked += 1
                try:
                    async with client.get(url) as answer:
                        self.unanswered += answer.status != 200
                except (aiohttp.ClientError, TimeoutError):
                    self.unanswered += 1
                await asyncio.sleep(0.5)


async def finished(drill: Drill) -> None:
    """Wait until all is sent, settled and delivered; what is not by then is lost."""
    cluster = drill.cluster

    async def done() -> bool:
        if (await cluster.store.queries.progress(cluster.run_id)).open:
            return False
        books = await asyncio.to_thread(cluster.books, tasks=False)
        return not books["active_tasks"] and not books["pending_deliveries"]

    seconds = FINISHED_S + drill.size.tasks / drill.size.rate_per_s
    with contextlib.suppress(AssertionError):
        await cluster.until(done, "a finished run", timeout_s=seconds)
