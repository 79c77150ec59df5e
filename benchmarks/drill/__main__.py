"""Faults of machines, servers and processes under load: `python -m benchmarks.drill`; `--short`: a part of
them, `--others`: other ones, `--rate`: none, only the rate.

Two machines (network namespaces with a bridge between, as root) share one provider: two `web` and two `api`
behind nginx, three workers, PostgreSQL with a synchronous standby, Valkey with a replica and three sentinels,
the emulator. At first nothing happens, and the rate is measured; then each fault has its turn while tasks are
sent. Prints a table, and ends with 1 when a task is lost, doubled or unexplained, when the emulator's books
are not ours, or when the rate was missed; with 2 where it cannot run.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.provider.wire import read_answer
from app.store import Database, Store
from benchmarks.drill.faults import Happening, full, none, others, short
from benchmarks.drill.figures import asked, failings, gaps, logged, missed_rate, quiet, table, wrong
from benchmarks.drill.under_load import FULL, OTHERS, OTHERS_SHORT, RATE, SHORT, Drill, Size, finished
from tests.e2e.cluster import PLACES, Cluster, balancer
from tests.servers.machines import inside, make_machines, missing_tools
from tests.servers.pairs import DatabasePair, RedisPair

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
    "TALLYHOOK_COMMIT_TIMEOUT_S": "3",
    "TALLYHOOK_CLAIM_LEASE_S": "10",
    "TALLYHOOK_SUBMIT_LEASE_S": "5",
    "TALLYHOOK_SWEEP_LEASE_S": "5",
    "TALLYHOOK_SWEEP_EVERY_S": "1",
    "TALLYHOOK_SWEEP_AFTER_S": "5",
    "TALLYHOOK_POLL_AFTER_S": "40",
    "TALLYHOOK_POLL_EVERY_S": "5",
}


async def run(folder: Path, size: Size, plan: Callable[[Drill], list[Happening]]) -> dict[str, Any]:
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
        happenings = plan(drill)
        try:
            await asyncio.to_thread(cluster.start, "emulator", *PLACES)
            token = await cluster.token("read")
            await cluster.submit(size.tasks)
            async with drill.asking(token):
                calm = await quiet(drill)
                print(calm, file=sys.stderr, flush=True)
                for name, fault in happenings:
                    await drill.meet(name, fault)
            drill.begin("end")
            await finished(drill)
            return {**calm, **await wrong(drill), **asked(drill), **logged(drill), "rows": await gaps(drill)}
        except BaseException:
            print(cluster.logs(), file=sys.stderr)
            raise
        finally:
            cluster.close()
            for machine in machines.values():
                machine.remove_disk()
            await store.close()


FORMS: dict[str, tuple[Size, Callable[[Drill], list[Happening]]]] = {
    "": (FULL, full),
    "short": (SHORT, short),
    "rate": (RATE, none),
    "others": (OTHERS, others),
    "others short": (OTHERS_SHORT, others),
}


def main() -> int:
    """Parse, run, print; the exit code."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.drill", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    forms = parser.add_mutually_exclusive_group()
    parser.add_argument("--short", action="store_true", help="fewer or shorter faults, less load")
    forms.add_argument("--rate", action="store_true", help="no fault: only the rate")
    forms.add_argument("--others", action="store_true", help="other faults of the same kinds")
    parser.add_argument("--tasks", type=int, help="more, where a fault finds all of them sent")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    missing = missing_tools() if os.geteuid() == 0 else ["root"]
    if missing:
        print(f"drill: not run: it makes network namespaces and needs {', '.join(missing)}", file=sys.stderr)
        return 2
    if not options.inside:
        command = inside(sys.executable, "-m", "benchmarks.drill", "--inside", *sys.argv[1:])
        os.execvp(command[0], command)
    chosen = [name for name in ("others", "rate", "short") if getattr(options, name)]
    if (form := " ".join(chosen)) not in FORMS:
        parser.error("--rate is as short as it can be")
    size, plan = FORMS[form]
    if options.tasks:
        size = replace(size, tasks=options.tasks)
    with tempfile.TemporaryDirectory(prefix="tallyhook-drill-") as folder:
        figures = asyncio.run(run(Path(folder), size, plan))
        figures["faults"] = len(figures["rows"]) - 2
        print(table(figures, size), flush=True)
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
