"""Exports at full size, by real processes: `python -m benchmarks.export --tasks 100000`.

Fills a database with two finished runs, one of 10,000, answers of 18 KB, all different. Exports
both, in every format, each by a `tallyhook export` of its own, and compares their peak memory. Then DuckDB
and pandas, in processes of their own, load every file of the large run: types, counts and sums must be those
the data were made with. Prints one JSON object; keeps it in benchmarks/results/export.json.
"""

import argparse
import asyncio
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from app.domain.task import TaskSpec, idempotency_key, new_id
from app.provider.wire import read_answer
from app.store import Database, Store
from app.store.migrate import migrate
from app.store.tables import deliveries, ledger, results, tasks
from app.store.write.inbox import pack
from benchmarks.export_load import LOADERS, expected_of
from benchmarks.processor import ended_children_cpu_s
from tests.servers.postgres import PostgresServer

RESULTS = Path(__file__).parent / "results" / "export.json"
START_MS = 1_790_812_800_000
ANSWER_CHARS = 17_500
CHUNK = 1_000
ENGINES = ("CHATGPT", "GEMINI", "PERPLEXITY", "COPILOT", "GROK", "AIMODE", "GOOGLE", "GOOGLE_NEWS")
COUNTRIES = ("US", "DE", "GB", "FR", "ES", "JP")
SMALL = 10_000
GROWTH_MB_MAX = 40
"""Of peak memory, from the small run to the large one, whose rows are 1.6 GB more. 32 MB are SQLite's page
cache, which the small run does not fill."""


def made(
    run_id: str, first: int, count: int, rng: random.Random, words: list[str], after_seq: int
) -> Iterator[Any]:
    """Rows of (tasks, results, ledger, deliveries) of settled tasks: one in 25 failed, some charges with
    decimals."""
    for ordinal in range(first, first + count):
        at_ms = START_MS + ordinal * 40
        task_id = new_id(at_ms, rng.getrandbits(74))
        failed = ordinal % 25 == 0
        charged = Decimal(0) if failed else Decimal(5) + Decimal(ordinal % 7) / 10**6
        spec = TaskSpec(
            ordinal, ENGINES[ordinal % 8], {"prompt": f"prompt {ordinal}", "country": COUNTRIES[ordinal % 6]}
        )
        state = "failed" if failed else "completed"
        task = {
            "id": task_id,
            "run_id": run_id,
            "ordinal": ordinal,
            "task_type": spec.task_type,
            "payload": json.dumps(spec.payload),
            "priority": 1,
            "state": state,
            "attempt": 1,
            "idempotency_key": idempotency_key(task_id, 1),
            "money": "voided" if failed else "posted",
            "credits_estimate": Decimal(5),
            "credits_to_charge": charged or Decimal(5),
            "credits_held": charged or Decimal(5),
            "credits_charged": charged,
            "reported": state,
            "verdict": "free_failure" if failed else "matched",
            "provider_task_id": f"p-{ordinal}",
            "sends": 1,
            "first_sent_at_ms": at_ms,
            "submitted_at_ms": at_ms + 80,
            "settled_at_ms": at_ms + 9_000,
            "settled_by": "delivery",
            "not_before_ms": 0,
            "polls": 0,
            "fingerprint": spec.fingerprint(),
        }
        answer = answer_of(ordinal, rng, words) if not failed else "null"
        result = {
            "task_id": task_id,
            "attempt": 1,
            "delivery_id": task_id,
            "status": state,
            "stored_at_ms": at_ms + 9_000,
            "answer_bytes": len(answer.encode()),
            "answer_sha256": hashlib.sha256(answer.encode()).digest(),
            "seq": after_seq + ordinal,
        }
        encoding, body = pack(f'{{"task":{{"id":"p-{ordinal}"}},"response":{answer}}}'.encode())
        delivery = {
            "id": task_id,
            "source": "delivery",
            "received_at_ms": at_ms + 9_000,
            "encoding": encoding,
            "body": body,
            "state": "done",
            "effect": "settled",
            "tries": 0,
            "due_at_ms": at_ms + 9_000,
            "task_id": task_id,
            "attempt": 1,
        }
        entries = [
            {
                "at_ms": at_ms + ms,
                "run_id": run_id,
                "task_id": task_id,
                "attempt": 1,
                "kind": kind,
                "credits": credits,
                "delivery_id": None,
            }
            for ms, kind, credits in (
                (80, "hold", charged or Decimal(5)),
                (9_000, "void" if failed else "post", charged or Decimal(5)),
            )
        ]
        yield task, result, entries, delivery


