"""Every command of a page, run as it stands there beside a `tallyhook up`, but for places that only a reader
has.

It must be understood and end in order: with 0, or with 1 where what it asks for is not so here (a run that is
over cannot be paused). A wrong option (2), a bug (70) or a traceback is a fault of the page."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.config import EMULATOR_WEBHOOK_SECRET
from tests.doc_commands import ROOT, all_blocks
from tests.integration.web.receiving import signed
from tests.servers.processes import free_port

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(1_800)]
BLOCKS = [block for block in all_blocks() if not block.how]
WAIT_S = 90
WHERE = {
    "s3://bucket/results": "results",
    "gs://bucket/eu --account eu": "elsewhere",
    "/srv/": "",
    "https://example.com/results": "http://127.0.0.1:9/results",
    " --account eu --batch 200": " --batch 200",
    "--account eu": "--account default",
    "/run/tallyhook/heartbeat": "heartbeat",
    "RUN": "latest",
    "/backup/": "",
    "CLORO_WEBHOOK_SECRET=whsec_…": f"CLORO_WEBHOOK_SECRET={EMULATOR_WEBHOOK_SECRET}",
}
"""What a page names that only its reader has: another such place here."""
ENDLESS = re.compile(r"--follow(?!.*--once)")
"""Ended by Ctrl-C, as the page says."""
OF_OTHERS = {"jq": "jq", "sqlite3": "sqlite3"}
INSTALLS = "pip install"
"""tests/e2e/test_wheel.py does; here all is installed."""


class Place:
    """A directory with a `tallyhook up`, and what the pages take for granted: a file, a run called monday."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        bin_ = Path(sys.executable).parent
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("TALLYHOOK_", "CLORO_"))}
        self.env = kept | {
            "PATH": f"{bin_}:{os.environ['PATH']}",
            "PORT": str(free_port()),
            "TALLYHOOK_API_PORT": str(free_port()),
            "TALLYHOOK_RELAY_PRIVATE_NETWORKS": "127.0.0.1",
            "TALLYHOOK_NOTICE_URL": "http://127.0.0.1:9/",
            "TALLYHOOK_NOTICE_SECRET": "whsec_" + "QUFB" * 8,
            "COLUMNS": "80",
        }
        lines = (ROOT / "examples" / "prompts.csv").read_text().splitlines(keepends=True)
        for name, rows in (("prompts.csv", lines[:12]), ("more.csv", lines[:1] + lines[12:20])):
            (folder / name).write_text("".join(rows))
        (folder / "heartbeat").touch()
        shutil.copytree(ROOT / "examples", folder / "examples")
        self.up: subprocess.Popen[str] | None = None

    def start(self) -> None:
        log = (self.folder / "up.log").open("w")
        options = "--time-scale 400 --fail 0.1 --wrong-charge 0.2"
        self.up = subprocess.Popen(
            ["tallyhook", "up", "--json", "--emulator", options],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=log,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        log.close()
        assert self.up.stdout is not None
        ready = json.loads(self.up.stdout.readline())
        self.env["TOKEN"] = ready["api_token"]
        for command in (
            "submit prompts.csv --name monday --watch",
            "submit more.csv --name brands-1 --watch",
        ):
            done = self.run(f"tallyhook {command}")
            assert done.returncode == 0, done.stdout
        self.receive(f"{ready['webhook_url']}", b'{"task": {"status": "NONE"}}')

    def receive(self, url: str, body: bytes) -> None:
        """A delivery that nobody can settle."""
        request = urllib.request.Request(
            url, body, signed(body, int(time.time()), secret=EMULATOR_WEBHOOK_SECRET)
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 200

    def run(self, line: str) -> "subprocess.CompletedProcess[str]":
        """By a shell, until its end, or a while where it would go on for ever."""
        with subprocess.Popen(
            ["bash", "-o", "pipefail", "-c", line],
            cwd=self.folder, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, text=True, start_new_session=True,
        ) as process:  # fmt: skip
            if ENDLESS.search(line):
                time.sleep(8)
                os.killpg(process.pid, signal.SIGINT)
            output, _ = process.communicate(timeout=WAIT_S)
        return subprocess.CompletedProcess(line, process.returncode, output)

    def here(self, line: str) -> str:
        """The line with places of here."""
        for there, here in WHERE.items():
            line = line.replace(there, here)
        if "3f2a91c0" in line:
            waiting = json.loads(self.run("tallyhook inbox list --json").stdout)["deliveries"]
            line = line.replace("3f2a91c0", waiting[0]["id"])
        if "4ed14319" in line or "127.0.0.1:8081" in line:
            line = line.replace("127.0.0.1:8081", f"127.0.0.1:{self.env['TALLYHOOK_API_PORT']}")
            endpoints: list[dict[str, Any]] = json.loads(self.run("tallyhook relay list --json").stdout)[
                "endpoints"
            ]
            line = line.replace("4ed14319", endpoints[0]["id"] if endpoints else "4ed14319")
        return line

    def close(self) -> None:
        if self.up is not None:
            self.up.send_signal(signal.SIGINT)
            self.up.communicate(timeout=60)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("place"))
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}:{block.line}")
def test_a_block_of_commands(block: Any, place: Place) -> None:
    for line in block.lines:
        if line.startswith(INSTALLS) or line.split()[:2] == ["tallyhook", "up"]:
            continue
        missing = [name for name in OF_OTHERS if re.search(rf"\b{name} ", line) and not shutil.which(name)]
        if missing:
            line = line.partition("|")[0]
        if line.split()[0] in missing:
            continue
        done = place.run(place.here(line))
        allowed = (0, 1, 130) if ENDLESS.search(line) else (0, 1)
        assert done.returncode in allowed, f"{line}: {done.returncode}\n{done.stdout[-2000:]}"
        assert "Traceback" not in done.stdout, done.stdout
