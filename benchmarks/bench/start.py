"""Start: seconds from the command to the first answer of `web`, compared with a bare aiohttp app."""

import http.client
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench.figures import Row, row
from benchmarks.bench.intake import migrated
from benchmarks.bench.rig import STOP, TALLYHOOK, Rig
from tests.servers.processes import end, free_port

BARE_APP = str(Path(__file__).with_name("bare_app.py"))
LOOK_EVERY_S = 0.003
TIMEOUT_S = 30.0


def measure(rig: Rig, rounds: int) -> list[Row]:
    """One row."""
    url = migrated(rig)
    ours, bare = [], []
    for _ in range(rounds):
        ours.append(_seconds(rig, url, [TALLYHOOK, "web"]))
        bare.append(_seconds(rig, url, [sys.executable, BARE_APP]))
    return [
        row(
            "start",
            rig.store,
            ours,
            bare,
            unit="s",
            at_most=4,
            reference_is="a bare aiohttp app: one route, no settings, no database",
        )
    ]


def _seconds(rig: Rig, url: str, command: Sequence[str]) -> float:
    port = free_port()
    with (rig.folder / "start.log").open("ab") as log:
        started = time.perf_counter()
        popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=rig.folder,
            env=rig.env(url, port),
            start_new_session=True,
        )
        try:
            while not _answers(port):
                assert popen.poll() is None, "it ended instead of answering"
                assert time.perf_counter() - started < TIMEOUT_S, "it does not answer"
                time.sleep(LOOK_EVERY_S)
            return time.perf_counter() - started
        finally:
            end(popen, STOP)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
