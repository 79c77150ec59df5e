"""Calls of an agent: how many list_runs a second one `api` answers at /mcp, compared with the same list in
the native dialect, and the memory it takes for them.
"""

import json
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.bench.api_task import token
from benchmarks.bench.figures import Row, row
from benchmarks.bench.generator import Generator, generator
from benchmarks.bench.intake import migrated
from benchmarks.bench.rig import TALLYHOOK, Process, Rig

CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "list_runs", "arguments": {}}}
MADE = {"/mcp": ("POST", json.dumps(CALL)), "/v1/runs": ("GET", " ")}
"""Method and body, by path."""
REQUESTS_PER_S = 2_000
CONNECTIONS = 8
ACCEPT = {"Accept": "application/json, text/event-stream"}


@dataclass(frozen=True, slots=True)
class AgentsSize:
    """How long one measurement is."""

    seconds: float = 2.0
    warm_up_s: float = 1.0


def measure(rig: Rig, rounds: int, size: AgentsSize) -> list[Row]:
    """mcp, its processor time, and the memory of `api`."""
    seen: dict[str, list[dict[str, float]]] = {path: [] for path in MADE}
    with ExitStack() as stack:
        url = stack.enter_context(rig.database(migrated(rig)))
        headers = ACCEPT | {"Authorization": f"Bearer {token(rig, url)}"}
        fast = {"TALLYHOOK_API_RATE_PER_S": "10000"}
        api = stack.enter_context(rig.process("api", [TALLYHOOK, "api", "--port", "{port}"], url, **fast))
        loads = {path: stack.enter_context(generator()) for path in seen}
        for path, load in loads.items():
            method, body = MADE[path]
            load.prepare_posts(path, [body] * round(size.seconds * REQUESTS_PER_S), headers, method)
            load.run(api.port, seconds=size.warm_up_s, connections=CONNECTIONS)
        begun_mb = api.memory_mb("VmHWM")
        for _ in range(rounds):
            for path, load in loads.items():
                seen[path].append(_one(rig, api, load, size))
        peak_mb = api.memory_mb("VmHWM")
    return _rows(rig.store, *seen.values(), begun_mb, peak_mb)


def _one(rig: Rig, api: Process, load: Generator, size: AgentsSize) -> dict[str, float]:
    rig.settle_disk()
    before_s = api.cpu_s()
    figures = load.run(api.port, seconds=size.seconds, connections=CONNECTIONS)
    return {"per_s": figures["per_s"], "cpu_us": (api.cpu_s() - before_s) / figures["answered"] * 1e6}


def _rows(
    store: str, ours: list[dict[str, float]], native: list[dict[str, float]], begun_mb: float, peak_mb: float
) -> list[Row]:
    rates, cpu = ([[one[key] for one in seen] for seen in (ours, native)] for key in ("per_s", "cpu_us"))
    reference_is = "GET /v1/runs of the same"
    return [
        row("mcp", store, *rates, unit="calls/s", reference_is=reference_is),
        row("mcp processor time", store, *cpu, unit="µs of api", reference_is=reference_is),
        row(
            "mcp memory",
            store,
            [peak_mb],
            [begun_mb],
            unit="MB",
            at_most=1.2,
            reference_is="the same after the warming up",
        ),
    ]
