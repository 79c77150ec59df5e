"""`make bench`: every benchmark on every store, each against its reference in the same run."""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.bench import (
    agents,
    api_task,
    batch_file,
    beside,
    counts,
    intake,
    pipeline,
    results,
    settle,
    start,
    submit,
    upload,
)
from benchmarks.bench.figures import Row
from benchmarks.bench.page import keep
from benchmarks.bench.rig import STORES, Rig, rig

Measure = Callable[[Rig, int, bool], list[Row]]


def benchmarks() -> dict[str, Measure]:
    """Each subject's measurement: (servers, rounds, tiny sizes?) -> rows."""

    def quick(size: Any, tiny: Any) -> Callable[[bool], Any]:
        return lambda is_quick: tiny if is_quick else size

    intake_size = quick(intake.IntakeSize(), intake.IntakeSize(0.1, 0.05))
    settle_size = quick(settle.SettleSize(), settle.SettleSize(200, 20))
    submit_size = quick(submit.SubmitSize(), submit.SubmitSize(100))
    counts_size = quick(counts.CountsSize(), counts.CountsSize(200))
    results_size = quick(results.ResultsSize(), results.ResultsSize(100, 20))
    api_task_size = quick(api_task.ApiTaskSize(), api_task.ApiTaskSize(0.1, 0.05))
    beside_size = quick(beside.BesideSize(), beside.BesideSize(0.1, 0.05))
    agents_size = quick(agents.AgentsSize(), agents.AgentsSize(0.1, 0.05))
    upload_size = quick(upload.UploadSize(), upload.UploadSize(1_000, 400))
    pipeline_size = quick(pipeline.PipelineSize(), pipeline.PipelineSize(2))
    return {
        "intake": lambda rig, rounds, tiny: intake.measure(rig, rounds, intake_size(tiny)),
        "settle": lambda rig, rounds, tiny: settle.measure(rig, rounds, settle_size(tiny)),
        "counts": lambda rig, rounds, tiny: counts.measure(rig, rounds, counts_size(tiny)),
        "submit": lambda rig, rounds, tiny: submit.measure(rig, rounds, submit_size(tiny)),
        "start": lambda rig, rounds, tiny: start.measure(rig, rounds),
        "api-task": lambda rig, rounds, tiny: api_task.measure(rig, rounds, api_task_size(tiny)),
        "mcp": lambda rig, rounds, tiny: agents.measure(rig, rounds, agents_size(tiny)),
        "results-stream": lambda rig, rounds, tiny: results.measure(rig, rounds, results_size(tiny)),
        "api-upload": lambda rig, rounds, tiny: upload.measure(rig, rounds, upload_size(tiny)),
        "batch-file": lambda rig, rounds, tiny: batch_file.measure(rig, upload_size(tiny)),
        "beside-api": lambda rig, rounds, tiny: beside.measure(rig, rounds, beside_size(tiny)),
        "pipeline": lambda rig, rounds, tiny: pipeline.measure(rig, pipeline_size(tiny)),
    }


BENCHMARKS = benchmarks()


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(BENCHMARKS), help="may be repeated")
    parser.add_argument("--store", action="append", choices=STORES, help="may be repeated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: that all runs; no figures")
    parser.add_argument(
        "--keep", action="store_true", help="write what --only or --store measured into the results too"
    )
    return parser.parse_args()


def main() -> int:
    """Measure, print, and keep what was measured in full."""
    options, started = parsed(), time.monotonic()
    # Told to end, it still ends the servers that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    rows: list[Row] = []
    busy, cores = os.getloadavg()[0], os.cpu_count() or 1
    if busy > cores / 4:
        print(
            f"This machine is busy (load {busy:.1f} on {cores} cores): bars that need quiet cores fall short."
        )
    with tempfile.TemporaryDirectory(prefix="tallyhook-bench-") as folder:
        for store in options.store or STORES:
            with rig(store, Path(folder) / store) as one:
                for name in options.only or BENCHMARKS:
                    begun = time.monotonic()
                    found = BENCHMARKS[name](one, options.rounds, options.quick)
                    for each in found:
                        print(each.line(), flush=True)
                    print(f"{'':22} {store:10} {name} took {time.monotonic() - begun:.0f} s", flush=True)
                    rows += found
                    one.valkey.flush()
    print(f"{time.monotonic() - started:.0f} s in all")
    if options.keep or not (options.only or options.store or options.quick):
        keep([one.document() for one in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
