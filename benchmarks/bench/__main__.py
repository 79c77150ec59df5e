"""`make bench`: every benchmark on every store, each against its reference in the same run."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.bench import intake, settle
from benchmarks.bench.figures import Row
from benchmarks.bench.rig import STORES, Rig, rig


def intake_rows(one: Rig, rounds: int, quick: bool) -> list[Row]:
    size = intake.IntakeSize(0.2, 0.05) if quick else intake.IntakeSize()
    return intake.measure(one, rounds, size)


def settle_rows(one: Rig, rounds: int, quick: bool) -> list[Row]:
    size = settle.SettleSize(400, 50) if quick else settle.SettleSize()
    return settle.measure(one, rounds, size)


BENCHMARKS = {"intake": intake_rows, "settle": settle_rows}


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(BENCHMARKS), help="may be repeated")
    parser.add_argument("--store", action="append", choices=STORES, help="may be repeated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: that everything runs, no figures")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tallyhook-bench-") as folder:
        for store in options.store or STORES:
            for name in options.only or BENCHMARKS:
                with rig(store, Path(folder) / f"{store}-{name}") as one:
                    for found in BENCHMARKS[name](one, options.rounds, options.quick):
                        print(found.line(), flush=True)
    print(f"{time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
