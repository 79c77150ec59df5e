"""Certificate and dispute of a long run: `python -m benchmarks.evidence --tasks 100000 --store sqlite`.

The books are those of benchmarks.verify: bodies of 18 KB, no two alike, signed, received, settled; of every
fifty tasks one is overcharged, one contradicted. The commands run as processes, on a tenth of the tasks and
on all, so that it shows whether memory grows; the archive is then verified by the script that knows none of
our code. Prints one JSON object and keeps it in benchmarks/results/evidence.json, by store.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from app.config import EMULATOR_WEBHOOK_SECRET
from benchmarks.processor import ended_children_cpu_s
from benchmarks.verify import make
from tests.servers.postgres import PostgresServer

RESULTS = Path(__file__).parent / "results" / "evidence.json"
SCRIPT = Path(__file__).parents[1] / "examples" / "verify_dispute.py"
SAMPLE_S = 0.02


def run(command: list[str], environment: dict[str, str], folder: Path, printed: Path) -> dict[str, Any]:
    """A process: its exit code, its seconds, those of a processor, and the most memory it had."""
    began, used = time.perf_counter(), ended_children_cpu_s()
    peak_kib = 0
    with printed.open("wb") as output:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=output)
        while process.poll() is None:
            peak_kib = max(peak_kib, _peak_kib(process.pid))
            time.sleep(SAMPLE_S)
    return {
        "exit": process.returncode,
        "seconds": round(time.perf_counter() - began, 2),
        "cpu_s": round(ended_children_cpu_s() - used, 2),
        "peak_mb": round(peak_kib / 1024, 1),
    }


def _peak_kib(pid: int) -> int:
    """The process's own high-water mark; 0 when it has just ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)


def measure(url: str, folder: Path, name: str) -> dict[str, Any]:
    """Every command on one run."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("CLORO_", "TALLYHOOK_"))}
    environment |= {"DATABASE_URL": url, "HOOK_SECRET": EMULATOR_WEBHOOK_SECRET}
    tallyhook = str(Path(sys.executable).with_name("tallyhook"))
    printed = folder / "printed"
    measured = {"certificate": run([tallyhook, "certificate", name, "--json"], environment, folder, printed)}
    certified = json.loads(printed.read_text())
    measured["certificate"] |= {"complete": certified["complete"], "prompts": certified["input"]["prompts"]}
    for suffix in (".tar.gz", ".zip"):
        archive = folder / f"{name}{suffix}"
        command = [tallyhook, "dispute", name, "-o", str(archive), "--json"]
        measured[suffix] = run(command, environment, folder, printed)
        document = json.loads(printed.read_text())
        measured[suffix] |= {
            "discrepancies": document["discrepancies"],
            "deliveries": document["deliveries"],
            "mb": round(archive.stat().st_size / 1e6, 1),
        }
        check = [sys.executable, "-I", str(SCRIPT), str(archive), "--secret-env", "HOOK_SECRET"]
        measured[f"verify {suffix}"] = run(check, environment, folder, printed)
    return measured


def main() -> int:
    """The process's entry; 1 when a certificate is not complete or an archive does not verify."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    options = parser.parse_args()
    counts = {"tenth": options.tasks // 10, "all": options.tasks}
    server = PostgresServer() if options.store == "postgres" else None
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        try:
            url = f"sqlite:///{folder}/books.db"
            if server is not None:
                server.start()
                url = server.create_database()
            asyncio.run(make(url, counts))
            found = {name: measure(url, folder, name) for name in counts}
        finally:
            if server is not None:
                server.stop()
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    kept[options.store] = {"tasks": options.tasks, **found}
    print(json.dumps(kept[options.store]))
    if options.tasks >= 100_000:
        RESULTS.write_text(json.dumps(kept, indent=2) + "\n")
    return max(step["exit"] for steps in found.values() for step in steps.values())


if __name__ == "__main__":
    sys.exit(main())
