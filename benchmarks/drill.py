"""Faults of machines, servers and processes under load: `python -m benchmarks.drill`, a part with `--short`.

Two machines (network namespaces with a bridge between, as root) share one provider: two `web` and two `api`
behind nginx, three workers, PostgreSQL with a synchronous standby, Valkey with a replica and a sentinel, the
emulator. At first nothing happens, and the rate is measured; then each fault has its turn while tasks are
sent. Prints a table, and ends with 1 when a task is lost, doubled or unexplained, when the emulator's books
are not ours, or when the rate was missed; with 2 where it cannot run.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import sqlalchemy as sa

from app.provider.wire import read_answer
from app.store import Database, Store
from app.store.tables import deliveries, submissions
from tests.e2e.cluster import PLACES, Cluster, DatabasePair, RedisPair, balancer
from tests.e2e.stack import KILL, STOP
from tests.servers.machines import Machine, inside, make_machines, missing_tools

SHARE_MIN = 0.98
"""Of the provider's limit, in the part without faults."""
TIME_SCALE = 20
EMULATOR = {
    "time-scale": TIME_SCALE,
    "concurrency": 1000,
    "fail": 0.02,
    "duplicate": 0.01,
    "lose-response": 0.005,
    "shuffle": 0.5,
}
ENV = {
    # As by default: each of three senders takes longer for what it claimed than a short lease lasts, and what
    # is released meanwhile is sent by two.
    "TALLYHOOK_CLAIM_LEASE_S": "60",
    "TALLYHOOK_SUBMIT_LEASE_S": "5",
    "TALLYHOOK_SWEEP_LEASE_S": "5",
    "TALLYHOOK_SWEEP_EVERY_S": "1",
    "TALLYHOOK_SWEEP_AFTER_S": "5",
    "TALLYHOOK_POLL_AFTER_S": "40",
    "TALLYHOOK_POLL_EVERY_S": "5",
}
RECOVERED_S = 120.0
FINISHED_S = 240.0


@dataclass(frozen=True)
class Size:
    """How much load, and how long each part lasts."""

    rate_per_s: int
    tasks: int
    quiet_s: float
    partition_s: float
    calm_s: float
    """Between two faults, once the run goes on."""


FULL = Size(rate_per_s=60, tasks=30_000, quiet_s=60, partition_s=30, calm_s=10)
SHORT = Size(rate_per_s=60, tasks=7_000, quiet_s=15, partition_s=10, calm_s=2)


@dataclass
class Fault:
    """One that has been, for the table."""

    name: str
    from_ms: int
    to_ms: int = 0
    """Until the next fault began."""


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

    async def cut_off(self, name: str) -> None:
        """One machine hears and reaches nobody."""
        with self.machines[name].cut_off():
            await asyncio.sleep(self.size.partition_s)

    async def again(self, name: str, how: tuple[tuple[int, float], ...]) -> None:
        """End a process and start it again."""
        await asyncio.to_thread(self.cluster.end, name, how)
        await asyncio.to_thread(self.cluster.start, name)

    async def restart_all(self) -> None:
        """One after the other, each in an orderly way, as an upgrade does."""
        for name in PLACES:
            await self.again(name, STOP)

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


async def quiet(drill: Drill) -> dict[str, Any]:
    """The rate that the emulator counted while nothing happened, and how many it refused."""
    await drill.until_more_settled()
    begin = int(time.time()) + 1
    drill.begin("none")
    await asyncio.sleep(drill.size.quiet_s)
    counts = [n for second, n in drill.cluster.seconds() if begin < second < int(time.time()) - 1]
    since = sa.select(sa.func.count()).where(submissions.c.at_ms >= begin * 1000)
    (refusals,) = await numbers(drill.cluster.store, since.where(submissions.c.http_status == 429))
    (repeats,) = await numbers(drill.cluster.store, since.where(submissions.c.answer == "exists"))
    shares = [count / drill.size.rate_per_s for count in counts]
    return {
        "mean_share": round(statistics.fmean(shares), 4),
        "median_share": round(statistics.median(shares), 4),
        "busiest_second": max(counts),
        "refused_429": refusals,
        "repeats": repeats,
    }


