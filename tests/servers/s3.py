"""A local S3 by moto, a process on loopback that tests may stop and pause. Its buckets are in its memory."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.servers.processes import ServerError, end, free_port, wait_for

START_TIMEOUT_S = 60.0


class S3Server:
    """One server on one port for all its life."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "moto.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._buckets = 0
        self.port = free_port()

    @property
    def env(self) -> dict[str, str]:
        """What obstore, DuckDB and others read to reach it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "test-key",
            "AWS_SECRET_ACCESS_KEY": "test-secret",
            "AWS_REGION": "us-east-1",
        }

    def start(self) -> None:
        """Returns once it listens."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
                start_new_session=True,
            )
        wait_for(self._listens, self._process, self._log, START_TIMEOUT_S)

    def stop(self) -> None:
        """It forgets everything."""
        process, self._process = self._process, None
        if process is not None:
            end(process, ((signal.SIGKILL, 5.0),))

    def pause(self) -> None:
        """Hang: connections are accepted, nothing is answered."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after `pause`."""
        self._running().send_signal(signal.SIGCONT)

    def new_bucket(self) -> str:
        """The name of one that nobody uses."""
        self._buckets += 1
        name = f"bucket-{self._buckets}"
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{name}", method="PUT")
        urllib.request.urlopen(request, timeout=60).close()
        return name

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServerError("moto does not run")
        return self._process

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True
