"""What every measurement runs on: a durable PostgreSQL or a SQLite file, Valkey with its append-only file,
and processes of ours in production settings. Ends only what it started.
"""

import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from app.config import EMULATOR_KEY, EMULATOR_WEBHOOK_SECRET
from tests.servers.postgres import PostgresServer, database_name
from tests.servers.processes import answers, end, free_port, wait_for
from tests.servers.valkey import ValkeyServer

ROOT = Path(__file__).parents[2]
STORES = ("postgresql", "sqlite")
START_TIMEOUT_S = 30.0
STOP = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))
TALLYHOOK = str(Path(sys.executable).parent / "tallyhook")


class CountingPostgres(PostgresServer):
    """A durable PostgreSQL that counts the statements it is given, BEGIN and COMMIT included."""

    def __init__(self) -> None:
        super().__init__(durable=True)
        self._settings |= {"shared_preload_libraries": "pg_stat_statements"}

    def start(self) -> None:
        super().start()
        self.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")


@dataclass
class Process:
    """One process of ours, and where its log is."""

    name: str
    port: int
    popen: "subprocess.Popen[bytes]"
    log: Path
    log_from: int
    """Where this process's part of the log begins; earlier ones of its name wrote before it."""

    def memory_mb(self, line: str) -> float:
        """VmRSS: now; VmHWM: the most so far."""
        status = Path(f"/proc/{self.popen.pid}/status").read_text()
        kb = next(row.split()[1] for row in status.splitlines() if row.startswith(f"{line}:"))
        return int(kb) / 1024

    def cpu_s(self) -> float:
        """Processor time that it has used so far, all its threads together."""
        fields = Path(f"/proc/{self.popen.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        end(self.popen, STOP)


@dataclass
class Rig:
    """Servers and databases of one store's measurements."""

    store: str
    folder: Path
    valkey: ValkeyServer
    postgres: CountingPostgres | None
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def is_sqlite(self) -> bool:
        return self.postgres is None

    def create_database(self, template: str | None = None) -> str:
        """URL of a new database; a copy of the one at the URL `template`, which must not be in use."""
        if self.postgres is not None:
            return self.postgres.create_database(database_name(template) if template else "template0")
        path = self.folder / f"{next(self._numbers)}.db"
        if template is not None:
            shutil.copyfile(_file(template), path)
        return f"sqlite:///{path}"

    def drop_database(self, url: str) -> None:
        """Remove a database and its files."""
        if self.postgres is not None:
            self.postgres.drop_database(url)
            return
        for suffix in ("", "-wal", "-shm"):
            Path(f"{_file(url)}{suffix}").unlink(missing_ok=True)

    @contextmanager
    def database(self, template: str | None = None) -> Iterator[str]:
        """A database for the time of the block."""
        url = self.create_database(template)
        try:
            yield url
        finally:
            self.drop_database(url)

    def settle_disk(self) -> None:
        """Nothing that the last measurement left to be written disturbs the next one."""
        if self.postgres is not None:
            self.postgres.execute("CHECKPOINT")
        os.sync()

    def redis_commands(self) -> int:
        """Commands that Valkey has run so far, but for those of looking."""
        with self.valkey.client() as client:
            stats: dict[str, Any] = client.info("commandstats")  # type: ignore[assignment]
        return sum(
            s["calls"] for name, s in stats.items() if not name.startswith(("cmdstat_info", "cmdstat_ping"))
        )

    def redis(self) -> "redis.Redis":
        return self.valkey.client()

    @contextmanager
    def process(
        self, name: str, command: Sequence[str], url: str, *, path: str | None = "/healthz", **env: str
    ) -> Iterator[Process]:
        """Run a process on a database until the block ends. Waits for `path` to answer; None: for nothing."""
        port = free_port()
        log = self.folder / f"{name}.log"
        with log.open("ab") as output:
            log_from = output.tell()
            popen = subprocess.Popen(
                [part.replace("{port}", str(port)) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                env=self.env(url, port) | env,
                start_new_session=True,
            )
        process = Process(name, port, popen, log, log_from)
        try:
            if path is not None:
                wait_for(lambda: answers(f"http://127.0.0.1:{port}{path}"), popen, log, START_TIMEOUT_S)
            yield process
        finally:
            process.end()

    def env(self, url: str, port: int) -> dict[str, str]:
        """Production's settings: everything at its default but addresses and keys."""
        ours = ("TALLYHOOK_", "CLORO_")
        return {
            **{key: value for key, value in os.environ.items() if not key.startswith(ours)},
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": url,
            "REDIS_URL": self.valkey.url,
            "PORT": str(port),
            "CLORO_API_KEY": EMULATOR_KEY,
            "CLORO_BASE_URL": "http://127.0.0.1:9",
            "CLORO_WEBHOOK_SECRET": EMULATOR_WEBHOOK_SECRET,
            "TALLYHOOK_LOG_FORMAT": "json",
        }


@contextmanager
def rig(store: str, folder: Path) -> Iterator[Rig]:
    """The servers of one store, running."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        valkey = ValkeyServer(folder, appendonly=True, appendfsync="everysec")
        stack.callback(valkey.kill)
        valkey.start()
        postgres = CountingPostgres() if store == "postgresql" else None
        if postgres is not None:
            stack.callback(postgres.stop)
            postgres.start()
        yield Rig(store, folder, valkey, postgres)


def module(name: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours."""
    return [sys.executable, "-m", name, *arguments]


def _file(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))