async def faults(drill: Drill, *, is_short: bool) -> None:
    """Each in its turn."""
    await drill.meet("right machine cut off", lambda: drill.cut_off("right"))
    for name in ("web1", "api2", "worker1") if is_short else PLACES:
        await drill.meet(f"kill -9 of {name}", lambda name=name: drill.again(name, KILL))  # type: ignore[misc]
    await drill.meet("Redis fails over", lambda: asyncio.to_thread(drill.redis.fail_over))
    await drill.meet("database fails over", drill.database.fail_over)
    if not is_short:
        await drill.meet("left machine cut off", lambda: drill.cut_off("left"))
        await drill.meet("all restarted in turn", drill.restart_all)


async def numbers(store: Store, query: "sa.Select[Any]") -> list[int]:
    """One column."""

    async def work(connection: Any) -> list[int]:
        return list((await connection.scalars(query)).all())

    return await store.db.read(work)


async def wrong(drill: Drill) -> dict[str, Any]:
    """What was lost, doubled, or stands in the books and cannot be explained."""
    cluster, count = drill.cluster, drill.size.tasks
    books = await asyncio.to_thread(cluster.books)
    charged = await cluster.store.reports.charges(cluster.run_id)
    theirs = {row["idempotencyKey"]: Decimal(row["creditsCharged"]) for row in books["tasks"]}
    verified = await asyncio.to_thread(cluster.tallyhook, "verify", "--all", "--json")
    document = json.loads(verified.stdout)
    return {
        "tasks": count,
        "lost": count - await drill.settled(),
        "doubled": len(books["tasks"]) - count,
        "unexplained": sum(charged.get(key) != theirs.get(key) for key in charged | theirs),
        "differences": document["differences_count"],
        "verified": verified.returncode == 0,
    }


def longest_gap_s(times_ms: Sequence[int], fault: Fault) -> float | None:
    """Of the gaps that touch the time of a fault; None without two events."""
    gaps = [(b - a) for a, b in pairwise(times_ms) if a < fault.to_ms and b > fault.from_ms]
    return max(gaps) / 1000 if gaps else None


async def gaps(drill: Drill) -> list[dict[str, Any]]:
    """A row for each fault, and one for all."""
    sent = sa.select(submissions.c.at_ms).where(submissions.c.answer == "accepted")
    received = sa.select(deliveries.c.received_at_ms).where(deliveries.c.source == "delivery")
    times = {
        "sending_gap_s": sorted(await numbers(drill.cluster.store, sent)),
        "receiving_gap_s": sorted(await numbers(drill.cluster.store, received)),
    }
    last = drill.faults.pop()
    all_of_it = Fault("all of it", drill.faults[0].from_ms, last.from_ms)
    return [
        {"fault": one.name, "seconds": round((one.to_ms - one.from_ms) / 1000, 1)}
        | {name: longest_gap_s(series, one) for name, series in times.items()}
        for one in (*drill.faults, all_of_it)
    ]


async def run(folder: Path, size: Size, *, is_short: bool) -> dict[str, Any]:
    """The whole of it; the figures."""
    machines = make_machines("left", "right")
    database, redis = DatabasePair(), RedisPair(folder)
    with ExitStack() as servers:
        await asyncio.to_thread(servers.enter_context, database.running())
        await asyncio.to_thread(servers.enter_context, redis.running())
        servers.enter_context(balancer(folder, machines))
        store = Store(Database(database.url), read_answer)
        cluster = Cluster(folder, store, database.url, redis.url, machines)
        cluster.env |= ENV | {"TALLYHOOK_RATE_PER_S": str(size.rate_per_s)}
        options = EMULATOR | {"rate-limit": size.rate_per_s, "book-lines": 2 * size.tasks}
        cluster.emulator_options = [part for k, v in options.items() for part in (f"--{k}", str(v))]
        drill = Drill(cluster, machines, database, redis, size)
        try:
            await asyncio.to_thread(cluster.start, "emulator", *PLACES)
            token = await cluster.token("read")
            await cluster.submit(size.tasks)
            async with drill.asking(token):
                calm = await quiet(drill)
                await faults(drill, is_short=is_short)
            drill.begin("end")
            await finished(drill)
            return {**calm, **await wrong(drill), **asked(drill), "rows": await gaps(drill)}
        except BaseException:
            print(cluster.logs(), file=sys.stderr)
            raise
        finally:
            cluster.close()
            await store.close()


