"""Single tasks over HTTP: how many `POST /v1/async/task` a second one `api` process takes, each durable
before its answer, compared with a bare handler that validates the same body.
"""

import json
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.bench.figures import Row, row
from benchmarks.bench.generator import Generator, generator
from benchmarks.bench.intake import migrated
from benchmarks.bench.rig import TALLYHOOK, Process, Rig, module

PATH = "/v1/async/task"
REQUESTS_PER_S = 4_000
"""Prepared for each second of a measurement; a server that takes more is measured for a shorter time."""
MODES = ("ours", "bare")


@dataclass(frozen=True, slots=True)
class ApiTaskSize:
    """How long one measurement is."""

    seconds: float = 2.0
    warm_up_s: float = 1.0


def measure(rig: Rig, rounds: int, size: ApiTaskSize) -> list[Row]:
    """api-task, its processor time, and the memory of `api`."""
    seen: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
    with ExitStack() as stack:
        load = stack.enter_context(generator())
        url = stack.enter_context(rig.database(migrated(rig)))
        each = round(size.seconds * REQUESTS_PER_S)
        load.prepare_posts(PATH, bodies(rounds, each), {"Authorization": f"Bearer {token(rig, url)}"})
        command = {
            "ours": [TALLYHOOK, "api", "--port", "{port}"],
            "bare": module("benchmarks.bench.bare_task", "--port", "{port}"),
        }
        fast = {"TALLYHOOK_API_RATE_PER_S": "10000"}
        servers = {mode: stack.enter_context(rig.process(mode, command[mode], url, **fast)) for mode in MODES}
        for server in servers.values():
            load.run(server.port, seconds=size.warm_up_s, first=rounds * each, count=each)
        begun_mb = servers["ours"].memory_mb("VmHWM")
        for number in range(rounds):
            for mode, server in servers.items():
                seen[mode].append(_one(rig, server, load, size, number * each, each))
        peak_mb = servers["ours"].memory_mb("VmHWM")
    return _rows(rig.store, seen, begun_mb, peak_mb)


def bodies(rounds: int, each: int) -> list[str]:
    """Of every round, and of the warming up before: each with a key of its own."""
    return [
        json.dumps(
            {
                "taskType": "GEMINI",
                "priority": 5,
                "idempotencyKey": f"run-42:item-{n}",
                "payload": {
                    "prompt": f"Which CRM suits a small firm that sells in {n} towns, and why?",
                    "country": "DE",
                    "include": {"markdown": True},
                },
            }
        )
        for n in range((rounds + 1) * each)
    ]


def token(rig: Rig, url: str) -> str:
    made = subprocess.run(
        [TALLYHOOK, "token", "create", "bench", "--scope", "submit", "--json"],
        env=rig.env(url, 0),
        cwd=rig.folder,
        capture_output=True,
        check=True,
    )
    return str(json.loads(made.stdout)["token"])


def _one(
    rig: Rig, server: Process, load: Generator, size: ApiTaskSize, first: int, count: int
) -> dict[str, float]:
    rig.settle_disk()
    before_s = server.cpu_s()
    figures = load.run(server.port, seconds=size.seconds, first=first, count=count)
    rig.valkey.flush()
    cpu_us = (server.cpu_s() - before_s) / figures["answered"] * 1e6
    return {"per_s": figures["per_s"], "cpu_us": cpu_us}


def _rows(store: str, seen: dict[str, list[dict[str, float]]], begun_mb: float, peak_mb: float) -> list[Row]:
    rates, cpu = ([[one[key] for one in seen[mode]] for mode in MODES] for key in ("per_s", "cpu_us"))
    bare = "a bare aiohttp handler that validates the same body, and stores nothing"
    return [
        row("api-task", store, *rates, unit="tasks/s", at_least=0.40, reference_is=bare),
        row("api-task processor time", store, *cpu, unit="µs of api", reference_is=bare),
        row(
            "api-task memory",
            store,
            [peak_mb],
            [begun_mb],
            unit="MB",
            at_most=1.2,
            reference_is="the same after the warming up",
        ),
    ]
