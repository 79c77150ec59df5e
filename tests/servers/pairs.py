"""A database with its standby and a Redis with its replica and sentinels, on addresses of their own
(tests/servers/machines.py), and what may happen to them.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import psutil
import redis
import sqlalchemy as sa

from app.store import Database
from app.store.migrate import migrate
from tests.servers.machines import DATABASE, NETWORK, REDIS
from tests.servers.postgres import PostgresServer
from tests.servers.processes import ServerError, log_tail
from tests.servers.sentinel import MASTER, Sentinel, running_sentinels
from tests.servers.valkey import ValkeyServer

FAIL_OVER_S = 30.0


class DatabasePair:
    """A primary, and a synchronous standby that can take its place: what was acknowledged is on both."""

    def __init__(self) -> None:
        self._primary = PostgresServer(settings={"synchronous_commit": "on", "listen_addresses": "*"})
        self._standby_url = ""
        self.url = ""
        """Of a migrated database, at whichever of the two takes writes."""

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """For the length of the `with`."""
        self._primary.start()
        try:
            admitted = f"COPY (SELECT 'host all all {NETWORK} trust') TO PROGRAM 'cat >> pg_hba.conf'"
            self._primary.execute(admitted)
            self._primary.execute("SELECT pg_reload_conf()")
            url = self._primary.create_database()
            asyncio.run(_migrated(url))
            with self._primary.standby() as standby:
                self._primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
                self._primary.execute("SELECT pg_reload_conf()")
                self._standby_url = standby
                self.url = _either(url, standby)
                yield
        finally:
            self._primary.stop()

    async def fail_over(self) -> None:
        """The primary and all its backends are killed, and the standby promoted."""
        backends = psutil.Process(self._primary.pid).children(recursive=True)
        await asyncio.to_thread(self._primary.kill)
        for backend in backends:
            with contextlib.suppress(psutil.NoSuchProcess):
                backend.kill()
        await _asked(self._standby_url, "SELECT pg_promote()")

    async def restart(self) -> None:
        """The primary is killed, and comes back as it was."""
        await asyncio.to_thread(self._primary.kill)
        await asyncio.to_thread(self._primary.recover)

    async def hang(self, for_s: float) -> None:
        """The primary stands still: connections stand, and nothing is answered."""
        with _still(self._primary.pid):
            await asyncio.sleep(for_s)

    async def lose_standby(self, noticed_s: float, away_s: float) -> None:
        """The standby stands still. No commit is acknowledged until somebody has noticed and goes on without
        it, as Patroni does; then it is back, catches up and is waited for again."""
        file = await _asked(self._standby_url, "SELECT pg_read_file('postmaster.pid')")
        with _still(int(file.split()[0])):
            await asyncio.sleep(noticed_s)
            await self._wait_for_standby("")
            await asyncio.sleep(away_s)
        await self._wait_for_standby("*")

    async def _wait_for_standby(self, names: str) -> None:
        change = f"ALTER SYSTEM SET synchronous_standby_names = '{names}'"
        for statement in (change, "SELECT pg_reload_conf()"):
            await asyncio.to_thread(self._primary.execute, statement)


@contextlib.contextmanager
def _still(pid: int) -> Iterator[None]:
    """A process and its children do nothing."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


async def _asked(url: str, query: str) -> Any:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def _migrated(url: str) -> None:
    db = Database(url)
    try:
        await migrate(db)
    finally:
        await db.close()


def _either(url: str, standby: str) -> str:
    hosts = ",".join(f"{DATABASE}:{sa.make_url(place).port}" for place in (url, standby))
    return f"postgresql://postgres@{hosts}/{sa.make_url(url).database}?target_session_attrs=read-write"


class RedisPair:
    """A Valkey with a replica and three sentinels."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._servers: list[ValkeyServer] = []
        self._sentinels: list[Sentinel] = []
        self.url = ""

    def _start(self, **config: Any) -> ValkeyServer:
        folder = self._folder / f"valkey{len(self._servers)}"
        folder.mkdir()
        reachable = {"bind": "0.0.0.0", "protected-mode": "no"}
        server = ValkeyServer(folder, **config, **reachable)
        self._servers.append(server)
        server.start()
        return server

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """For the length of the `with`."""
        try:
            with running_sentinels(self._folder, self._start, REDIS) as (sentinels, _):
                self._sentinels = sentinels
                places = ",".join(f"{REDIS}:{sentinel.port}" for sentinel in sentinels)
                self.url = f"redis+sentinel://{places}/{MASTER}/0"
                yield
        finally:
            for server in self._servers:
                server.kill()

    def _master(self) -> ValkeyServer:
        with redis.Redis(REDIS, self._sentinels[-1].port, socket_timeout=2) as sentinel:
            port = sentinel.sentinel_get_master_addr_by_name(MASTER)[1]
        return next(server for server in self._servers if server.port == port)

    def fail_over(self) -> None:
        """The master is killed; returns once the sentinels name the other."""
        old = self._master()
        old.kill()
        deadline = time.monotonic() + FAIL_OVER_S
        while self._master() is old:
            if time.monotonic() > deadline:
                raise ServerError(log_tail(self._folder / "sentinel1.log"))
            time.sleep(0.1)

    def lose_sentinel(self) -> None:
        """One of three is gone for good; the others still are most of them."""
        self._sentinels[0].end()

    async def lose_replica(self, away_s: float) -> None:
        """It is killed, and back after a while."""
        (replica,) = [server for server in self._servers if server is not self._master()]
        replica.kill()
        await asyncio.sleep(away_s)
        await asyncio.to_thread(replica.start)
