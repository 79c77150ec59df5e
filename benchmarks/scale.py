"""A whole run at full scale through real processes: `python -m benchmarks.scale --tasks 100000`.

PostgreSQL (durable), Valkey (append-only), the emulator at the provider's 500/s, one web, one worker or
several, all on this machine. Prints one line every ten seconds and one JSON object at the end; appends it to
benchmarks/results/scale.json. `--compare 10000` runs so many tasks three times before and three times after
the large run: the machine's own speed changes meanwhile, so the cost of a task is compared with their median.
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa

from app.store import Database, Store
from app.store.migrate import migrate
from app.store.tables import deliveries, submissions, tasks
from tests.e2e.stack import QUICK, Stack, running_stack
from tests.servers.postgres import PostgresServer
from tests.servers.valkey import ValkeyServer

RESULTS = Path(__file__).parent / "results" / "scale.json"
LIMIT_PER_S = 500
CHUNK = 10_000
SAMPLE_S = 1.0
TIMEOUT_S = 7_200.0
COMPARED = 3
"""Small runs before the large one, and as many after it."""


@dataclass
class Samples:
    """What was seen while the run went on."""

    at_s: list[float] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    settled: list[int] = field(default_factory=list)
    rss: dict[str, list[int]] = field(default_factory=dict)
    cpu_s: dict[str, list[float]] = field(default_factory=dict)

    def at(self, series: list[Any], settled: int) -> Any:
        """A series' value when so many tasks were settled."""
        index = next((i for i, n in enumerate(self.settled) if n >= settled), len(self.settled) - 1)
        return series[min(index, len(series) - 1)]


async def sample(stack: Stack, samples: Samples, started: float) -> bool:
    """One look at everything; True when the run is finished."""
    states = (await stack.store.queries.progress(stack.run_id)).states
    total = sum(states.values())
    samples.at_s.append(time.monotonic() - started)
    samples.sent.append(total - states.get("pending", 0) - states.get("submitting", 0))
    samples.settled.append(states.get("completed", 0) + states.get("failed", 0))
    for name, pid in stack.pids().items():
        process = psutil.Process(pid)
        times = process.cpu_times()
        samples.rss.setdefault(name, []).append(process.memory_info().rss)
        samples.cpu_s.setdefault(name, []).append(times.user + times.system)
    return samples.settled[-1] + states.get("rejected", 0) + states.get("expired", 0) == total


async def load(stack: Stack, count: int, batch_size: int | None) -> None:
    """Store the run in chunks, then let it begin."""
    await stack.submit(0, begin=False, batch_size=batch_size)
    for first in range(1, count + 1, CHUNK):
        await stack.add(first, min(first + CHUNK, count + 1))
    await stack.begin()


async def latencies_ms(store: Store) -> list[int]:
    """Delivery received to settled, of every task that a delivery settled."""
    query = (
        sa.select(tasks.c.settled_at_ms - deliveries.c.received_at_ms)
        .join(deliveries, deliveries.c.task_id == tasks.c.id)
        .where(deliveries.c.effect == "settled", deliveries.c.source == "delivery")
    )
    return await store.db.read(lambda c: _column(c, query))


async def _column(connection: Any, query: Any) -> list[int]:
    return list((await connection.scalars(query)).all())


async def answers(store: Store) -> dict[str, int]:
    """How the create calls ended."""
    query = sa.select(submissions.c.answer, sa.func.count()).group_by(submissions.c.answer)

    async def work(connection: Any) -> dict[str, int]:
        return {row[0]: row[1] for row in await connection.execute(query)}

    return await store.db.read(work)