def asked(drill: Drill) -> dict[str, int]:
    """Of the API."""
    return {"api_asked": drill.asked, "api_unanswered": drill.unanswered}


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


def failings(figures: dict[str, Any]) -> list[str]:
    """Why the drill failed, in words; none when it did not."""
    found = [f"{figures[name]} {name}" for name in ("lost", "doubled", "unexplained") if figures[name]]
    if not figures["verified"]:
        found.append(f"verify --all found {figures['differences']} differences")
    return found


def missed_rate(figures: dict[str, Any]) -> list[str]:
    """What was wrong with the rate, in words. It is that of the median second: where others use the processor
    too, some seconds are not ours."""
    found = []
    if figures["median_share"] < SHARE_MIN:
        found.append(f"{figures['median_share']:.1%} of the provider's limit, not {SHARE_MIN:.0%}")
    if figures["refused_429"]:
        found.append(f"{figures['refused_429']} calls refused with 429 while nothing happened")
    return found


def table(figures: dict[str, Any], size: Size) -> str:
    """For a person."""

    def gap(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f} s"

    lines = [f"{'fault':<26}{'lasted':>10}{'longest gap in sending':>26}{'in receiving':>16}"]
    lines += [
        f"{row['fault']:<26}{row['seconds']:>8.1f} s"
        f"{gap(row['sending_gap_s']):>26}{gap(row['receiving_gap_s']):>16}"
        for row in figures["rows"]
    ]
    names = ("tasks", "lost", "doubled", "unexplained")
    counted = "   ".join(f"{name} {figures[name]:,}" for name in ("faults", *names))
    lines += [
        "",
        counted,
        f"without faults, of the provider's {size.rate_per_s}/s: "
        f"median second {figures['median_share']:.1%}, mean {figures['mean_share']:.1%}",
        f"busiest second {figures['busiest_second']}, refused with 429: {figures['refused_429']}, "
        f"sent though the provider had it: {figures['repeats']}",
        f"API asked {figures['api_asked']:,} times, not answered {figures['api_unanswered']:,}",
        f"verify --all: {figures['differences']} differences",
    ]
    return "\n".join(lines)


def main() -> int:
    """Parse, run, print; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="fewer faults, less load")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    missing = missing_tools() if os.geteuid() == 0 else ["root"]
    if missing:
        print(f"drill: not run: it makes network namespaces and needs {', '.join(missing)}", file=sys.stderr)
        return 2
    if not options.inside:
        command = inside(sys.executable, "-m", "benchmarks.drill", "--inside", *sys.argv[1:])
        os.execvp(command[0], command)
    size = SHORT if options.short else FULL
    with tempfile.TemporaryDirectory(prefix="tallyhook-drill-") as folder:
        figures = asyncio.run(run(Path(folder), size, is_short=options.short))
    figures["faults"] = len(figures["rows"]) - 2
    print(table(figures, size))
    found, missed = failings(figures), missed_rate(figures)
    if options.short:
        # A shared machine may have no processor for us within so short a time.
        print("".join(f"note: {why}\n" for why in missed), end="")
    else:
        found += missed
    print("\n".join(f"failed: {why}" for why in found) or "nothing lost, doubled or unexplained")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
