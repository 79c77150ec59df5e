"""The whole of it: 500 prompts a second for a minute, from the table of tasks to the settled row, with the
provider, the database, Redis and our processes on the same cores.
"""

import asyncio
import dataclasses
import itertools
import time
from dataclasses import dataclass

from app.provider.wire import read_answer
from app.store import Database, Store
from benchmarks.bench.figures import Row, row
from benchmarks.bench.intake import migrated
from benchmarks.bench.rig import Rig
from tests.e2e.stack import QUICK, Stack

LIMIT_PER_S = 500
"""The provider's (C-D.1), kept by the emulator too: it refuses what comes faster."""
CHUNK = 5_000
SAMPLE_S = 0.5
WINDOW_S = 5.0
TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class PipelineSize:
    """Seconds' worth of tasks."""

    seconds: int = 60


def measure(rig: Rig, size: PipelineSize) -> list[Row]:
    """One row; its rounds are the seconds of one run."""
    return asyncio.run(_measure(rig, size.seconds * LIMIT_PER_S))


async def _measure(rig: Rig, count: int) -> list[Row]:
    url = await asyncio.to_thread(migrated, rig)
    store = Store(Database(url), read_answer)
    stack = Stack(rig.folder, store, url, rig.valkey.url)
    for name in QUICK:
        stack.env.pop(name)  # production's own settings
    stack.env |= {"TALLYHOOK_LOG_FORMAT": "json"}
    stack.emulator_options = [
        "--time-scale",
        "60",
        "--concurrency",
        "1500",
        "--credits",
        "1000000000",
        "--rate-limit",
        str(LIMIT_PER_S),
        "--book-lines",
        str(count),
    ]
    try:
        await stack.submit(0, begin=False)
        for first in range(1, count + 1, CHUNK):
            await stack.add(first, min(first + CHUNK, count + 1))
        stack.start("emulator", "web", "worker")
        await stack.begin()
        seen = await _watch(stack, count)
        await stack.until_finished()
        await stack.assert_books_equal(count)
    finally:
        stack.close()
        await store.close()
    return [pipeline_row(rig.store, seen, count)]


def pipeline_row(store: str, seen: list[tuple[float, int]], count: int) -> Row:
    """The rate over the whole of the run, less its first and last hundredth: the provider takes a second to
    finish a task. The spread is that of windows of WINDOW_S."""
    steady = [one for one in seen if count * 0.01 <= one[1] <= count * 0.99]
    size = max(round(WINDOW_S / SAMPLE_S), 1)
    windows = [*steady[:-1:size], steady[-1]]
    rates = [(n - before) / (at - since) for (since, before), (at, n) in itertools.pairwise(windows)]
    rate = (steady[-1][1] - steady[0][1]) / (steady[-1][0] - steady[0][0])
    found = row(
        "pipeline",
        store,
        rates,
        [float(LIMIT_PER_S)] * len(rates),
        unit="settled/s",
        at_least=0.985,
        reference_is="the provider's limit; rounds are windows of five seconds",
    )
    ratio = rate / LIMIT_PER_S
    return dataclasses.replace(found, value=rate, ratio=ratio, holds=ratio >= 0.97)


async def _watch(stack: Stack, count: int) -> list[tuple[float, int]]:
    """(moment, tasks settled) until all are."""
    seen = [(time.monotonic(), 0)]
    while seen[-1][1] < count:
        assert seen[-1][0] - seen[0][0] < TIMEOUT_S, stack.logs()
        await asyncio.sleep(SAMPLE_S)
        states = (await stack.store.queries.progress(stack.run_id)).states
        seen.append((time.monotonic(), states.get("completed", 0) + states.get("failed", 0)))
    return seen