async def sending(store: Store, stack: Stack) -> dict[str, Any]:
    """The rate from the first answer to the last, and every full second as the emulator counted it."""
    query = sa.select(sa.func.min(submissions.c.at_ms), sa.func.max(submissions.c.at_ms), sa.func.count())
    query = query.where(submissions.c.answer == "accepted")

    async def work(connection: Any) -> Any:
        return (await connection.execute(query)).one()

    first_ms, last_ms, accepted = await store.db.read(work)
    counts = [n for second, n in stack.seconds() if first_ms // 1000 < second < last_ms // 1000]
    rate = (accepted - 1) / (last_ms - first_ms) * 1000
    shown = {"submitted_per_s": round(rate, 1), "share_of_limit": round(rate / LIMIT_PER_S, 4)}
    if counts:
        shown["requests_by_second"] = {
            "seconds": len(counts),
            "min": min(counts),
            "median": statistics.median(counts),
            "max": max(counts),
            "within_5_percent": sum(n >= 0.95 * LIMIT_PER_S for n in counts),
        }
    return shown


def summary(samples: Samples, count: int) -> dict[str, Any]:
    """Growth of memory, processor time for each task."""
    early = min(10_000, count // 2)
    growth = {
        name: round(samples.at(series, count) / samples.at(series, early) - 1, 4)
        for name, series in samples.rss.items()
    }
    # Without what starting took: of ten thousand tasks each would carry a hundred times as much of it as of a
    # million.
    cpu_ms = {
        name: round((series[-1] - series[0]) / count * 1000, 3) for name, series in samples.cpu_s.items()
    }
    return {
        "seconds": round(samples.at_s[-1], 1),
        "rss_mb": {name: series[-1] >> 20 for name, series in samples.rss.items()},
        "rss_growth_since_10000": growth,
        "cpu_ms_per_task": cpu_ms,
        "cpu_ms_per_task_of_ours": round(sum(v for n, v in cpu_ms.items() if n != "emulator"), 3),
    }


async def run(
    count: int, folder: Path, emulator: list[str], *, workers: int = 1, batch_size: int | None = None
) -> dict[str, Any]:
    """One run on fresh servers; the figures."""
    postgres, valkey = (
        PostgresServer(durable=True),
        ValkeyServer(folder, appendonly=True, appendfsync="everysec"),
    )
    postgres.start()
    valkey.start()
    try:
        url = postgres.create_database()
        db = Database(url)
        await migrate(db)
        await db.close()
        async with running_stack(folder, url, valkey.url, *emulator, is_forked=False) as stack:
            stack.start(*(f"worker{n}" for n in range(2, workers + 1)))
            await load(stack, count, batch_size)
            samples, started = Samples(), time.monotonic()
            shown = 0.0
            while not await sample(stack, samples, started):
                if time.monotonic() - started > TIMEOUT_S:
                    raise TimeoutError(stack.logs())
                if samples.at_s[-1] - shown >= 10:
                    shown = samples.at_s[-1]
                    print(
                        f"{shown:7.1f} s  sent {samples.sent[-1]}  settled {samples.settled[-1]}", flush=True
                    )
                await asyncio.sleep(SAMPLE_S)
            await stack.until_finished()
            await stack.assert_books_equal(count)
            waited = await latencies_ms(stack.store)
            ended = await answers(stack.store)
            rates = await sending(stack.store, stack)
    finally:
        valkey.kill()
        postgres.stop()
    quantiles = statistics.quantiles(waited, n=100)
    return {
        "tasks": count,
        "workers": workers,
        **rates,
        **summary(samples, count),
        "answers": ended,
        "rate_limited": ended.get("rate_limited", 0),
        "books_equal": True,
        "delivery_to_settled_ms": {"p50": quantiles[49], "p99": quantiles[98], "max": max(waited)},
    }


def run_once(options: argparse.Namespace, count: int) -> float:
    """One run; prints its figures and keeps them. What a task cost us, in ms of processor time."""
    emulator = [
        "--time-scale",
        "60",
        "--concurrency",
        "1500",
        "--credits",
        "1000000000",
        "--rate-limit",
        str(options.rate),
        "--book-lines",
        str(count),
    ]
    if options.short_answers:
        emulator += ["--switch", "short_answers"]
    with tempfile.TemporaryDirectory(prefix="tallyhook-scale-") as folder:
        figures = asyncio.run(
            run(count, Path(folder), emulator, workers=options.workers, batch_size=options.batch)
        )
    figures |= {
        "cores": os.cpu_count(),
        "limit_per_s": options.rate,
        "short_answers": options.short_answers,
        "batch": options.batch,
        "at": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }
    print(json.dumps(figures), flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    RESULTS.write_text(json.dumps([*kept, figures], indent=1) + "\n")
    return float(figures["cpu_ms_per_task_of_ours"])


def main() -> None:
    """Parse, run, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=1, help="worker processes, all of them sending")
    parser.add_argument("--compare", type=int, default=0, help="tasks of the small runs before and after")
    parser.add_argument("--batch", type=int, help="tasks in one create call; one each if not given")
    parser.add_argument("--short-answers", action="store_true")
    parser.add_argument(
        "--rate", type=int, default=LIMIT_PER_S, help="of the emulator and of ours; 0: unlimited"
    )
    options = parser.parse_args()
    # Production's own settings, but for what would need a day.
    QUICK.clear()
    QUICK.update(TALLYHOOK_LOG_FORMAT="json", TALLYHOOK_LOG_LEVEL="warning")
    QUICK["TALLYHOOK_SENDERS"] = str(options.workers)
    if options.rate != LIMIT_PER_S:
        QUICK["TALLYHOOK_RATE_PER_S"] = str(options.rate or 5_000)
    small = [options.compare] * COMPARED if options.compare else []
    cost_ms = [run_once(options, count) for count in (*small, options.tasks, *small)]
    if small:
        usual_ms = statistics.median(cost_ms[:COMPARED] + cost_ms[COMPARED + 1 :])
        print(json.dumps({"cpu_ms_per_task_against_small_runs": round(cost_ms[COMPARED] / usual_ms, 3)}))


if __name__ == "__main__":
    main()
