"""`make bench-cost`: what a task costs from the file to its settled result, by process and by table, against
the code of an earlier commit, in alternation. Ends with 1 when a bar is missed.

    make bench-cost                                          everything; writes cost.json and the page's table
    make bench-cost ARGS="--store sqlite --rounds 1"         with any option nothing is written without --keep
    make bench-cost ARGS="--quick"                           a tenth of the tasks, once
    make bench-cost ARGS="--ours --relations --statements"   each index, each statement that writes

It takes ten minutes on two quiet cores. The figures that need none (bytes, commands, statements) are as good
on a busy machine.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.bench import page
from benchmarks.bench.counts import create_looker
from benchmarks.bench.figures import Row
from benchmarks.bench.rig import ROOT, STORES, Rig, rig
from benchmarks.cost.checkout import OURS, NoHistoryError, Side, checked_out
from benchmarks.cost.rows import STORED, Sides, rows
from benchmarks.cost.run import Cost, Size, run

RESULTS = ROOT / "benchmarks" / "results" / "cost.json"
BEGIN = "<!-- costs: written by make bench-cost -->"
BEFORE = "f7809d7"
"""The commit before answers were stored once."""
TASKS, APART_TASKS = 20_000, 6_000
ANSWER_BYTES = 18 * 1024


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cost",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--store", action="append", choices=STORES, help="may be repeated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=TASKS, help="of a round")
    parser.add_argument("--answer-bytes", type=int, default=ANSWER_BYTES, help="of an answer in a round")
    parser.add_argument(
        "--apart-bytes",
        type=int,
        help="of an answer where bytes are measured; default: the emulator's own, 13.4 KB",
    )
    parser.add_argument("--apart-tasks", type=int, default=APART_TASKS, help="where bytes are measured")
    parser.add_argument("--against", default=BEFORE, metavar="COMMIT")
    parser.add_argument("--ours", action="store_true", help="nothing to compare with: our figures alone")
    parser.add_argument("--relations", action="store_true", help="print the bytes of each table and index")
    parser.add_argument("--statements", action="store_true", help="print the statements that write most")
    parser.add_argument(
        "--quick", action="store_true", help="one round of a tenth: that all runs; no figures"
    )
    parser.add_argument("--keep", action="store_true", help="write the results, whatever the options")
    return parser.parse_args()


def alternate(one: Rig, sides: list[Side], size: Size, rounds: int) -> list[list[Cost]]:
    """The costs of each side; who is first changes with the round."""
    found: list[list[Cost]] = [[] for _ in sides]
    for n in range(rounds):
        for index in sorted(range(len(sides)), reverse=bool(n % 2)):
            found[index].append(run(one, sides[index], size))
    return found


def _measured(one: Rig, sides: list[Side], options: argparse.Namespace) -> list[Row]:
    if not one.is_sqlite:
        create_looker(one)
    apart = alternate(one, sides, Size(options.apart_tasks, options.apart_bytes, apart=True), 1)
    for side, costs in zip(sides, apart, strict=True):
        _print_details(one.store, side, costs[0], options)
    together = alternate(one, sides, Size(options.tasks, options.answer_bytes), options.rounds)
    # Without another side ours is compared with itself, and of the rows only our figures are shown.
    pairs: tuple[Sides, Sides] = (together[0], together[-1]), (apart[0], apart[-1])
    return rows(one.store, sides[-1].name, *pairs)


def _print_details(store: str, side: Side, cost: Cost, options: argparse.Namespace) -> None:
    count = cost.size.tasks
    if options.relations:
        for name, size_bytes in sorted(cost.relations.items()):
            print(f"{store} {side.name} {name:50} {size_bytes / count:9.1f} bytes a task")
    if options.statements:
        for seen in cost.statements:
            print(
                f"{store} {side.name} {seen['written_bytes'] / count:9.1f} bytes of log,"
                f" {seen['ms'] / count * 1_000:6.1f} µs, {seen['calls']:5} calls: {seen['query']}"
            )


def _print(found: Row, sides: list[Side]) -> None:
    if len(sides) > 1:
        print(found.line(), flush=True)
    else:
        print(f"{found.benchmark:28} {found.store:10} {found.value:9.4g} {found.unit}", flush=True)


def _sides(stack: ExitStack, options: argparse.Namespace, folder: Path) -> list[Side]:
    if options.ours:
        return [OURS]
    try:
        return [OURS, stack.enter_context(checked_out(options.against, folder))]
    except NoHistoryError as error:
        print(f"Our figures alone: {error}")
        return [OURS]


def keep(found: list[Row]) -> None:
    """Write the results and the page's table."""
    documents = [one.document() for one in found]
    RESULTS.write_text(json.dumps(documents, indent=1, ensure_ascii=False) + "\n")
    page.PAGE.write_text(page.with_table(page.PAGE.read_text(), documents, BEGIN))


def main() -> int:
    """Measure, print, keep; the exit code."""
    options, started = parsed(), time.monotonic()
    if options.quick:
        options.rounds, options.tasks, options.apart_tasks = 1, options.tasks // 10, options.apart_tasks // 10
    # Told to end, it still ends the servers that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    found: list[Row] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tallyhook-cost-")))
        sides = _sides(stack, options, folder)
        for store in options.store or STORES:
            with rig(store, folder / store) as one:
                for each in _measured(one, sides, options):
                    _print(each, sides)
                    found.append(each)
    print(f"{time.monotonic() - started:.0f} s in all")
    if len(sides) > 1 and (options.keep or len(sys.argv) == 1):
        keep(found)
        from benchmarks import capacity  # which reads what is kept

        capacity.main()
    return int(any(each.holds is False for each in found if len(sides) > 1 or each.benchmark == STORED))


if __name__ == "__main__":
    sys.exit(main())
