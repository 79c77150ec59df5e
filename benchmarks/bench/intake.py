"""Intake: durable accepts a second of one `web` process, and of three receivers that differ in one thing."""

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass

from app.store import Database
from app.store.migrate import migrate
from benchmarks.bench.figures import Row, row
from benchmarks.bench.generator import Generator, generator
from benchmarks.bench.rig import TALLYHOOK, Process, Rig, module

SEED = 11
MODES = ("ours", "verify", "insert", "queue")
REQUESTS_PER_S = 6_000
"""Prepared for each second of a measurement; a receiver that takes more is measured for a shorter time."""


@dataclass(frozen=True, slots=True)
class IntakeSize:
    """How long one measurement is."""

    seconds: float = 1.0
    warm_up_s: float = 0.5


def migrated(rig: Rig) -> str:
    """URL of an empty database with the tables, to be copied."""
    url = rig.create_database()

    async def work() -> None:
        db = Database(url)
        await migrate(db)
        await db.close()

    asyncio.run(work())
    return url


def measure(rig: Rig, rounds: int, size: IntakeSize) -> list[Row]:
    """The three intake rows, processor time, and the memory of `web`."""
    seen: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
    template = migrated(rig)
    with ExitStack() as stack:
        load = stack.enter_context(generator())
        load.prepare(round(size.seconds * REQUESTS_PER_S), seed=SEED)
        servers = {mode: _start(stack, rig, mode, template) for mode in MODES}
        idle_mb = servers["ours"].memory_mb("VmRSS")
        for server in servers.values():
            load.run(server.port, seconds=size.warm_up_s)
        for _ in range(rounds):
            for mode, server in servers.items():
                seen[mode].append(_one(rig, server, load, size))
    return _rows(rig.store, seen, idle_mb)


def _start(stack: ExitStack, rig: Rig, mode: str, template: str) -> Process:
    """One receiver on a database of its own; all are up all the time, idle while another is measured."""
    command = (
        [TALLYHOOK, "web"]
        if mode == "ours"
        else module("benchmarks.bench.receivers", mode, "--port", "{port}")
    )
    return stack.enter_context(rig.process(mode, command, stack.enter_context(rig.database(template))))


def _one(rig: Rig, server: Process, load: Generator, size: IntakeSize) -> dict[str, float]:
    rig.settle_disk()
    before_s = server.cpu_s()
    figures = load.run(server.port, seconds=size.seconds)
    rig.valkey.flush()
    return {
        "per_s": figures["per_s"],
        "p99_ms": figures["p99_ms"],
        "peak_mb": server.memory_mb("VmHWM"),
        "cpu_us": (server.cpu_s() - before_s) / figures["answered"] * 1e6,
    }


def _rows(store: str, seen: dict[str, list[dict[str, float]]], idle_mb: float) -> list[Row]:
    rates = {mode: [one["per_s"] for one in each] for mode, each in seen.items()}
    ours = rates["ours"]
    return [
        row(
            "intake",
            store,
            ours,
            rates["verify"],
            unit="accepts/s",
            at_least=0.55 if store == "sqlite" else 0.68,
            reference_is="the same handler that only reads and verifies",
        ),
        row(
            "intake vs naive",
            store,
            ours,
            rates["insert"],
            unit="accepts/s",
            at_least=2.2,
            reference_is="one INSERT and commit for each request",
        ),
        row(
            "intake vs queue",
            store,
            ours,
            rates["queue"],
            unit="accepts/s",
            at_least=2,
            reference_is="one arq enqueue with the body for each request",
        ),
        row(
            "intake processor time",
            store,
            *([one["cpu_us"] for one in seen[m]] for m in ("ours", "verify")),
            unit="µs of web",
            reference_is="the same handler that only reads and verifies",
        ),
        row(
            "memory web",
            store,
            [one["peak_mb"] for one in seen["ours"]],
            [idle_mb] * len(ours),
            unit="MB",
            at_most=1.6,
            reference_is="the same process, idle",
        ),
    ]
