"""The choices behind the hot paths, measured one against the other: `python -m benchmarks.choices`.

How bodies are packed, how they are read, how rows go into PostgreSQL, which event loop runs. Candidates take
turns in each round; a line is the median of the rounds, best first. Prints tables for docs/performance.md.
"""

import argparse
import asyncio
import functools
import gc
import json
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import msgspec
import orjson
import pydantic

from app.domain.task import new_id
from app.emulator.answers import Answers
from app.emulator.data.editions import EDITIONS
from app.emulator.data.engine_table import ENGINES
from app.provider.wire import read_report
from app.store.write.inbox import pack, zstd
from benchmarks.bench.bodies import write_bodies
from benchmarks.bench.generator import Generator, generator
from benchmarks.bench.intake import migrated
from benchmarks.bench.rig import TALLYHOOK, Process, Rig, rig

BODIES = 400
BATCH = 200
DICTIONARY_BYTES = 16 * 1024
SEED = 14
Candidates = Mapping[str, Callable[[], float]]
"""Name -> measures itself once; its figure."""
WITHOUT_UVLOOP = (
    "import sys; sys.modules['uvloop'] = None; sys.argv = ['tallyhook', 'web']; "
    "from app.cli.main import main; main()"
)


class _Task(pydantic.BaseModel):
    id: str
    status: str
    idempotencyKey: str | None = None  # noqa: N815 - the provider's names


class _Credits(pydantic.BaseModel):
    creditsToCharge: int | None = None  # noqa: N815
    creditsCharged: int | None = None  # noqa: N815


class _Webhook(pydantic.BaseModel):
    task: _Task
    credits: _Credits
    response: dict[str, Any]


def alternate(candidates: Candidates, rounds: int) -> dict[str, list[float]]:
    """Each candidate once a round, so that what else the machine does meets them alike."""
    seen: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, measure in candidates.items():
            gc.collect()
            seen[name].append(measure())
    return seen


def show(
    title: str, unit: str, seen: Mapping[str, Sequence[float]], *, most: bool, notes: Mapping[str, str]
) -> None:
    """One table, the winner first."""
    print(f"\n{title}\n\n| choice | {unit} | lowest … highest | |\n|---|---|---|---|")
    for name, values in sorted(seen.items(), key=lambda one: statistics.median(one[1]), reverse=most):
        middle = statistics.median(values)
        print(f"| {name} | {middle:,.4g} | {min(values):,.4g} … {max(values):,.4g} | {notes.get(name, '')} |")


def each_us(work: Callable[[bytes], object], bodies: Sequence[bytes]) -> Callable[[], float]:
    """Measures microseconds of processor time a body: they do not depend on who else is at work."""

    def measure() -> float:
        started = time.thread_time()
        for body in bodies:
            work(body)
        return (time.thread_time() - started) / len(bodies) * 1e6

    return measure


def reading(bodies: Sequence[bytes], rounds: int) -> None:
    """From a body's bytes to what settlement needs of it."""
    envelope = msgspec.json.Decoder(dict[str, msgspec.Raw])
    whole = msgspec.json.Decoder()
    candidates = {
        "read_report (msgspec, the answer stays raw)": each_us(read_report, bodies),
        "msgspec, outer object only": each_us(envelope.decode, bodies),
        "msgspec, all of it": each_us(whole.decode, bodies),
        "orjson": each_us(orjson.loads, bodies),
        "json": each_us(json.loads, bodies),
        "pydantic model": each_us(_Webhook.model_validate_json, bodies),
    }
    show("Reading a body", "µs a body", alternate(candidates, rounds), most=False, notes={})


@functools.cache
def emulator_dictionary() -> "zstd.ZstdDict":
    """Trained on answers of the emulator: the bodies packed here share its JSON's shape, not its words."""
    answers, edition = Answers(SEED), EDITIONS["2026"]
    samples = [
        answers.compose(engine, edition, {ENGINES[engine].subject: "Best shoes?"}, number, "link")
        for engine in ("CHATGPT", "GEMINI", "COPILOT", "GROK")
        for number in range(1, 61)
    ]
    return zstd.train_dict(samples, DICTIONARY_BYTES)


def packers() -> dict[str, Callable[[bytes], bytes]]:
    """Ways to make a body smaller before it is stored."""

    def kept(level: int, trained: "zstd.ZstdDict | None" = None) -> Callable[[bytes], bytes]:
        compressor = zstd.ZstdCompressor(level, zstd_dict=trained)
        return lambda body: compressor.compress(body, zstd.ZstdCompressor.FLUSH_FRAME)

    return {
        "zstd 1, compressor kept": lambda body: pack(body)[1],
        "zstd 1, compressor made anew": lambda body: zstd.compress(body, 1),
        "zstd 3": kept(3),
        "zstd -1": kept(-1),
        "zstd -5": kept(-5),
        "zstd 1, a dictionary of 16 KB": kept(1, emulator_dictionary()),
        "zlib 1": lambda body: zlib.compress(body, 1),
        "zlib 6": lambda body: zlib.compress(body, 6),
        "none": bytes,
    }


