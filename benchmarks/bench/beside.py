"""Intake of `web` while the API is busy: with `api` as a process of its own, and in one process with `web`.

A machine of two cores cannot give `web`, `api`, the database and two load processes a core each. So the bar
is on the processor time that `web` takes for a delivery, which says what a core of its own would accept; the
rates on shared cores are for information.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from benchmarks.bench.api_task import PATH, bodies, token
from benchmarks.bench.figures import Row, row
from benchmarks.bench.generator import Generator, generator
from benchmarks.bench.intake import REQUESTS_PER_S, SEED, migrated
from benchmarks.bench.rig import TALLYHOOK, Process, Rig

API_CONNECTIONS = 8
API_REQUESTS_PER_S = 2_000


@dataclass(frozen=True, slots=True)
class BesideSize:
    """How long one measurement is."""

    seconds: float = 2.0
    warm_up_s: float = 0.5


@dataclass(slots=True)
class _Loads:
    deliveries: Generator
    calls: Generator
    each: int
    """Calls prepared for one measurement."""
    used: int = 0

    def busy(self, port: int, seconds: float) -> None:
        """Keep an API busy for so long, with tasks that were not sent before."""
        first, self.used = self.used, self.used + self.each
        self.calls.run(port, seconds=seconds, first=first, count=self.each, connections=API_CONNECTIONS)


def measure(rig: Rig, rounds: int, size: BesideSize) -> list[Row]:
    """Rates and processor time of `web`, alone and beside a busy API."""
    names = ("alone", "beside", "within_alone", "within")
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with ExitStack() as stack:
        template = migrated(rig)
        url = stack.enter_context(rig.database(template))
        each = round(size.seconds * API_REQUESTS_PER_S)
        loads = _Loads(stack.enter_context(generator()), stack.enter_context(generator()), each)
        loads.deliveries.prepare(round(size.seconds * REQUESTS_PER_S), seed=SEED)
        secret = {"Authorization": f"Bearer {token(rig, url)}"}
        loads.calls.prepare_posts(PATH, bodies(2 * (rounds + 1), each), secret)
        fast = {"TALLYHOOK_API_RATE_PER_S": "10000"}
        web = stack.enter_context(rig.process("web", [TALLYHOOK, "web"], url))
        api = stack.enter_context(rig.process("api", [TALLYHOOK, "api", "--port", "{port}"], url, **fast))
        both = stack.enter_context(rig.process("both", [TALLYHOOK, "web", "--with-api"], url, **fast))
        for receiver, busy in ((web, api), (both, both)):
            loads.deliveries.run(receiver.port, seconds=size.warm_up_s)
            loads.busy(busy.port, size.warm_up_s)
        for _ in range(rounds):
            seen["alone"].append(_one(rig, web, None, loads, size))
            seen["beside"].append(_one(rig, web, api, loads, size))
            seen["within_alone"].append(_one(rig, both, None, loads, size))
            seen["within"].append(_one(rig, both, both, loads, size))
    return _rows(rig.store, seen)


def _one(rig: Rig, web: Process, busy: Process | None, loads: _Loads, size: BesideSize) -> dict[str, float]:
    rig.settle_disk()
    begun_s = web.cpu_s()
    with ThreadPoolExecutor(1) as pool:
        calls = None if busy is None else pool.submit(loads.busy, busy.port, size.seconds)
        figures: dict[str, Any] = loads.deliveries.run(web.port, seconds=size.seconds)
        used_s = web.cpu_s() - begun_s
        if calls is not None:
            calls.result()
    rig.valkey.flush()
    return {"per_s": figures["per_s"], "cpu_us": used_s / figures["answered"] * 1e6}


def _rows(store: str, seen: dict[str, list[dict[str, float]]]) -> list[Row]:
    def of(name: str, key: str) -> list[float]:
        return [one[key] for one in seen[name]]

    alone, busy = "the same `web`, with nobody at the API", "the same process, with nobody at its API"
    return [
        row(
            "intake beside api",
            store,
            of("beside", "per_s"),
            of("alone", "per_s"),
            unit="accepts/s",
            reference_is=f"{alone}; two cores for all",
        ),
        row(
            "web beside api",
            store,
            of("beside", "cpu_us"),
            of("alone", "cpu_us"),
            unit="µs of web",
            at_most=1.11,
            reference_is=alone,
        ),
        row(
            "intake with api",
            store,
            of("within", "per_s"),
            of("within_alone", "per_s"),
            unit="accepts/s",
            reference_is=f"{busy}; one core for both",
        ),
    ]