def answer_of(ordinal: int, rng: random.Random, words: list[str]) -> str:
    """18 KB of JSON, different for each task."""
    text = " ".join(rng.choices(words, k=ANSWER_CHARS // 7))
    sources = [
        {"position": n, "url": f"https://example.com/{ordinal}/{n}", "label": "Example"} for n in range(8)
    ]
    return json.dumps({"text": f"„{ordinal}“: {text}", "sources": sources, "model": "m"}, ensure_ascii=False)


async def fill(url: str, count: int, rng: random.Random, after_seq: int = 0) -> str:
    """A finished run; its id. `after_seq`: behind the results of the runs before it."""
    words = ["".join(rng.choices("abcdefghijklmnoprstuvwxyz", k=6)) for _ in range(5_000)]
    store = Store(Database(url), read_answer)
    try:
        run_id = await store.runs.create_run(
            name=f"run of {count}", source="bench", budget=None, now_ms=START_MS
        )
        for first in range(1, count + 1, CHUNK):
            rows = list(made(run_id, first, min(CHUNK, count + 1 - first), rng, words, after_seq))

            async def work(connection: Any, rows: list[Any] = rows) -> None:
                await store.db.insert(connection, tasks, [row[0] for row in rows])
                await store.db.insert(connection, results, [row[1] for row in rows])
                await store.db.insert(connection, deliveries, [row[3] for row in rows])
                await store.db.insert(connection, ledger, [entry for row in rows for entry in row[2]])

            await store.db.write(work)
        await store.runs.start_run_if_loading(run_id, sha256="0" * 64, bad_lines=0)
        return run_id
    finally:
        await store.close()


def timed(arguments: list[str], url: str = "") -> dict[str, Any]:
    """Run a process to its end: seconds, of the clock and of the processor; peak memory; what it printed."""
    started = time.monotonic()
    used = ended_children_cpu_s()
    environment = os.environ | {"DATABASE_URL": url}
    peak_kb = 0
    with (
        tempfile.TemporaryFile() as printed,
        subprocess.Popen([sys.executable, *arguments], env=environment, stdout=printed) as process,
    ):
        # The peak of the process's own memory; wait4 would count that of the process that forked.
        while process.poll() is None:
            peak_kb = max(peak_kb, _peak_kb(process.pid))
            time.sleep(0.02)
        printed.seek(0)
        output = printed.read()
    if process.returncode:
        raise SystemExit(f"{arguments} ended with {process.returncode}: {output.decode()}")
    seconds = round(time.monotonic() - started, 1)
    return {
        "seconds": seconds,
        "cpu_seconds": round(ended_children_cpu_s() - used, 1),
        "peak_rss_mb": peak_kb >> 10,
        "printed": json.loads(output),
    }


def _peak_kb(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(found[0]) if found else 0


def measure(url: str, small: tuple[str, int], large: tuple[str, int], folder: Path) -> list[dict[str, Any]]:
    """Export and load everything; one row of figures for each kind of file."""
    figures = []
    for what in ("results", "ledger"):
        for format_ in ("jsonl", "csv", "parquet"):
            path = folder / f"{what}.{format_}"
            export = [
                "-m",
                "app.cli.main",
                "export",
                "--what",
                what,
                "--format",
                format_,
                "-o",
                str(path),
                "--json",
            ]
            before = timed([*export[:3], small[0], *export[3:]], url)
            after = timed([*export[:3], large[0], *export[3:]], url)
            row = {
                "what": what,
                "format": format_,
                "rows": after["printed"]["rows"],
                "seconds": after["seconds"],
                "cpu_seconds": after["cpu_seconds"],
                "mb": round(path.stat().st_size / 1e6, 1),
                "peak_rss_mb": after["peak_rss_mb"],
                f"peak_rss_mb_at_{small[1]}": before["peak_rss_mb"],
                "growth_mb": after["peak_rss_mb"] - before["peak_rss_mb"],
            }
            for reader in LOADERS:
                loaded = timed(["-m", "benchmarks.export_load", reader, what, format_, str(path)])
                wrong = {k: v for k, v in expected_of(what, large[1]).items() if loaded["printed"][k] != v}
                if wrong:
                    raise SystemExit(f"{reader} reads {path.name} as {loaded['printed']}, not {wrong}")
                row[f"{reader}_seconds"] = loaded["seconds"]
                row[f"{reader}_types"] = loaded["printed"]["types"]
            path.unlink()
            figures.append(row)
            print(json.dumps(row), flush=True)
    return figures


def main() -> None:
    """Parse, run, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--store", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    small = min(options.tasks, SMALL)
    with tempfile.TemporaryDirectory(prefix="tallyhook-export-") as folder:
        server = PostgresServer() if options.store == "postgres" else None
        if server:
            server.start()
        try:
            url = server.create_database() if server else f"sqlite:///{folder}/export.db"
            started = time.monotonic()
            asyncio.run(migrated(url))
            runs = [
                (asyncio.run(fill(url, count, random.Random(f"{options.seed} {nth}"), nth * small)), count)
                for nth, count in enumerate((small, options.tasks))
            ]
            filled_s = round(time.monotonic() - started, 1)
            files = measure(url, runs[0], runs[1], Path(folder))
            page = Path(folder) / "report.html"
            report = timed(["-m", "app.cli.main", "report", runs[1][0], "--html", str(page), "--json"], url)
            del report["printed"]
            report["kb"] = round(page.stat().st_size / 1e3, 1)
        finally:
            if server:
                server.stop()
    growth_mb = max(row["growth_mb"] for row in files)
    figures = {
        "tasks": options.tasks,
        "store": options.store,
        "seed": options.seed,
        "answer_bytes": ANSWER_CHARS + 500,
        "cores": os.cpu_count(),
        "fill_seconds": filled_s,
        "growth_mb_max": growth_mb,
        "flat": growth_mb <= GROWTH_MB_MAX,
        "report": report,
        "types_and_sums": "as made",
        "files": files,
    }
    print(json.dumps({key: value for key, value in figures.items() if key != "files"}))
    RESULTS.parent.mkdir(exist_ok=True)
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    kept = [one for one in kept if (one["store"], one["tasks"]) != (options.store, options.tasks)]
    RESULTS.write_text(json.dumps([*kept, figures], indent=1) + "\n")
    sys.exit(0 if figures["flat"] else 1)


async def migrated(url: str) -> None:
    """Bring the database to the newest schema."""
    db = Database(url)
    await migrate(db)
    await db.close()


if __name__ == "__main__":
    main()
