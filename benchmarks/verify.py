"""`tallyhook verify` on a database of settled tasks: `python -m benchmarks.verify --tasks 100000`.

The data is made by the store's and the services' own code, in bulk: 18 KB bodies, no two alike, signed,
received, read, settled; a few fail, repeat, contradict or cost too much. Then the command runs as a process,
first on a tenth and then on all, and is watched from outside. Prints one JSON object and keeps it in
benchmarks/results/verify.json.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa

from app.domain.delivery import RawDelivery
from app.domain.send_outcome import Answer
from app.domain.settlement import Source
from app.domain.submission import Submission
from app.domain.task import TaskSpec, new_id
from app.provider.wire import read_answer, read_report
from app.services.settle import settle
from app.store import Database, Store
from app.store.migrate import migrate
from app.store.tables import tasks
from benchmarks.bench.bodies import CREDITS, signed_headers, write_bodies
from benchmarks.processor import ended_children_cpu_s
from tests.servers.postgres import PostgresServer

RESULTS = Path(__file__).parent / "results" / "verify.json"
BAR_S = 60.0
CHUNK = 500
SAMPLE_S = 0.05
UNUSUAL_EVERY = 50
"""Of so many tasks one each: failed, delivered twice, overcharged, contradicted."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def fill(store: Store, count: int, name: str) -> None:
    """A run of `count` tasks, each accepted, delivered and settled."""
    run_id = await store.runs.create_run(name=name, source="-", budget=None, now_ms=now_ms())
    await store.runs.start_run_if_loading(run_id, sha256="0" * 64, bad_lines=0)
    for first in range(1, count + 1, CHUNK):
        await _chunk(store, run_id, first, min(first + CHUNK, count + 1))
        if first % 10_000 == 1:
            print(f"{name}: {first - 1} of {count} tasks made", file=sys.stderr, flush=True)


async def _chunk(store: Store, run_id: str, first: int, end: int) -> None:
    now = now_ms()
    specs = [
        (TaskSpec(n, "CHATGPT", {"prompt": f"question {n}", "country": "US"}), Decimal(CREDITS))
        for n in range(first, end)
    ]
    await store.runs.add_tasks(run_id, specs, now)
    claimed = await store.submissions.claim_pending(
        limit=CHUNK, claim="bench", now_ms=now, lease_until_ms=now + 60_000
    )
    keys = [task.idempotency_key for task in claimed]
    bodies = list(write_bodies(first, keys))
    await store.submissions.record_submissions(
        [
            Submission(
                task,
                Answer.ACCEPTED,
                now,
                next_poll_at_ms=now + 10**9,
                http_status=200,
                provider_task_id=provider_id,
                credits_to_charge=Decimal(CREDITS),
            )
            for task, (provider_id, _) in zip(claimed, bodies, strict=True)
        ]
    )
    raw = [delivery for n, (i, body) in enumerate(bodies) for delivery in _deliveries(n, i, body)]
    await store.inbox.store_deliveries(raw, due_at_ms=now + 10**9)
    summary = await settle(store, read_report, [d.id for d in raw], clock=now_ms, unmatched_ms=60_000)
    assert (summary.settled, summary.quarantined, summary.left) == (len(raw), 0, 0), summary


