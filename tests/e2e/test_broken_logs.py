"""A receiver whose log takes nothing any more goes on receiving (real processes)."""

import os
import resource
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.config import EMULATOR_WEBHOOK_SECRET
from app.provider.signature import sign
from tests.e2e.stack import KILL, TALLYHOOK
from tests.servers.processes import end, free_port, wait_for

LIMIT_BYTES = 4_096
"""Of the file that stderr is: the first lines fit in."""


def closed_pipe(folder: Path) -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def full_pipe(folder: Path) -> int:
    """Nobody reads it, and it has room for nothing; it is inherited blocking."""
    _, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 65_536)
    except BlockingIOError:
        os.set_blocking(writer, True)
    return writer


def full_device(folder: Path) -> int:
    return os.open("/dev/full", os.O_WRONLY)


def full_file(folder: Path) -> int:
    return os.open(folder / "limited.log", os.O_WRONLY | os.O_CREAT)


def limited() -> None:
    """In the child: what bash's `ulimit -f` does."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, LIMIT_BYTES))


KINDS: dict[str, Callable[[Path], int]] = {
    one.__name__: one for one in (closed_pipe, full_pipe, full_device, full_file)
}


@pytest.fixture
def receivers(
    tmp_path: Path, postgres_url: str, valkey_url: str
) -> Iterator[dict[str, tuple[str, "subprocess.Popen[bytes]"]]]:
    """One `web` for each kind of log, by kind: its URL and its process. A database server, because a file of
    SQLite's would meet the limit on files too."""
    with ExitStack() as ends:
        started = {}
        for kind, opened in KINDS.items():
            port = free_port()
            env = os.environ | {
                "PORT": str(port),
                "DATABASE_URL": postgres_url,
                "REDIS_URL": valkey_url,
                "TALLYHOOK_LOG_LEVEL": "debug",
                "TALLYHOOK_LOG_FORMAT": "json",
            }
            descriptor = opened(tmp_path)
            process = subprocess.Popen(
                [TALLYHOOK, "web"],
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                env=env,
                cwd=tmp_path,
                preexec_fn=limited if kind == "full_file" else None,
            )
            os.close(descriptor)
            ends.callback(lambda one=process: one.poll() is None and end(one, KILL))
            started[kind] = (f"http://127.0.0.1:{port}", process)
        for url, process in started.values():
            ready = lambda url=url: _status(f"{url}/healthz") == 200  # noqa: E731
            wait_for(ready, process, tmp_path / "limited.log", 60)
        yield started


def _status(url: str, body: bytes | None = None) -> int:
    headers = {}
    if body is not None:
        at = str(int(time.time()))
        headers = {
            "X-Cloro-Timestamp": at,
            "X-Cloro-Signature": sign(EMULATOR_WEBHOOK_SECRET, at, body),
            "X-Cloro-Webhook-Id": "b27a21e1-7c39-4aa2-a347-23e828c426f9-1",
        }
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_f14_a_receiver_outlives_its_log(
    receivers: dict[str, tuple[str, "subprocess.Popen[bytes]"]], tmp_path: Path
) -> None:
    statuses: dict[str, list[int]] = {}
    for kind, (url, _) in receivers.items():
        posts = [f'{{"task": {{"id": "{kind}-{n}"}}}}'.encode() for n in range(30)]
        statuses[kind] = [_status(f"{url}/webhooks/cloro", body) for body in posts]
        statuses[kind].append(_status(f"{url}/healthz"))
    assert statuses == {kind: [200] * 31 for kind in KINDS}
    assert (tmp_path / "limited.log").stat().st_size == LIMIT_BYTES, "its log did reach the limit"
    for _, process in receivers.values():
        process.send_signal(signal.SIGTERM)
    assert {kind: process.wait(60) for kind, (_, process) in receivers.items()} == dict.fromkeys(KINDS, 0)
