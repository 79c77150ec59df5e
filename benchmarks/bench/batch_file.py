"""Files of the batch dialect: lines a second from the first byte of the upload until the batch has begun, and
how much memory `api` takes for it.
"""

import json
import time
from pathlib import Path

import openai

from benchmarks.bench.api_task import token
from benchmarks.bench.figures import Row, row
from benchmarks.bench.intake import migrated
from benchmarks.bench.rig import TALLYHOOK, Process, Rig
from benchmarks.bench.upload import WORDS, UploadSize

ENDPOINT = "/v1/monitor/gemini"
LOOK_EVERY_S = 0.05


def measure(rig: Rig, size: UploadSize) -> list[Row]:
    """batch-file, of one file, and the memory of `api`."""
    small, large = _file(rig.folder, "few", size.small), _file(rig.folder, "many", size.rows)
    with rig.database(migrated(rig)) as url:
        secret = token(rig, url)
        with rig.process("api", [TALLYHOOK, "api", "--port", "{port}"], url) as api:
            few_s = _begun_s(api, secret, small)
            begun_mb = api.memory_mb("VmHWM")
            many_s = _begun_s(api, secret, large)
            peak_mb = api.memory_mb("VmHWM")
    return [
        row(
            "batch-file",
            rig.store,
            [size.rows / many_s],
            [size.small / few_s],
            unit="lines/s",
            reference_is=f"the same with {size.small} lines",
        ),
        row(
            "batch-file memory",
            rig.store,
            [peak_mb],
            [begun_mb],
            unit="MB",
            at_most=1.2,
            reference_is=f"the same after {size.small} lines",
        ),
    ]


def _file(folder: Path, name: str, lines: int) -> Path:
    path = folder / f"{name}.jsonl"
    with path.open("w") as file:
        for n in range(lines):
            body = {"prompt": f"question {n} {WORDS}", "country": "GB"}
            line = {"custom_id": f"id-{n}", "method": "POST", "url": ENDPOINT, "body": body}
            file.write(json.dumps(line) + "\n")
    return path


def _begun_s(api: Process, secret: str, path: Path) -> float:
    """Seconds until a batch of a file may be sent, its upload included."""
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{api.port}/v1", api_key=secret)
    begun_s = time.monotonic()
    with path.open("rb") as file:
        uploaded = client.files.create(file=file, purpose="batch")
    batch = client.batches.create(input_file_id=uploaded.id, endpoint=ENDPOINT, completion_window="24h")  # type: ignore[arg-type]
    while (status := client.batches.retrieve(batch.id).status) == "validating":
        time.sleep(LOOK_EVERY_S)
    if status != "in_progress":
        raise SystemExit(f"the batch of {path.name} is {status}")
    client.close()
    return time.monotonic() - begun_s
