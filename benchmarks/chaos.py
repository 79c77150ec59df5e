"""Kills and trouble through a whole run: `python -m benchmarks.chaos --tasks 20000 --every 5 --seed 1`.

The tasks are uploaded over HTTP, and `api` is killed in the middle of it: the same key again makes one run
with every row once. One web, one api, two workers, Valkey (append-only) and a durable PostgreSQL; each of
them is killed with kill -9. Between the kills the database falls silent or takes no writes, Valkey takes
none, nobody reads the log pipe, a worker's clock jumps by a day either way, and a gateway answers every call
to the provider. At the end the emulator says how many tasks it was given and what it charged for each key;
ours must be the same, and both `verify` and `certificate` must find nothing. Each result is pushed to a
receiver, which must have every one at least once, and no other.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from app.store import Database
from app.store.migrate import migrate
from tests.e2e.chaos import disturb_until_finished
from tests.e2e.stack import Stack
from tests.e2e.test_relay import assert_pushed, until_pushed
from tests.e2e.test_uploads import upload_through_a_kill
from tests.e2e.troubles import troubled_stack
from tests.integration.relay.receiver import Receiver, receiving
from tests.servers.postgres import PostgresServer
from tests.servers.valkey import ValkeyServer

DISTURBED_S = 3_000.0
"""At the longest: long past the end of any run that is not stuck."""
SENDING_S = 150
"""Longer than one turn of everything takes: five kills, seven troubles, and the calm in between."""
TROUBLE_S = 8.0
"""Longer than every wait of the processes' own, so that each is met by several tries."""


async def every_result_pushed(stack: Stack, receiver: Receiver, secret: str, count: int) -> dict[str, Any]:
    """Figures of what was pushed. Raises AssertionError for a result that never came, or that is none."""
    await until_pushed(stack, receiver, secret, count)
    await assert_pushed(stack, receiver, secret)
    posts = sum(receiver.tasks(secret).values())
    return {"pushed": len(receiver.tasks(secret)), "pushed_again": posts - count}


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

    options = (
        "--time-scale",
        "60",
        "--concurrency",
        "300",
        "--fail",
        "0.02",
        "--lose-response",
        "0.005",
        "--duplicate",
        "0.01",
        "--shuffle",
        "1",
        "--wrong-charge",
        "0.005",
        "--book-lines",
        str(count),
    )
    try:
        url = postgres.create_database()
        db = Database(url)
        await migrate(db)
        await db.close()
        # So that the run is not over before each has had its turn.
        env = {"TALLYHOOK_RATE_PER_S": str(max(count // SENDING_S, 1))}
        async with (
            receiving() as receiver,
            troubled_stack(folder, postgres, url, valkey, *options, env=env) as (stack, troubles),
        ):
            stack.start("worker2")
            started = time.monotonic()
            made = await upload_through_a_kill(
                stack, count, query=f"?webhook_url={quote(receiver.url, safe='')}"
            )
            secret = made["webhook"]["secret"]
            receiver.verify_as_they_come(secret)
            met = await disturb_until_finished(
                stack,
                {"valkey": valkey_again, "postgres": postgres_again},
                troubles,
                every_s=every_s,
                trouble_s=TROUBLE_S,
                rng=random.Random(seed),
                for_s=DISTURBED_S,
            )
            assert all(met.values()), f"seed {seed}: the run was over before all had their turn: {met}"
            await stack.until_finished()
            await stack.assert_books_equal(count)
            stack.assert_certified()
            pushed = await every_result_pushed(stack, receiver, secret, count)
            totals = stack.books(tasks=False)["totals"]
            states = (await stack.store.queries.progress(stack.run_id)).states
            settled = states.get("completed", 0) + states.get("failed", 0)
            return {
                "tasks": count,
                "seed": seed,
                "seconds": round(time.monotonic() - started, 1),
                "met": met,
                "lost": count - settled,
                "submitted_twice": totals["tasks"] - count,
                "conflicts_answered": totals["conflicts"],
                "uploads_killed": 1,
                "books_equal": True,
                "verified": True,
                "certified": True,
                "deliveries_acked": totals["deliveries_acked"],
                **pushed,
            }
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
