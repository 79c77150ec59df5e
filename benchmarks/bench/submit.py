"""Submitting: tasks a second of one worker, one request for each, compared with a bare client that posts the
same bodies.

The provider is the emulator without a rate limit, and once more one that does nothing: the emulator checks,
prices and books each task on the same two cores, which no sender can make quicker.
"""

import asyncio
import json
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from app.domain.submission import ClaimedTask
from app.domain.task import TaskSpec
from app.provider.wire import encode_create, read_answer
from app.store import Database, Store
from app.store.migrate import migrate
from app.store.tables import submissions
from benchmarks.bench.figures import Row, row
from benchmarks.bench.noop_provider import CREDITS
from benchmarks.bench.rig import ROOT, TALLYHOOK, Process, Rig, module

CHUNK = 2_500
RATE_PER_S = "10000"
"""The highest that may be set; nothing here comes near it."""
LOOK_EVERY_S = 0.1
TIMEOUT_S = 120.0
EMULATOR = [
    TALLYHOOK,
    "emulator",
    "--port",
    "{port}",
    "--json",
    "--rate-limit",
    "0",
    "--time-scale",
    "0.01",
    "--concurrency",
    "1500",
    "--credits",
    "1000000000",
]
"""Emulated time hardly passes there: no task finishes while tasks are sent, so no delivery is in the way."""
WEBHOOK_URL = "http://127.0.0.1:9/webhooks/cloro"


@dataclass(frozen=True, slots=True)
class SubmitSize:
    """Tasks sent in one measurement."""

    tasks: int = 1_500


def measure(rig: Rig, rounds: int, size: SubmitSize) -> list[Row]:
    """submit against the emulator, and three more that show the emulator's part of it."""
    url, ids = asyncio.run(_prepare(rig.create_database(), size.tasks))
    ours: dict[str, list[float]] = {"emulator": [], "noop": []}
    bare: dict[str, list[float]] = {"emulator": [], "noop": []}
    lines = _bodies(rig.folder / "bodies", ids, attempt=1)
    other_lines = _bodies(rig.folder / "other", ids, attempt=2)
    with rig.process(
        "noop", module("benchmarks.bench.noop_provider", "--port", "{port}"), url, path=None
    ) as noop:
        _until_open(noop)
        for _ in range(rounds):
            bare["noop"].append(_bare(noop, lines))
            ours["noop"].append(_ours(rig, url, noop, len(ids)))
            # A new one each time: it would know the keys again.
            with rig.process("emulator", EMULATOR, url, path="/_emulator/books?tasks=0") as emulator:
                bare["emulator"].append(_bare(emulator, other_lines))
                ours["emulator"].append(_ours(rig, url, emulator, len(ids)))
    store = rig.store
    limit = bare["noop"]
    limit_is = "a bare aiohttp client posting the same bodies to a server that does nothing"
    return [
        row("submit", store, ours["emulator"], limit, unit="tasks/s", reference_is=limit_is),
        row("submit, idle provider", store, ours["noop"], limit, unit="tasks/s", reference_is=limit_is),
        row("submit, bare client", store, bare["emulator"], limit, unit="tasks/s", reference_is=limit_is),
        row(
            "submit vs bare client",
            store,
            ours["emulator"],
            bare["emulator"],
            unit="tasks/s",
            at_least=0.55,
            reference_is="a bare aiohttp client posting the same bodies to the emulator",
        ),
    ]


async def _prepare(url: str, count: int) -> tuple[str, list[str]]:
    """A database with a running run of `count` tasks, none of them sent; their ids."""
    store, now = Store(Database(url), read_answer), time.time_ns() // 1_000_000
    ids: list[str] = []
    try:
        await migrate(store.db)
        run_id = await store.runs.create_run(name="bench", source="-", budget=None, now_ms=now)
        for first in range(1, count + 1, CHUNK):
            specs = [(_spec(n), Decimal(CREDITS)) for n in range(first, min(first + CHUNK, count + 1))]
            ids += await store.runs.add_tasks(run_id, specs, now)
        await store.runs.start_run_if_loading(run_id, sha256="0", bad_lines=0)
    finally:
        await store.close()
    return url, ids


def _spec(number: int) -> TaskSpec:
    return TaskSpec(number, "CHATGPT", {"prompt": f"question {number}", "country": "US"})


def _bodies(path: Path, ids: Sequence[str], *, attempt: int) -> Path:
    """The bodies that ours sends for these tasks, one a line."""
    tasks = (
        ClaimedTask(
            task_id,
            "",
            attempt,
            f"{task_id}.{attempt}",
            "CHATGPT",
            json.dumps(_spec(n).payload),
            1,
            Decimal(CREDITS),
            1,
            0,
            "",
        )
        for n, task_id in enumerate(ids, 1)
    )
    path.write_bytes(b"\n".join(encode_create(task, WEBHOOK_URL) for task in tasks))
    return path


def _bare(provider: Process, lines: Path) -> float:
    command = module(
        "benchmarks.bench.bare_client", f"http://127.0.0.1:{provider.port}/v1/async/task", str(lines)
    )
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=TIMEOUT_S)
    answer = json.loads(done.stdout)
    assert set(answer["statuses"]) == {"200"}, answer
    return float(answer["per_s"])


def _ours(rig: Rig, template: str, provider: Process, count: int) -> float:
    with ExitStack() as stack:
        url = stack.enter_context(rig.database(template))
        rig.settle_disk()
        worker = stack.enter_context(
            rig.process(
                "worker",
                module("workers"),
                url,
                path=None,
                TALLYHOOK_RATE_PER_S=RATE_PER_S,
                CLORO_BASE_URL=f"http://127.0.0.1:{provider.port}",
                PUBLIC_URL="http://127.0.0.1:9",
            )
        )
        rate = asyncio.run(_sent_per_s(url, count, worker))
    rig.valkey.flush()
    return rate


async def _sent_per_s(url: str, count: int, worker: Process) -> float:
    """Wait until all are accepted; the rate from the first answer to the last, by the rows."""
    db = Database(url, pool_size=1)
    c = submissions.c
    query = sa.select(sa.func.count(), sa.func.min(c.at_ms), sa.func.max(c.at_ms)).where(
        c.answer == "accepted"
    )

    async def work(connection: Any) -> Any:
        return (await connection.execute(query)).one()

    deadline = time.monotonic() + TIMEOUT_S
    try:
        while (seen := await db.read(work))[0] < count:
            assert worker.popen.poll() is None, worker.log.read_text()[-2_000:]
            assert time.monotonic() < deadline, f"{seen[0]} of {count} sent"
            await asyncio.sleep(LOOK_EVERY_S)
    finally:
        await db.close()
    return float((count - 1) / max(seen[2] - seen[1], 1) * 1000)


def _until_open(process: Process) -> None:
    import socket

    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", process.port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(f"{process.name} does not listen")
