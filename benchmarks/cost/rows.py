"""Rows of the table, from the costs of both sides: each figure for one task, against the earlier code."""

import dataclasses
from collections.abc import Iterator, Sequence

from benchmarks.bench.figures import Row, row
from benchmarks.cost.relations import by_table
from benchmarks.cost.run import Cost

STORED_BYTES_MAX = {"postgresql": 7_000, "sqlite": 6_500}
DELIVERY_WRITTEN_MAX = 0.5
CPU_MAX = 0.65
OURS = ("web", "worker", "database", "redis")
"""The processes that run all the time; `submit` runs once a file, and the emulator is the provider."""
STORED = "stored, all"
"""The only row whose bar is an absolute figure."""
US = 1e6
TICK_S = 0.01
"""The kernel counts in these; less than one is not nothing."""

Sides = tuple[Sequence[Cost], Sequence[Cost]]
"""Ours and the earlier code's, a cost for each round, in pairs."""


def rows(store: str, against: str, together: Sides, apart: Sides) -> list[Row]:
    """The rows of one store."""
    return [
        *_cpu(store, against, together),
        *_counts(store, against, together),
        *_delivery(store, against, apart),
        *_stored(store, against, apart),
    ]


def _each(sides: Sides, figure: str, name: str = "") -> tuple[list[float], list[float]]:
    ours, theirs = ([_a_task(cost, figure, name) for cost in side] for side in sides)
    return ours, theirs


def _a_task(cost: Cost, figure: str, name: str) -> float:
    found = getattr(cost, figure)
    return float(found.get(name, 0) if name else found) / cost.size.tasks


def _us(cost: Cost, *names: str) -> float:
    used_s = sum(cost.cpu_s.get(name, 0) for name in names)
    return max(used_s, TICK_S) / cost.size.tasks * US


def _cpu(store: str, against: str, sides: Sides) -> Iterator[Row]:
    used = [name for name in (*OURS, "submit", "emulator") if name in sides[0][0].cpu_s]
    for name, names, at_most in [(n, (n,), None) for n in used] + [("all", OURS, CPU_MAX)]:
        ours, theirs = ([_us(cost, *names) for cost in side] for side in sides)
        yield row(
            f"processor time, {name}", store, ours, theirs, unit="µs", reference_is=against, at_most=at_most
        )


def _counts(store: str, against: str, sides: Sides) -> Iterator[Row]:
    named = {
        "write-ahead log": ("written_bytes", "bytes"),
        "redis commands": ("redis_commands", "a task"),
        "sql statements": ("sql_statements", "a task"),
        "end to end": ("seconds", "s"),
    }
    for name, (figure, unit) in named.items():
        yield row(name, store, *_each(sides, figure), unit=unit, reference_is=against)


def _delivery(store: str, against: str, sides: Sides) -> Iterator[Row]:
    yield row(
        "write-ahead log, a delivery",
        store,
        *_each(sides, "delivery_written_bytes"),
        unit="bytes",
        reference_is=against,
        at_most=DELIVERY_WRITTEN_MAX,
    )


def _stored(store: str, against: str, sides: Sides) -> Iterator[Row]:
    ours, theirs = ([by_table(cost.relations) for cost in side] for side in sides)
    tables = sorted(ours[0], key=lambda table: -ours[0][table])
    for table in tables:
        seen = [[found.get(table, 0) for found in side] for side in (ours, theirs)]
        if max(seen[0] + seen[1]) < ours[0][tables[0]] / 100 or min(seen[1]) <= 0:
            continue  # nothing that grows with tasks, or new
        each = (
            [n / c.size.tasks for n, c in zip(*pair, strict=True)] for pair in zip(seen, sides, strict=True)
        )
        yield row(f"stored, {table}", store, *each, unit="bytes", reference_is=against)
    totals = [
        [sum(found.values()) / cost.size.tasks for found, cost in zip(*pair, strict=True)]
        for pair in zip((ours, theirs), sides, strict=True)
    ]
    found = row(STORED, store, *totals, unit="bytes", reference_is=against)
    if sides[0][0].size.answer_bytes is not None:
        yield found  # the bar is for the emulator's own
        return
    bar = STORED_BYTES_MAX[store]
    yield dataclasses.replace(found, bar=bar, bar_kind="max", holds=found.value <= bar)
