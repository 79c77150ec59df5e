"""Uploads: rows a second of `POST /v1/runs`, compared with `tallyhook submit` of the same file, and how much
memory `api` takes for it.
"""

import http.client
import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.bench.figures import Row, row
from benchmarks.bench.rig import TALLYHOOK, Process, Rig

WORDS = "of some length, as people ask it " * 6


@dataclass(frozen=True, slots=True)
class UploadSize:
    """Rows of the file, and of one that only warms up and tells what a start takes."""

    rows: int = 100_000
    small: int = 10_000


@dataclass
class _Seen:
    """One figure for each round."""

    upload: list[float] = field(default_factory=list)
    submit: list[float] = field(default_factory=list)


def measure(rig: Rig, rounds: int, size: UploadSize) -> list[Row]:
    """api-upload, and the memory of `api`."""
    seen = _Seen()
    small, large = _file(rig.folder, "small", size.small), _file(rig.folder, "large", size.rows)
    with rig.database() as url:
        _tallyhook(rig, url, "migrate")
        made = _tallyhook(rig, url, "token", "create", "bench", "--scope", "submit", "--json")
        token = json.loads(made)["token"]
        with rig.process("api", [TALLYHOOK, "api", "--port", "{port}"], url) as api:
            _post(api, token, small)
            begun_mb = api.memory_mb("VmHWM")
            for _ in range(rounds):
                # The start of the command is none of its load.
                start_s = _seconds(lambda: _tallyhook(rig, url, "submit", str(small)))
                took_s = _seconds(lambda: _tallyhook(rig, url, "submit", str(large)))
                seen.submit.append((size.rows - size.small) / (took_s - start_s))
                seen.upload.append(size.rows / _seconds(lambda: _post(api, token, large)))
            peak_mb = api.memory_mb("VmHWM")
    return [
        row(
            "api-upload",
            rig.store,
            seen.upload,
            seen.submit,
            unit="rows/s",
            at_least=0.8,
            reference_is="tallyhook submit of the same file, without its start",
        ),
        row(
            "api-upload memory",
            rig.store,
            [peak_mb],
            [begun_mb],
            unit="MB",
            at_most=1.5,
            reference_is=f"the same after {size.small} rows",
        ),
    ]


def _file(folder: Path, name: str, rows: int) -> Path:
    path = folder / f"{name}.csv"
    with path.open("w") as file:
        file.write("prompt,task_type,country\n")
        file.writelines(f'"question {n} {WORDS}",GEMINI,GB\n' for n in range(rows))
    return path


def _post(api: Process, token: str, path: Path) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", api.port)
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "text/csv",
        "Idempotency-Key": f"{path.stem}-{time.monotonic_ns()}",
    }
    with path.open("rb") as file:
        connection.request("POST", "/v1/runs", body=file, headers=headers, encode_chunked=True)
        with connection.getresponse() as response:
            body = response.read()
    connection.close()
    if response.status != http.client.CREATED:
        raise SystemExit(f"{response.status}: {body.decode()}")


def _tallyhook(rig: Rig, url: str, *arguments: str) -> str:
    done = subprocess.run(
        [TALLYHOOK, *arguments],
        env=rig.env(url, 0),
        cwd=rig.folder,
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout


def _seconds(work: Callable[[], object]) -> float:
    begun_s = time.monotonic()
    work()
    return time.monotonic() - begun_s
