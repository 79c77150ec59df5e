"""Operating system processes of ours: each with a log file, all of them ended with us, whatever ends us."""

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from app.local import supervisor

STOP_TIMEOUT_S = supervisor.GRACE_S + 5.0
"""The supervisor's own grace, and a little on top."""
LOG_TAIL_LINES = 20


PASSED_ON = frozenset(
    {
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "TMPDIR",
        "TZ",
        "LANG",
        "LANGUAGE",
        "VIRTUAL_ENV",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "LD_LIBRARY_PATH",
        "SYSTEMROOT",
    }
)
PASSED_ON_FAMILIES = ("LC_", "PYTHON", "COVERAGE_", "PYTEST_", "TALLYHOOK_TEST_")


def plain_environment() -> dict[str, str]:
    """What a program needs to run at all. Keys, passwords and whatever else is in our environment is
    not a child's to know: a crash report or /proc/PID/environ would show it."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in PASSED_ON or name.startswith(PASSED_ON_FAMILIES)
    }


def supervisor_command(lock_path: Path, command: Sequence[str]) -> list[str]:
    """`command`, run under a supervisor that ends it when nobody holds the lock any more."""
    # -I -S: neither the environment nor installed packages can slow it down or break it.
    return [sys.executable, "-I", "-S", supervisor.__file__, str(lock_path), *command]


def own_command(module: str, *arguments: str) -> list[str]:
    """A module of ours as a command, whatever the working directory and PYTHONPATH have under its name."""
    return [sys.executable, "-P", str(Path(__file__).parent / "launch.py"), module, *arguments]


def hold_lock(path: Path, kind: int) -> int:
    """An open file with a flock of `kind` on it; waits for it. Closing it, or our end, lets go."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, kind)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def free_port(host: str = "127.0.0.1") -> int:
    """A port that was free just now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


class Process:
    """A running command under its supervisor."""

    def __init__(self, name: str, popen: "subprocess.Popen[bytes]", log: Path) -> None:
        self.name = name
        self.log = log
        self._popen = popen

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._popen.poll()

    def log_tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """The end of what it printed."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""

    def ask_to_stop(self) -> None:
        """SIGTERM, without waiting."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the command at once, without waiting; its supervisor ends with it."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(signal.SIGALRM)

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Wait for its end; then it is killed, and its command with it."""
        try:
            self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


class Processes:
    """Starts commands in a directory of their own, and stops them all at the end of a `with`, last first."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.started: list[Process] = []
        self._lock_path = directory / "processes.lock"
        self._held: int | None = None

    def __enter__(self) -> Self:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._held = hold_lock(self._lock_path, fcntl.LOCK_SH)
        return self

    def spawn(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        output: int | None = None,
    ) -> Process:
        """Start a command: no standard input, a session of its own; output to `name`.log, or to a descriptor,
        which is closed here. Without `cwd` it runs in our directory, which has no .env file to be read."""
        log = self.directory / f"{name}.log"
        if output is None:
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        with os.fdopen(output, "ab") as taken:
            popen = subprocess.Popen(  # noqa: S603 - commands of our own
                supervisor_command(self._lock_path, command),
                stdin=subprocess.DEVNULL,
                stdout=taken,
                stderr=taken,
                cwd=cwd or self.directory,
                env=dict(env),
                start_new_session=True,
            )
        process = Process(name, popen, log)
        self.started.append(process)
        return process

    def dead(self) -> Process | None:
        """The first one that has ended without being asked to."""
        return next((process for process in self.started if not process.running), None)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        until = time.monotonic() + STOP_TIMEOUT_S
        for process in reversed(self.started):
            process.ask_to_stop()
        for process in reversed(self.started):
            process.wait(max(until - time.monotonic(), 0.1))
        if self._held is not None:
            os.close(self._held)
            self._held = None
