"""Loads an exported file with a reader that is not ours, and prints what it found:
`python -m benchmarks.export_load duckdb results parquet results.parquet`. Imports nothing of ours.

DuckDB is given the types of the columns that text cannot carry (credits, times); Parquet carries them.
"""

import json
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

TYPES = {
    "results": {"credits_charged": "DECIMAL(18,6)", "settled_at": "TIMESTAMPTZ"},
    "ledger": {"credits": "DECIMAL(18,6)", "booked_at": "TIMESTAMPTZ"},
}
TIMES = {"results": "settled_at", "ledger": "booked_at"}
CREDITS = {"results": "credits_charged", "ledger": "credits"}


def expected_of(what: str, tasks: int) -> dict[str, Any]:
    """What a file of so many tasks must hold, by the rule that the data are made by."""
    free = tasks // 25
    charged = sum(5 * 10**6 + n % 7 for n in range(1, tasks + 1) if n % 25)
    start = 1_790_812_800_000
    if what == "results":
        return {
            "rows": tasks,
            "micro": charged,
            "last_ms": start + tasks * 40 + 9_000,
            "answers": tasks - free,
        }
    # A hold and its closing entry; a void gives back what was held.
    return {
        "rows": 2 * tasks,
        "micro": 2 * (charged + 5 * 10**6 * free),
        "last_ms": start + tasks * 40 + 9_000,
    }


def by_duckdb(what: str, format_: str, path: str) -> dict[str, Any]:
    """One scan of every column."""
    import duckdb

    credits, time = CREDITS[what], TIMES[what]
    types = TYPES[what]
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        columns = types | ({"state": "VARCHAR", "response": "JSON"} if what == "results" else {})
        source = {
            "jsonl": f"read_json('{path}', columns = {columns})",
            "csv": f"read_csv('{path}', types = {types})",
            "parquet": f"read_parquet('{path}')",
        }[format_]
        answers = "count(*) FILTER (state = 'completed' AND length(response::VARCHAR) > 15000)"
        rows, micro, last_ms, found = connection.execute(
            f"SELECT count(*), sum({credits} * 1000000)::BIGINT, max(epoch_ms({time})), "
            f"{answers if what == 'results' else 0} FROM {source}"
        ).fetchall()[0]
        described = connection.execute(f"DESCRIBE SELECT {credits}, {time} FROM {source}").fetchall()
    return {
        "rows": rows,
        "micro": micro,
        "last_ms": last_ms,
        "answers": found,
        "types": {r[0]: r[1] for r in described},
    }


def frames(what: str, format_: str, path: str) -> Iterator[Any]:
    """The file as pandas frames: Parquet whole, text in pieces of 5,000 rows."""
    import pandas as pd

    credits, time = CREDITS[what], TIMES[what]
    if format_ == "parquet":
        yield pd.read_parquet(path)
    elif format_ == "csv":
        yield from pd.read_csv(path, dtype={credits: "str"}, parse_dates=[time], chunksize=5_000)
    else:
        # dtype=False: a credit that is text stays text, and exact.
        for frame in pd.read_json(path, lines=True, dtype=False, chunksize=5_000):
            yield frame.assign(**{time: pd.to_datetime(frame[time])})


def by_pandas(what: str, format_: str, path: str) -> dict[str, Any]:
    """Exact sums of what pandas made of the columns."""
    credits, time = CREDITS[what], TIMES[what]
    found: dict[str, Any] = {"rows": 0, "micro": 0, "last_ms": 0, "answers": 0, "types": {}}
    for frame in frames(what, format_, path):
        found["rows"] += len(frame)
        found["micro"] += int(sum(Decimal(str(value)) for value in frame[credits].dropna()) * 10**6)
        found["last_ms"] = max(found["last_ms"], int(frame[time].max().timestamp() * 1000))
        if what == "results":
            done = frame[frame["state"] == "completed"]["response"]
            found["answers"] += sum(len(str(answer)) > 15_000 for answer in done)
        found["types"] = {name: str(frame[name].dtype) for name in (credits, time)}
    return found


LOADERS: dict[str, Callable[[str, str, str], dict[str, Any]]] = {"duckdb": by_duckdb, "pandas": by_pandas}


if __name__ == "__main__":
    print(json.dumps(LOADERS[sys.argv[1]](*sys.argv[2:5])))