def packing(bodies: Sequence[bytes], rounds: int) -> None:
    """Microseconds and bytes of each packer."""
    notes = {
        name: f"{statistics.mean(len(work(body)) for body in bodies) / len(bodies[0]):.0%} of the bytes"
        for name, work in packers().items()
    }
    seen = alternate({name: each_us(work, bodies) for name, work in packers().items()}, rounds)
    show("Packing a body", "µs a body", seen, most=False, notes=notes)


COLUMNS = ("id", "source", "received_at_ms", "encoding", "body", "state", "tries", "due_at_ms")
TYPES = ("uuid", "text", "bigint", "text", "bytea", "text", "integer", "bigint")
Insert = Callable[[Any, list[tuple[Any, ...]]], Awaitable[object]]


def inserts() -> dict[str, Insert]:
    """Ways to hand one batch to PostgreSQL."""
    into = f"INSERT INTO deliveries ({', '.join(COLUMNS)})"
    arrays = ", ".join(f"${n}::{kind}[]" for n, kind in enumerate(TYPES, 1))
    marks = ", ".join(f"${n}" for n in range(1, len(COLUMNS) + 1))
    width = len(COLUMNS)
    many = ", ".join(
        "(" + ", ".join(f"${row * width + n}" for n in range(1, width + 1)) + ")" for row in range(BATCH)
    )
    return {
        "COPY": lambda c, rows: c.copy_records_to_table("deliveries", records=rows, columns=COLUMNS),
        "INSERT … SELECT unnest(arrays)": lambda c, rows: c.execute(
            f"{into} SELECT * FROM unnest({arrays})", *map(list, zip(*rows, strict=True))
        ),
        "INSERT … VALUES, many rows": lambda c, rows: c.execute(
            f"{into} VALUES {many}", *(value for row in rows for value in row)
        ),
        "executemany": lambda c, rows: c.executemany(f"{into} VALUES ({marks})", rows),
        "INSERT, one by one, one commit": lambda c, rows: _one_by_one(c, f"{into} VALUES ({marks})", rows),
    }


async def _one_by_one(connection: Any, statement: str, rows: list[tuple[Any, ...]]) -> None:
    async with connection.transaction():
        for row in rows:
            await connection.execute(statement, *row)


def writing(one: Rig, bodies: Sequence[bytes], rounds: int) -> None:
    """Rows a second into PostgreSQL, each batch with its commit; by way of insert, then by packer."""
    url = migrated(one)

    def measured(insert: Insert, packer: Callable[[bytes], bytes]) -> Callable[[], float]:
        return lambda: asyncio.run(_rows_per_s(url, insert, packer, bodies))

    packed = packers()["zstd 1, compressor kept"]
    ways = {name: measured(insert, packed) for name, insert in inserts().items()}
    title = f"Rows into PostgreSQL, {BATCH} in one commit"
    show(title, "rows/s", alternate(ways, rounds), most=True, notes={})
    copy = inserts()["INSERT … SELECT unnest(arrays)"]
    by_packer = {name: measured(copy, work) for name, work in packers().items()}
    title = "The same, with the packing in the time"
    show(title, "rows/s", alternate(by_packer, rounds), most=True, notes={})


async def _rows_per_s(
    url: str, insert: Insert, packer: Callable[[bytes], bytes], bodies: Sequence[bytes]
) -> float:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("TRUNCATE deliveries")
        seconds, count = 0.0, 0
        for first in range(0, len(bodies) - BATCH + 1, BATCH):
            started = time.perf_counter()
            rows = [
                (new_id(time.time_ns() // 1_000_000), "delivery", 0, "zstd", packer(body), "new", 0, 0)
                for body in bodies[first : first + BATCH]
            ]
            await insert(connection, rows)
            seconds += time.perf_counter() - started
            count += len(rows)
        return count / seconds
    finally:
        await connection.close()


def looping(one: Rig, rounds: int) -> None:
    """Processor time of `web` for each accept, with uvloop and without."""
    url = migrated(one)
    commands = {"uvloop": [TALLYHOOK, "web"], "asyncio": [sys.executable, "-c", WITHOUT_UVLOOP]}
    with ExitStack() as stack:
        load = stack.enter_context(generator())
        load.prepare(3_000, seed=SEED)
        candidates = {}
        for name, command in commands.items():
            web = stack.enter_context(one.process(name, command, stack.enter_context(one.database(url))))
            candidates[name] = lambda web=web: cpu_us(web, load)
        seen = alternate(candidates, rounds)
    show("Event loop of `web`, PostgreSQL", "µs of processor time an accept", seen, most=False, notes={})


def cpu_us(web: Process, load: Generator) -> float:
    """Processor time of a receiver for each delivery of one second of load."""
    before_s = web.cpu_s()
    answered = load.run(web.port, seconds=1.0)["answered"]
    return float((web.cpu_s() - before_s) / answered * 1e6)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    bodies = [body for _, body in write_bodies(SEED, [f"{new_id(0)}.1" for _ in range(BODIES)])]
    reading(bodies, options.rounds)
    packing(bodies, options.rounds)
    with (
        tempfile.TemporaryDirectory(prefix="tallyhook-choices-") as folder,
        rig("postgresql", Path(folder)) as one,
    ):
        writing(one, bodies, options.rounds)
        looping(one, options.rounds)


if __name__ == "__main__":
    main()
