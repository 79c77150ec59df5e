"""What claiming, settling and sweeping cost with a long history: `make bench-growth`.

Two databases of each kind: an empty one, and one with old tasks, finished runs and a paused run. Both get a
run of their own, and each round claims, records, settles and sweeps a group in one and then in the other, so
that what else the machine does meets both alike. Prints one JSON object: medians in milliseconds, and their
ratios. Ends with 1 when claim, record, settle, sweep or report of the grown database needs more than a fifth
more. benchmarks/history.py does the same beside ten million old tasks in 90 partitions.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from app.domain.delivery import ParsedDelivery, RawDelivery
from app.domain.send_outcome import Answer
from app.domain.settlement import Report, Source
from app.domain.submission import ClaimedTask, Submission
from app.domain.task import TaskSpec, new_id
from app.limits import Limits
from app.provider.wire import read_answer
from app.services.notice_triggers import Watcher
from app.services.settle import decide_delivery
from app.services.sweep import sweep
from app.store import Database, Store
from app.store.migrate import migrate
from app.store.read.runs import RunRow
from benchmarks.old_tasks import START_MS, add_history, execute
from tests.servers.postgres import PostgresServer

RESULTS = Path(__file__).parent / "results" / "growth.json"
GROUP = 250
"""Tasks of a claim and of a settlement, as `claim_size` and `settle_size` are by default."""
RATIO_MAX = 1.2
JUDGED = ("claim", "record", "settle", "sweep", "report")
"""The others are bounded in another way: a look for notices reads the 500 newest runs."""
WARM_ROUNDS = 6
"""Not counted: statements are prepared, and PostgreSQL decides on their plans, after five of them."""
FIVE = Decimal(5)
SWEEP = Limits(settle_size=GROUP, deliveries_tries_max=10, poll_size=25, submit_in_flight=4)


class Bench:
    """One database, with a run of its own that is sent and settled group by group."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._now_ms = START_MS
        self._run: RunRow | None = None
        self._claimed: list[ClaimedTask] = []
        self.seen: dict[str, list[float]] = {}

    async def begin(self, groups: int) -> None:
        run_id = await self._store.runs.create_run(
            name="measured", source="-", budget=FIVE * GROUP * groups, now_ms=self._now_ms
        )
        for first in range(0, groups * GROUP, 1_000):
            specs = [
                TaskSpec(first + n, "CHATGPT", {"prompt": f"p{first + n}", "country": "US"})
                for n in range(1, 1 + min(1_000, groups * GROUP - first))
            ]
            await self._store.runs.add_tasks(run_id, [(spec, FIVE) for spec in specs], self._now_ms)
        await self._store.runs.start_run_if_loading(run_id, sha256="", bad_lines=0)
        self._run = (await self._store.queries.find_runs(run_id))[0]

    async def round(self) -> None:
        """A group from its claim to its settlement, and a sweep that finds nothing."""
        self._now_ms += 1_000
        await self._measure("claim", self._claim)
        await self._measure("record", self._record)
        parsed = await self._deliver()
        await self._measure("settle", lambda: self._settle(parsed))
        await self._measure("sweep", self._sweep)
        await self._measure("report", self._report)
        await self._measure("notices", Watcher(self._store, clock=lambda: self._now_ms).look)
        await self._measure("admission", self._admission)

    async def _measure(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        started = time.perf_counter()
        await work()
        self.seen.setdefault(name, []).append((time.perf_counter() - started) * 1_000)

    async def _claim(self) -> None:
        self._claimed = await self._store.submissions.claim_pending(
            limit=GROUP, claim="bench", now_ms=self._now_ms, lease_until_ms=self._now_ms + 60_000
        )
        assert len(self._claimed) == GROUP

    async def _record(self) -> None:
        at_ms, later_ms = self._now_ms, self._now_ms + 600_000
        await self._store.submissions.record_submissions(
            [
                Submission(
                    task,
                    Answer.ACCEPTED,
                    at_ms,
                    next_poll_at_ms=later_ms,
                    http_status=200,
                    provider_task_id=f"q-{task.id}",
                    credits_to_charge=FIVE,
                )
                for task in self._claimed
            ]
        )

    async def _deliver(self) -> list[ParsedDelivery]:
        reports = [
            Report(f"q-{task.id}", task.idempotency_key, True, FIVE, FIVE, b'{"text":"yes"}')
            for task in self._claimed
        ]
        parsed = [ParsedDelivery(new_id(self._now_ms), Source.DELIVERY, self._now_ms, r) for r in reports]
        raw = [RawDelivery(p.id, p.source, p.received_at_ms, b"{}") for p in parsed]
        await self._store.inbox.store_deliveries(raw, due_at_ms=self._now_ms + 10_000)
        return parsed

    async def _settle(self, parsed: list[ParsedDelivery]) -> None:
        count = await self._store.settlements.apply(
            parsed, decide_delivery, now_ms=self._now_ms, unmatched_until_ms=self._now_ms - 60_000
        )
        assert not count.lost_updates and sum(count.effects.values()) == GROUP

    async def _sweep(self) -> None:
        async def settle(ids: Any) -> None:
            raise AssertionError("nothing is overdue")

        await sweep(self._store, {}, settle, limits=SWEEP, clock=lambda: self._now_ms, unreleased=set())
        await self._store.queries.accounts_with_due(self._now_ms)

    async def _report(self) -> None:
        assert self._run is not None, "it has begun"
        await self._store.reports.report(self._run)

    async def _admission(self) -> None:
        await self._store.accounts.outstanding("default")
        await self._store.accounts.spent_since("default", START_MS - 86_400_000)


async def compare(stores: list[Store], *, tasks: int, runs: int, paused: int, rounds: int) -> dict[str, Any]:
    """Medians of the first store, which stays empty, and of the second, which is given the history."""
    started = time.perf_counter()
    await add_history(stores[1], tasks=tasks, runs=runs, paused=paused)
    if not stores[1].db.is_sqlite:
        await execute(stores[1].db, ["ANALYZE"])
    loaded_s = time.perf_counter() - started
    return {
        "old_tasks": tasks,
        "old_runs": runs,
        "paused_tasks": paused,
        "loaded_s": round(loaded_s),
    } | await measure(stores, rounds)


async def measure(stores: list[Store], rounds: int) -> dict[str, Any]:
    """Medians of an empty store and of one with a history, and whether each bar holds."""
    empty, _ = benches = [Bench(store) for store in stores]
    for bench in benches:
        await bench.begin(rounds + WARM_ROUNDS + 1)  # one group is left: the run is not over
    for n in range(rounds + WARM_ROUNDS):
        for bench in benches if n % 2 else reversed(benches):
            await bench.round()
    found = {
        name: [statistics.median(bench.seen[name][WARM_ROUNDS:]) for bench in benches] for name in empty.seen
    }
    # Round by round: the two of one round met the same machine.
    pairs = {name: zip(*(bench.seen[name][WARM_ROUNDS:] for bench in benches), strict=True) for name in found}
    ratios = {
        name: round(statistics.median(after / before for before, after in each), 3)
        for name, each in pairs.items()
    }
    return {
        "store": "sqlite" if stores[0].db.is_sqlite else "postgresql",
        "rounds": rounds,
        "group": GROUP,
        "empty_ms": {name: round(before, 2) for name, (before, _) in found.items()},
        "grown_ms": {name: round(after, 2) for name, (_, after) in found.items()},
        "ratios": ratios,
        "within": all(ratios[name] <= RATIO_MAX for name in JUDGED),
    }


@asynccontextmanager
async def opened(urls: list[str]) -> AsyncIterator[list[Store]]:
    """Migrated stores."""
    stores = [Store(Database(url), read_answer) for url in urls]
    try:
        for store in stores:
            await migrate(store.db)
        yield stores
    finally:
        for store in stores:
            await store.close()


def main() -> int:
    """Measure, print, keep; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=2_000_000)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--paused", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--store", choices=["sqlite", "postgresql"], action="append")
    parser.add_argument("--keep", action="store_true", help=f"write to {RESULTS.name}")
    options = parser.parse_args()
    found = []
    for kind in options.store or ["sqlite", "postgresql"]:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tallyhook-growth-")))
            urls = [f"sqlite:///{folder}/{name}.db" for name in ("empty", "grown")]
            if kind == "postgresql":
                server = PostgresServer()
                server.start()
                stack.callback(server.stop)
                urls = [server.create_database() for _ in range(2)]
            found.append(asyncio.run(_measured(urls, options)))
    document = {"growth": found}
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
    if options.keep:
        RESULTS.write_text(json.dumps(document, indent=2) + "\n")
    return 0 if all(one["within"] for one in found) else 1


async def _measured(urls: list[str], options: argparse.Namespace) -> dict[str, Any]:
    async with opened(urls) as stores:
        return await compare(
            stores, tasks=options.tasks, runs=options.runs, paused=options.paused, rounds=options.rounds
        )


if __name__ == "__main__":
    sys.exit(main())