def _deliveries(n: int, provider_id: str, body: bytes) -> list[RawDelivery]:
    """One delivery, or two."""
    charge = b'"creditsCharged":%d' % CREDITS
    unusual = n % UNUSUAL_EVERY
    if unusual == 1:
        body = body.replace(b'"COMPLETED"', b'"FAILED"', 1).replace(charge, b'"creditsCharged":0', 1)
    elif unusual == 2:
        body = body.replace(charge, b'"creditsCharged":%d' % (CREDITS + 2), 1)
    bodies = [body]
    if unusual == 3:
        bodies.append(body)
    elif unusual == 4:
        bodies.append(body.replace(charge, b'"creditsCharged":%d' % (CREDITS + 1), 1))
    now = now_ms()
    return [
        RawDelivery(
            new_id(now),
            Source.DELIVERY,
            now,
            sent,
            *signed_headers(provider_id, sent, now // 1000).values(),
            "default",
        )
        for sent in bodies
    ]


async def make(url: str, counts: dict[str, int]) -> None:
    """The database with its runs."""
    store = Store(Database(url), read_answer)
    try:
        await migrate(store.db)
        for name, count in counts.items():
            await fill(store, count, name)
        if not store.db.is_sqlite:
            await store.db.write(lambda connection: connection.execute(sa.text("ANALYZE")))
    finally:
        await store.close()


async def spoil(url: str) -> str:
    """Change one charge, somewhere in the middle; the task's id."""
    store = Store(Database(url), read_answer)
    some = sa.select(tasks.c.id).order_by(tasks.c.id).offset(77).limit(1).scalar_subquery()
    change = (
        sa.update(tasks).where(tasks.c.id == some).values(credits_charged=Decimal(1)).returning(tasks.c.id)
    )
    try:
        return str(await store.db.write(lambda connection: connection.scalar(change)))
    finally:
        await store.close()


def run_command(url: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """The real command as a process: seconds, peak memory with its children, and what it printed."""
    environment = os.environ | {"DATABASE_URL": url, "TALLYHOOK_LOG_LEVEL": "warning"}
    for name in ("CLORO_API_KEY", "CLORO_WEBHOOK_SECRET", "TALLYHOOK_ACCOUNTS"):
        environment.pop(name, None)  # the emulator's secret signed everything
    command = [str(Path(sys.executable).with_name("tallyhook")), "verify", "--json", *arguments]
    output = folder / "verify.out"
    started, used = time.monotonic(), ended_children_cpu_s()
    with output.open("wb") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, cwd=folder)
        peak = _watch(process)
    seconds = time.monotonic() - started
    return {
        "seconds": round(seconds, 2),
        "cpu_s": round(ended_children_cpu_s() - used, 2),
        "peak_rss_mb": peak >> 20,
        "exit": process.returncode,
        "printed": json.loads(output.read_text()),
    }


def _watch(process: "subprocess.Popen[bytes]") -> int:
    """Bytes at the peak, the process and its children together."""
    peak = 0
    family = psutil.Process(process.pid)
    while process.poll() is None:
        rss = 0
        for member in (family, *_children(family)):
            try:
                rss += member.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        peak = max(peak, rss)
        time.sleep(SAMPLE_S)
    return peak


def _children(family: psutil.Process) -> Sequence[psutil.Process]:
    try:
        return family.children(recursive=True)
    except psutil.NoSuchProcess:
        return ()


def measure(url: str, count: int, folder: Path, processes: Sequence[str]) -> dict[str, Any]:
    """Make the data, verify a tenth and all of it, spoil one row, verify again."""
    part = max(count // 10, 1)
    started = time.monotonic()
    asyncio.run(make(url, {"part": part, "rest": count - part}))
    made_s = time.monotonic() - started
    tenth = run_command(url, folder, "part", *processes)
    whole = run_command(url, folder, *processes)
    printed = whole["printed"]
    assert (tenth["exit"], whole["exit"], printed["equal"]) == (0, 0, True), printed
    assert printed["counts"]["tasks"] == printed["counts"]["settled"] == count, printed["counts"]
    spoiled = asyncio.run(spoil(url))
    found = run_command(url, folder, *processes)
    named = {(d["table"], d["key"], d["column"]) for d in found["printed"]["differences"]}
    assert found["exit"] == 1, found
    assert ("tasks", spoiled, "credits_charged") in named, named
    return {
        "tasks": count,
        "seconds": whole["seconds"],
        "cpu_s": whole["cpu_s"],
        "tasks_per_s": round(count / whole["seconds"]),
        "peak_rss_mb": whole["peak_rss_mb"],
        "peak_rss_mb_of_a_tenth": tenth["peak_rss_mb"],
        "seconds_with_one_row_spoiled": found["seconds"],
        "made_in_s": round(made_s, 1),
        "deliveries": printed["counts"]["from_delivery"],
        "signatures_fit": printed["counts"]["signatures_fit"],
        "credits": printed["credits"],
    }


def main() -> int:
    """Parse, measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--store", choices=("sqlite", "postgres"), action="append")
    parser.add_argument("--processes", type=int, help="of verify; default: its own choice")
    options = parser.parse_args()
    processes = ["--processes", str(options.processes)] if options.processes else []
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    holds = True
    for kind in options.store or ("sqlite", "postgres"):
        with tempfile.TemporaryDirectory(prefix="tallyhook-verify-") as name:
            folder = Path(name)
            if kind == "sqlite":
                figures = measure(f"sqlite:///{folder / 'tallyhook.db'}", options.tasks, folder, processes)
            else:
                server = PostgresServer(durable=True)
                server.start()
                try:
                    figures = measure(server.create_database(), options.tasks, folder, processes)
                finally:
                    server.stop()
        figures = {"store": kind, **figures, "processes": options.processes, "bar_s": BAR_S}
        figures |= {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
        print(json.dumps(figures), flush=True)
        kept.append(figures)
        holds = holds and figures["seconds"] < BAR_S
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
