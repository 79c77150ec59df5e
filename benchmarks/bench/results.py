"""Results over HTTP: how fast one reader gets the results of a run of 10,000 answers of 18 KB, compared with
`tallyhook export` of the same run, and how much memory the API takes for it.
"""

import asyncio
import http.client
import json
import random
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.bench.figures import Row, row
from benchmarks.bench.rig import TALLYHOOK, Process, Rig
from benchmarks.export import fill, migrated

READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ResultsSize:
    """Tasks of the run that is read, and of one that only warms up and tells what a start takes."""

    tasks: int = 10_000
    small: int = 3_000


@dataclass
class _Seen:
    """One figure for each round."""

    stream: list[float] = field(default_factory=list)
    packed: list[float] = field(default_factory=list)
    export: list[float] = field(default_factory=list)


def measure(rig: Rig, rounds: int, size: ResultsSize) -> list[Row]:
    """results-stream, the same packed, and the memory of `api`."""
    seen = _Seen()
    with rig.database() as url:
        asyncio.run(migrated(url))
        small = asyncio.run(fill(url, size.small, random.Random(1)))
        large = asyncio.run(fill(url, size.tasks, random.Random(2), size.small))
        made = subprocess.run(
            [TALLYHOOK, "token", "create", "bench", "--scope", "read", "--json"],
            env=rig.env(url, 0),
            cwd=rig.folder,
            capture_output=True,
            check=True,
        )
        token = json.loads(made.stdout)["token"]
        with rig.process("api", [TALLYHOOK, "api", "--port", "{port}"], url) as api:
            _read(api, token, small, "identity")
            begun_mb = api.memory_mb("VmHWM")
            for _ in range(rounds):
                more = size.tasks - size.small
                start_s = _exported(rig, url, small)
                seen.export.append(more / (_exported(rig, url, large) - start_s))
                for coding, rates in (("identity", seen.stream), ("zstd", seen.packed)):
                    begun_s = time.monotonic()
                    _read(api, token, large, coding)
                    rates.append(size.tasks / (time.monotonic() - begun_s))
            peak_mb = api.memory_mb("VmHWM")
    export = {
        "unit": "results/s",
        "reference_is": "tallyhook export of the same run to a file, without its start",
    }
    memory_is = f"the same after {size.small} results; SQLite has a page cache of 8 MB for each connection"
    return [
        row("results-stream", rig.store, seen.stream, seen.export, at_least=0.8, **export),
        row("results-stream zstd", rig.store, seen.packed, seen.export, **export),
        row(
            "results-stream memory",
            rig.store,
            [peak_mb],
            [begun_mb],
            unit="MB",
            at_most=1.5,
            reference_is=memory_is,
        ),
    ]


def _read(api: Process, token: str, run_id: str, coding: str) -> None:
    """All results of a run, thrown away as they come."""
    connection = http.client.HTTPConnection("127.0.0.1", api.port)
    headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": coding}
    connection.request("GET", f"/v1/runs/{run_id}/results", headers=headers)
    with connection.getresponse() as response:
        if response.status != http.client.OK:
            raise SystemExit(f"{response.status}: {response.read().decode()}")
        while response.read(READ_BYTES):
            pass
    connection.close()


def _exported(rig: Rig, url: str, run_id: str) -> float:
    """Seconds that an export of a run takes, its start included."""
    path: Path = rig.folder / "results.jsonl"
    begun_s = time.monotonic()
    command = [TALLYHOOK, "export", run_id, "-o", str(path)]
    subprocess.run(command, env=rig.env(url, 0), cwd=rig.folder, capture_output=True, check=True)
    took_s = time.monotonic() - begun_s
    path.unlink()
    return took_s
