"""`python -m benchmarks.capacity`: the table of docs/capacity.md, computed from benchmarks/results/cost.json.

Measures nothing: `make bench-cost` did, which writes it again where it keeps its figures.
"""

import json
import math
from decimal import Decimal
from typing import Any

from benchmarks.bench.page import END
from benchmarks.bench.rig import ROOT
from benchmarks.cost.__main__ import RESULTS

PAGE = ROOT / "docs" / "capacity.md"
BEGIN = "<!-- capacity: written by python -m benchmarks.capacity -->"
MONTHLY = (1_000_000, 10_000_000, 100_000_000)
HOURS = 8
"""Of a day in which its prompts are sent and answered."""
LOAD = 0.6
"""Of a core that may be used: above it waits grow fast."""
KEPT_DAYS = 30
"""TALLYHOOK_KEEP_BODIES_DAYS of the example."""
AHEAD_DAYS, BEHIND_DAYS = 7, 1
CONNECTIONS = 10
"""Of a process at most: a pool of five, and five more."""
ARCHIVED_SHARE = 0.155
"""Of a body's bytes, as docs/performance.md measured it on the benchmark's bodies."""
BODY_BYTES = 13_400
PROCESSES = ("web", "worker", "database", "redis")
FOR_EVER = ("tasks", "results", "ledger", "submissions")


def costs(store: str) -> dict[str, float]:
    """Figures of one task by the names of cost.json. Raises KeyError for a store that was not measured."""
    rows: list[dict[str, Any]] = json.loads(RESULTS.read_text())
    return {row["benchmark"]: float(row["value"]) for row in rows if row["store"] == store}


def column(monthly: int, cost: dict[str, float]) -> dict[str, str]:
    """What so many prompts a month need, on PostgreSQL."""
    daily = monthly / 30
    rate = daily / (HOURS * 3_600)
    cores = {name: rate * cost[f"processor time, {name}"] / 1e6 / LOAD for name in PROCESSES}
    processes = {name: max(1, math.ceil(cores[name])) for name in ("web", "worker")}
    kept = sum(cost[f"stored, {name}"] for name in FOR_EVER)
    return {
        "prompts a day": f"{daily:,.0f}",
        f"a second, over {HOURS} hours": f"{rate:,.1f}",
        **{f"cores for {name}": f"{Decimal(f'{cores[name]:.2g}'):f}" for name in PROCESSES},
        "processes of web, of worker": f"{processes['web']}, {processes['worker']}",
        "connections to PostgreSQL at most": f"{CONNECTIONS * sum(processes.values())}",
        f"bodies, kept {KEPT_DAYS} days": _size(daily * KEPT_DAYS * cost["stored, deliveries"]),
        "rows that stay, a year": _size(monthly * 12 * kept),
        "archive, a year": _size(monthly * 12 * BODY_BYTES * ARCHIVED_SHARE),
        "write-ahead log, a day": _size(daily * cost["write-ahead log"]),
        "partitions": f"{KEPT_DAYS + AHEAD_DAYS + BEHIND_DAYS + 1}",
        "Redis commands a second": f"{rate * cost['redis commands']:,.1f}",
    }


def _size(count: float) -> str:
    for unit in ("KB", "MB", "GB", "TB"):
        count /= 1_000
        if count < 1_000:
            return f"{count:,.3g} {unit}"
    return f"{count:,.0f} TB"


def table() -> str:
    """A column for each volume."""
    cost = costs("postgresql")
    columns = [column(monthly, cost) for monthly in MONTHLY]
    lines = [
        "| needed for | " + " | ".join(f"{monthly:,} a month" for monthly in MONTHLY) + " |",
        "|---|" + "---|" * len(MONTHLY),
    ]
    lines += [f"| {name} | " + " | ".join(found[name] for found in columns) + " |" for name in columns[0]]
    return "\n".join(lines)


def main() -> None:
    """Write the table between its marks."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
