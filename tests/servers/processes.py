"""Starting and ending a server process of our own, and waiting until it answers."""

import contextlib
import fcntl
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

POLL_S = 0.02


class Process(Protocol):
    """What `subprocess.Popen` has for ending a process."""

    pid: int

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int, /) -> None: ...


class ServerError(Exception):
    """A server did not start, answer or end; the text carries the tail of its log."""


class _Ports:
    """Ports of this process: none that a kernel gives to a connection, or to whoever asks for any."""

    among = range(10_000, 32_768)

    def __init__(self) -> None:
        self._claims = -1
        self._taken: set[int] = set()

    def take(self) -> int:
        while True:
            port = _RANDOM.choice(self.among)
            if port not in self._taken and self._claim(port) and _is_free(port):
                return port

    def _claim(self, port: int) -> bool:
        """By a lock on its byte of a file that all have open; it ends with the process."""
        if self._claims < 0:
            path = Path(tempfile.gettempdir()) / f"tallyhook-test-ports-{os.getuid()}"
            self._claims = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        with contextlib.suppress(OSError):
            fcntl.lockf(self._claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            self._taken.add(port)
            return True
        return False


_PORTS = _Ports()
_RANDOM = random.SystemRandom()
"""Not the one that tests give a seed."""


def free_port() -> int:
    """A loopback port on which nobody listens, and nobody else among processes of tests will while this one
    lives."""
    return _PORTS.take()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def package_dir(name: str) -> Path:
    """Where an installed package lies, without importing it: an import could start things."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ServerError(f"{name} is not installed; install the development dependencies")
    return Path(next(iter(spec.submodule_search_locations)))


def wait_for(ready: Callable[[], bool], process: Process, log: Path, timeout_s: float) -> None:
    """Wait until `ready` is true; raises ServerError when the process ends or the time is over."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        ended = process.poll()
        if ended is not None:
            raise ServerError(f"{log.stem} ended with {ended}: {log_tail(log)}")
        if time.monotonic() > deadline:
            raise ServerError(f"{log.stem} did not answer within {timeout_s:g} s: {log_tail(log)}")
        time.sleep(POLL_S)


def answers(url: str) -> bool:
    """Whether something answers there with 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def end(process: Process, signals: tuple[tuple[int, float], ...]) -> None:
    """Send each signal in turn until the process has ended; each comes with the seconds to wait for it."""
    for number, wait_s in signals:
        process.send_signal(number)
        try:
            # Nothing goes on after SIGKILL; a busy machine may be slow to clear up.
            process.wait(timeout=60.0 if number == signal.SIGKILL else wait_s)
        except subprocess.TimeoutExpired:
            continue
        return
    raise ServerError(f"process {process.pid} does not end")


def log_tail(log: Path, bytes_max: int = 2_000) -> str:
    """The last lines of a log file, for an error message."""
    return log.read_bytes()[-bytes_max:].decode(errors="replace") if log.exists() else "no log"
