"""kill -9 at random through a whole run: `python -m benchmarks.chaos --tasks 20000 --every 5 --seed 1`.

One web, two workers, Valkey (append-only) and a durable PostgreSQL; each of them is killed. At the end the
emulator says how many tasks it was given and what it charged for each key; ours must be the same.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from app.store import Database
from app.store.migrate import migrate
from tests.e2e.chaos import kill_until_finished
from tests.e2e.stack import running_stack
from tests.servers.postgres import PostgresServer
from tests.servers.valkey import ValkeyServer

KILLS_S = 3_000.0
"""At the longest: long past the end of any run that is not stuck."""


async def run(count: int, every_s: float, seed: int, folder: Path) -> dict[str, Any]:
    """One run; the figures. Raises AssertionError when a task is lost, doubled or wrongly booked."""
    postgres, valkey = (
        PostgresServer(durable=True),
        ValkeyServer(folder, appendonly=True, appendfsync="everysec"),
    )
    postgres.start()
    valkey.start()

    def valkey_again() -> None:
        valkey.kill()
        valkey.start()

    def postgres_again() -> None:
        postgres.kill()
        postgres.recover()

    options = ("--time-scale", "60", "--concurrency", "300", "--fail", "0.02", "--lose-response", "0.005",
               "--duplicate", "0.01", "--shuffle", "1", "--wrong-charge", "0.005",
               "--book-lines", str(count))  # fmt: skip
    try:
        url = postgres.create_database()
        db = Database(url)
        await migrate(db)
        await db.close()
        async with running_stack(folder, url, valkey.url, *options) as stack:
            stack.start("worker2")
            started = time.monotonic()
            await stack.submit(count)
            kills = await kill_until_finished(
                stack, {"valkey": valkey_again, "postgres": postgres_again},
                every_s=every_s, rng=random.Random(seed), for_s=KILLS_S,
            )  # fmt: skip
            await stack.until_finished()
            await stack.assert_books_equal(count)
            totals = stack.books(tasks=False)["totals"]
            states = (await stack.store.progress(stack.run_id)).states
            settled = states.get("completed", 0) + states.get("failed", 0)
            return {
                "tasks": count, "seed": seed, "seconds": round(time.monotonic() - started, 1), "kills": kills,
                "lost": count - settled, "submitted_twice": totals["tasks"] - count,
                "conflicts_answered": totals["conflicts"], "books_equal": True,
                "deliveries_acked": totals["deliveries_acked"],
            }  # fmt: skip
    finally:
        valkey.kill()
        postgres.stop()


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two kills")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tallyhook-chaos-") as folder:
        print(json.dumps(asyncio.run(run(options.tasks, options.every, options.seed, Path(folder)))))


if __name__ == "__main__":
    main()
