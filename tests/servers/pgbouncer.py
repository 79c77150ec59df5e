"""A real PgBouncer before a PostgreSQL, in transaction mode unless told, where the machine has one: Debian's
package `pgbouncer`. Its 1.18 keeps no prepared statements for its clients."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.servers.postgres import UNPRIVILEGED_USER
from tests.servers.processes import end, free_port, wait_for

START_TIMEOUT_S = 60.0


class PgBouncer:
    """One pooler on a port of its own. Skips the test where there is no binary."""

    def __init__(self, server_url: str, *, pool_size: int = 3, pool_mode: str = "transaction") -> None:
        self._binary = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if self._binary is None:
            pytest.skip("no pgbouncer on this machine: install the package pgbouncer to run this")
        self._server = sa.make_url(server_url)
        self._pool_size = pool_size
        self._pool_mode = pool_mode
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="tallyhook-pgbouncer-"))
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, server_url: str) -> str:
        """The URL of a database of the server's, through the pooler."""
        return (
            sa.make_url(server_url)
            .set(host="127.0.0.1", port=self.port)
            .render_as_string(hide_password=False)
        )

    def start(self) -> None:
        """Start; returns once it listens."""
        server, log = self._server, self._folder / "pgbouncer.log"
        configuration = self._folder / "pgbouncer.ini"
        configuration.write_text(
            f"[databases]\n* = host={server.host} port={server.port} user={server.username}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = any\npool_mode = {self._pool_mode}\ndefault_pool_size = {self._pool_size}\n"
            "max_client_conn = 200\n"
        )
        self._folder.chmod(0o755)
        user = ["-u", UNPRIVILEGED_USER] if os.geteuid() == 0 else []
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [str(self._binary), *user, str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._folder,
                start_new_session=True,
            )
        wait_for(self._listens, self._process, log, START_TIMEOUT_S)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            end(process, ((signal.SIGINT, 5.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)))
        shutil.rmtree(self._folder, ignore_errors=True)
