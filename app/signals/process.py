"""What every process counts, on a registry of its own: a test may hold several in one process.

Counters of one process each. Whoever scrapes adds them up: no files are shared, and none are left behind by
processes that died.
"""

import asyncio
import functools
from collections.abc import Callable, Iterable
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

disable_created_metrics()  # type: ignore[no-untyped-call]  # a further series for each counter, which nobody asks for

CALL_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LAG_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
TRANSACTIONS = ("read", "write", "append", "long")
"""Their kinds (store/database.py)."""
LAG_EVERY_S = 0.25
"""How often the event loop is asked whether it is late: 0.05 % of a core."""
Connections = Callable[[], tuple[int, int, int]]
"""How many are in use, how many idle, how many there may be."""


class WatchedDatabase(Protocol):
    """The database, as far as this needs it."""

    watch: Callable[[str, float, bool], None]

    def connections(self) -> tuple[int, int, int]: ...


class ProcessSignals:
    """Event loop, database, Redis, and what the operating system says of the process."""

    def __init__(self, process: str) -> None:
        """`process`: web, api or worker."""
        self.process = process
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Gauge(
            "tallyhook_process_info", "1, of each process that runs", ["process"], registry=registry
        ).labels(process).set(1)
        self._lag = Histogram(
            "tallyhook_loop_lag_seconds",
            f"How late the event loop was, asked every {LAG_EVERY_S:g} s",
            buckets=LAG_SECONDS,
            registry=registry,
        )
        self._database = Histogram(
            "tallyhook_database_seconds",
            "Duration of transactions, their tries included; long: those that may take minutes",
            ["kind"],
            buckets=CALL_SECONDS,
            registry=registry,
        )
        self._database_failures = Counter(
            "tallyhook_database_failures",
            "Transactions that the database did not take, after all tries",
            ["kind"],
            registry=registry,
        )
        self._redis = Histogram(
            "tallyhook_redis_seconds",
            "Duration of commands and pipelines, a new connection included",
            buckets=CALL_SECONDS,
            registry=registry,
        )
        self._redis_failures = Counter(
            "tallyhook_redis_failures", "Commands and pipelines that Redis did not answer", registry=registry
        )
        self._pools = _Pools()
        registry.register(self._pools)
        self._clock_offset = Gauge(
            "tallyhook_database_clock_offset_seconds",
            "This machine's clock minus the database's, by which everything is dated; 0 until it is known",
            registry=registry,
        )
        # Labels that are kept: looking one up costs more than counting.
        self._took = functools.cache(self._database.labels)
        self._failed = functools.cache(self._database_failures.labels)
        for kind in TRANSACTIONS:  # from 0 on: what is first seen at 3 has not grown
            self._failed(kind)

    def note_database(self, kind: str, took_s: float, failed: bool) -> None:
        """One transaction has ended."""
        self._took(kind).observe(took_s)
        if failed:
            self._failed(kind).inc()

    def note_redis(self, took_s: float, failed: bool) -> None:
        """One command or pipeline has ended."""
        self._redis.observe(took_s)
        if failed:
            self._redis_failures.inc()

    def watch_database(self, pool: str, database: WatchedDatabase) -> None:
        """Be told of its transactions, and show its connections."""
        database.watch = self.note_database
        self.watch_pool(pool, database.connections)

    def watch_clock(self, ahead_s: Callable[[], float]) -> None:
        """Show how far the machine's clock is ahead of the database's."""
        self._clock_offset.set_function(ahead_s)

    def watch_pool(self, pool: str, connections: Connections) -> None:
        """Show the connections of a pool whenever it is scraped."""
        self._pools.known[pool] = connections

    async def watch_loop(self) -> None:
        """Until it is cancelled."""
        now_s = asyncio.get_running_loop().time
        while True:
            due_s = now_s() + LAG_EVERY_S
            await asyncio.sleep(LAG_EVERY_S)
            self._lag.observe(max(now_s() - due_s, 0.0))


class _Pools(Collector):
    """Connections of each pool, read when they are scraped."""

    def __init__(self) -> None:
        self.known: dict[str, Connections] = {}

    def collect(self) -> Iterable[GaugeMetricFamily]:
        shown = GaugeMetricFamily(
            "tallyhook_pool_connections",
            "Connections of a pool: in use, idle, and how many there may be",
            labels=["pool", "state"],
        )
        for pool, connections in self.known.items():
            for state, count in zip(("in_use", "idle", "max"), connections(), strict=True):
                shown.add_metric([pool, state], count)
        yield shown
