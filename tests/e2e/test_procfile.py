"""The Procfile as it is, run by honcho: each process has a PORT of its own, and all end when one ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.stack import running_emulator
from tests.servers.processes import free_port

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
WAIT_S = 120.0
"""Much less than the 600 s after which a result without a delivery is polled for."""
SHORT, LONG = 80, 2_000


@contextmanager
def honcho(folder: Path, **env: str) -> Iterator["subprocess.Popen[bytes]"]:
    """The Procfile of this repository, run in a directory of its own; ended as by Ctrl-C."""
    (folder / "Procfile").write_bytes((ROOT / "Procfile").read_bytes())
    with (folder / "honcho.log").open("ab") as log:
        process = subprocess.Popen(
            [str(BIN / "honcho"), "start", "--port", str(free_port())],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(WAIT_S)


def document_of(folder: Path, env: dict[str, str], *arguments: str) -> dict[str, Any]:
    """What a command prints in the same directory, with the same settings and a PORT of nobody."""
    ended = subprocess.run(
        [str(BIN / "tallyhook"), *arguments, "--json"],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
    )
    assert ended.stdout, ended.stderr
    document: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return document


@pytest.mark.parametrize(
    ("database", "count"),
    [
        ("postgresql", SHORT),
        pytest.param("sqlite", LONG, marks=pytest.mark.slow),
        pytest.param("postgresql", LONG, marks=pytest.mark.slow),
    ],
)
def test_f36_the_procfile_runs_prompts_to_their_end(
    database: str, count: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """By deliveries, not by polls: the worker announces where `web` is. The database is empty at first."""
    options = ("--plan", "enterprise-5k")
    with running_emulator(tmp_path / "emulator.log", *options) as emulator:
        ours = ("TALLYHOOK_", "CLORO_", "DATABASE_", "REDIS_URL", "PUBLIC_URL", "PORT", "PS", "DYNO")
        env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        env |= {"CLORO_BASE_URL": emulator, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
        if database == "postgresql":
            env["DATABASE_URL"] = request.getfixturevalue("postgres").create_database()
        prompts = tmp_path / "prompts.csv"
        rows = [f"question {n},GEMINI,US" for n in range(count)]
        prompts.write_text("\n".join(["prompt,task_type,country", *rows, ""]))
        with honcho(tmp_path, **env) as process:
            log = tmp_path / "honcho.log"
            wait_for(log, process, "Waiting for the end of the others")
            wait_for(log, process, "worker_started")
            wait_for(log, process, "api_listening")
            status = document_of(tmp_path, env, "submit", "prompts.csv", "--watch")["status"]
            checks = {check["name"]: check for check in document_of(tmp_path, env, "doctor")["checks"]}
            assert process.poll() is None, log.read_text()
    assert status["finished"], status
    assert status["states"]["completed"] + status["states"]["failed"] == count, status
    assert (checks["webhook"]["state"], checks["worker"]["state"]) == ("ok", "ok"), checks
    assert "webhook_address_assumed" not in log.read_text()


def wait_for(log: Path, process: "subprocess.Popen[bytes]", text: str) -> None:
    until_s = time.monotonic() + WAIT_S
    while text not in log.read_text():
        assert process.poll() is None and time.monotonic() < until_s, log.read_text()
        time.sleep(0.05)
