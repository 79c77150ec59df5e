"""Own columns there and back, by real processes: `python -m benchmarks.own_columns --tasks 100000`, and
`--store postgresql`.

Writes a JSONL file of prompts with four own columns, one of them nested, and a CSV file of the same texts.
Submits both, by a `tallyhook submit` each, exports each in every format and as the rest without an
answer, and compares every file with the input, column by column. Prints one JSON object with what each
process took, for 10,000 prompts and for --tasks.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.servers.postgres import PostgresServer

SMALL = 10_000
OWN = ("brand_id", "notes", "credits_limit", "state_of_mind")
TABLE = ("custom_id", "prompt", *OWN)


def record(n: int) -> dict[str, Any]:
    """A prompt with a custom_id and four own columns; texts as people have them."""
    return {
        "custom_id": f"row {n:06}",
        "prompt": f"Which CRM is best for a firm of {n}?",
        "brand_id": f"{n % 1000:05}",
        "notes": ("", "é ü 漢字 😀", 'a "quote", a comma\nand a line', " blank ", "=1+1", "null")[n % 6],
        "credits_limit": ("0.10", "12345678901234567890123", "1e400", "-0.0")[n % 4],
        "state_of_mind": {"z": [n, {"y": None, "a": [1.50, True]}], "b": "ß", "a": {}},
    }


def json_line(n: int) -> str:
    """`credits_limit` is a number there, with digits that no float holds."""
    fields = record(n)
    number = fields.pop("credits_limit")
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    return f'{text[:-1]},"credits_limit":{number}}}\n'


def cells(n: int) -> list[str]:
    """The same for a table, in the order of TABLE."""
    fields = record(n)
    nested = json.dumps(fields["state_of_mind"], ensure_ascii=False, separators=(",", ":"))
    return [*(str(fields[name]) for name in TABLE[:-1]), nested]


def write_jsonl(path: Path, tasks: int) -> None:
    """The input as JSON Lines."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json_line(n) for n in range(1, tasks + 1))


def write_csv(path: Path, tasks: int) -> None:
    """The input as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(TABLE)
        writer.writerows(cells(n) for n in range(1, tasks + 1))


def differing(path: Path, tasks: int, *, is_json_source: bool) -> int:
    """Rows of an exported file that are not the input's, and those that are missing."""
    if path.suffix == ".jsonl":
        found: Iterator[Any] = (_line_of(line) for line in path.read_bytes().splitlines())
        expected: Iterator[Any] = (_expected_line(n, is_json=is_json_source) for n in range(1, tasks + 1))
    else:
        found = _csv_rows(path) if path.suffix == ".csv" else _parquet_rows(path)
        guarded = path.suffix == ".csv" and "rest" not in path.name
        expected = (_expected_cells(n, guarded=guarded) for n in range(1, tasks + 1))
    rows = list(found)
    unequal = [1 for row, wanted in zip(rows, expected, strict=False) if row != wanted]
    return abs(len(rows) - tasks) + len(unequal)


def _line_of(line: bytes) -> str:
    """Own columns as text, whether they are an object or stand in the record itself."""
    found = json.loads(line, parse_float=str, parse_int=str)
    own = found.get("metadata") or {name: found[name] for name in found if name in OWN}
    prompt = (found.get("payload") or found)["prompt"]
    return json.dumps([found["custom_id"], prompt, own])


def _expected_line(n: int, *, is_json: bool) -> str:
    fields = (
        json.loads(json_line(n), parse_float=str, parse_int=str)
        if is_json
        else dict(zip(TABLE, cells(n), strict=True))
    )
    own = {name: fields[name] for name in fields if name in OWN}
    return json.dumps([fields["custom_id"], fields["prompt"], own])


def _expected_cells(n: int, *, guarded: bool) -> list[str]:
    row = cells(n)
    return [f"'{cell}" if guarded and cell.startswith("=") else cell for cell in row]


def _csv_rows(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield [row[name] for name in TABLE]


def _parquet_rows(path: Path) -> Iterator[list[str]]:
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(path).iter_batches(columns=list(TABLE)):
        yield from ([row[name] for name in TABLE] for row in batch.to_pylist())


def _run(folder: Path, store_url: str, *arguments: str) -> dict[str, Any]:
    started_s = time.monotonic()
    environment = os.environ | {"TALLYHOOK_DATA_DIR": str(folder / "data"), "DATABASE_URL": store_url}
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli.main", *arguments], env=environment, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"tallyhook {' '.join(arguments)} ended with {os.waitstatus_to_exitcode(status)}")
    return {
        "rss_mb": round(usage.ru_maxrss / 1024, 1),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "took_s": round(time.monotonic() - started_s, 1),
    }


def _compared(out: Path, tasks: int, source: str) -> int:
    """In a process of its own: what a child took is counted from what its parent has."""
    command = [sys.executable, "-m", "benchmarks.own_columns", "--tasks", str(tasks), "--source", source]
    ended = subprocess.run([*command, "--compare", str(out)], capture_output=True, text=True, check=True)
    return int(ended.stdout)


def measure(tasks: int, sources: Sequence[str], store_url: str) -> dict[str, Any]:
    """Everything, for so many prompts, in the database of an address; blank: SQLite."""
    figures: dict[str, Any] = {"tasks": tasks}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for source in sources:
            path = folder / f"in.{source}"
            (write_jsonl if source == "jsonl" else write_csv)(path, tasks)
            run = f"{source}-{tasks}"
            options = ("--task-type", "CHATGPT", "--country", "DE", "--name", run)
            figures[f"submit {source}"] = _run(folder, store_url, "submit", str(path), *options)
            for what in ("jsonl", "csv", "parquet", "rest.jsonl", "rest.csv"):
                out = folder / f"out-{source}-{what if 'rest' in what else f'all.{what}'}"
                how = ("--remaining",) if "rest" in what else ("--format", what)
                done = _run(folder, store_url, "export", run, *how, "--output", str(out))
                done["differing"] = _compared(out, tasks, source)
                figures[f"{source} to {what}"] = done
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure a small run and the one asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--source", choices=("jsonl", "csv"), action="append", help="default: both")
    parser.add_argument("--store", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--compare", type=Path, help="count the rows of a file that are not the input's")
    options = parser.parse_args(arguments)
    tasks, sources = options.tasks, options.source or ("jsonl", "csv")
    if options.compare is not None:
        print(differing(options.compare, tasks, is_json_source=sources == ["jsonl"]))
        return
    server = PostgresServer() if options.store == "postgresql" else None
    figures = []
    try:
        if server is not None:
            server.start()
        store_url = "" if server is None else server.create_database()
        if store_url:
            _run(Path.cwd(), store_url, "migrate")
        for size in sorted({min(SMALL, tasks), tasks}):
            figures.append(measure(size, sources, store_url))
            print(json.dumps(figures[-1], indent=1), flush=True)
    finally:
        if server is not None:
            server.stop()
    if any(isinstance(f, dict) and f.get("differing") for size in figures for f in size.values()):
        raise SystemExit("an export is not the input")


if __name__ == "__main__":
    main()
