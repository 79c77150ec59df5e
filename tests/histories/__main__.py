"""Ten thousand random histories, each of which must end with our ledger equal to the emulator's books and
with the drift fully explained:

    python -m tests.histories --count 10000
    python -m tests.histories --store 200       on the real store (SQLite)
    python -m tests.histories --sabotage        each protection taken out: how many histories until it shows
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
import traceback

from app.provider.wire import read_answer
from app.store import Database, Store
from app.store.migrate import migrate
from tests.histories.memory import MemoryBooks
from tests.histories.sabotage import SABOTAGES
from tests.histories.stored import StoredBooks
from tests.histories.tally import MakeBooks, Tally, run_histories


def main() -> int:
    """Exit code 1 when a history failed, or a sabotage did not."""
    parser = argparse.ArgumentParser(prog="python -m tests.histories", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--store", type=int, default=0, help="run so many on the real store instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sabotage", action="store_true")
    options = parser.parse_args()
    if options.sabotage:
        return _sabotage(options.count, options.seed)
    if options.store:
        with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
            database = Database(f"sqlite:///{folder}/histories.db")
            runner.run(migrate(database))
            store = Store(database, read_answer)
            try:
                return _report(options.store, options.seed, lambda: StoredBooks(runner, store))
            finally:
                runner.run(store.close())
    return _report(options.count, options.seed, MemoryBooks)


def _report(count: int, seed: int, make_books: MakeBooks) -> int:
    tally, began, failures = Tally(), time.monotonic(), 0
    try:
        run_histories(count, seed, make_books, tally)
    except Exception:
        failures = 1
        traceback.print_exc()
    result = {
        "histories": tally.histories,
        "seconds": round(time.monotonic() - began, 1),
        "failures": failures,
        "seed": seed,
        "steps": tally.steps,
        **tally.counts(),
    }
    _say(json.dumps(result))
    return 1 if failures else 0


def _sabotage(count: int, seed: int) -> int:
    unseen = []
    for name, sabotage in SABOTAGES.items():
        tally = Tally()
        with sabotage():
            try:
                run_histories(count, seed, MemoryBooks, tally, shrink=False)
            except Exception as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
                _say(f"{name}: seen after {tally.histories} histories: {reason}")
            else:
                unseen.append(name)
                _say(f"{name}: NOT SEEN in {tally.histories} histories")
    return 1 if unseen else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
