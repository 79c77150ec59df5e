"""Random histories on the real store: each must end with our ledger equal to the emulator's books, and with
the drift fully explained:

    python -m tests.histories --count 10000
    python -m tests.histories --sabotage        each protection taken out: how many histories until it shows
"""

import argparse
import json
import sys
import time
import traceback

from tests.histories.sabotage import SABOTAGES
from tests.histories.stored import StoredBooks, stored_books
from tests.histories.tally import Tally, run_histories


def main() -> int:
    """Exit code 1 when a history failed, or a sabotage did not."""
    parser = argparse.ArgumentParser(prog="python -m tests.histories", description=__doc__)
    parser.add_argument("--count", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sabotage", action="store_true")
    options = parser.parse_args()
    with stored_books() as books:
        run = _sabotage if options.sabotage else _report
        return run(options.count, options.seed, books)


def _report(count: int, seed: int, books: StoredBooks) -> int:
    tally, began, failures = Tally(), time.monotonic(), 0
    try:
        run_histories(count, seed, books, tally)
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


def _sabotage(count: int, seed: int, books: StoredBooks) -> int:
    unseen = []
    for name, sabotage in SABOTAGES.items():
        tally = Tally()
        with sabotage():
            try:
                run_histories(count, seed, books, tally, shrink=False)
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
