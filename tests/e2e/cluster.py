"""Two machines that share one provider, database and Redis: `web`, `api` and workers on each.

The servers and the balancer are on the hub, which both machines reach over a bridge.
"""

import asyncio
import contextlib
import json
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import psutil
import redis
import sqlalchemy as sa

from app.store import Database, Store
from app.store.migrate import migrate
from tests.e2e.stack import START_TIMEOUT_S, Stack
from tests.servers.machines import HUB, NETWORK, Machine
from tests.servers.postgres import PostgresServer
from tests.servers.processes import ServerError, answers, end, log_tail, wait_for
from tests.servers.sentinel import MASTER, running_sentinel
from tests.servers.valkey import ValkeyServer

PLACES = {
    "web1": "left",
    "api1": "left",
    "worker1": "left",
    "worker2": "left",
    "web2": "right",
    "api2": "right",
    "worker3": "right",
}
"""The machine of each process."""
CONTROL = "drill-control-token"
PORTS = {"web": 8080, "api": 8081}
NGINX = """
daemon off; user root; error_log {folder}/nginx.log; pid {folder}/nginx.pid; worker_processes 1;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  client_max_body_size 16m; client_body_buffer_size 128k;
  proxy_http_version 1.1; proxy_set_header Connection "";
  proxy_connect_timeout 2s; proxy_send_timeout 10s; proxy_read_timeout 20s;
  proxy_next_upstream error timeout http_502 http_503 non_idempotent;
  proxy_next_upstream_tries 2; proxy_next_upstream_timeout 20s;
  upstream web {{ {web} keepalive 64; }}
  upstream api {{ {api} keepalive 16; }}
  server {{ listen {hub}:8080; location / {{ proxy_pass http://web; }} }}
  server {{ listen {hub}:8081; location / {{ proxy_pass http://api; }} }}
}}
"""
"""As deploy/nginx has it before `web`, without TLS."""


class Cluster(Stack):
    """The emulator on the hub, every other process on its machine."""

    def __init__(
        self, folder: Path, store: Store, store_url: str, redis_url: str, machines: Mapping[str, Machine]
    ) -> None:
        super().__init__(folder, store, store_url, redis_url)
        self._machines = machines
        self._emulator_url = f"http://{HUB}:{self._ports['emulator']}"
        self.env |= {
            "CLORO_BASE_URL": self._emulator_url,
            "PUBLIC_URL": f"http://{HUB}:{PORTS['web']}",
            "PORT": str(PORTS["web"]),
            "TALLYHOOK_HOST": "0.0.0.0",
            "TALLYHOOK_API_HOST": "0.0.0.0",
            "TALLYHOOK_API_PORT": str(PORTS["api"]),
            "TALLYHOOK_SENDERS": "3",
        }

    def command(self, name: str) -> list[str]:
        """By way of the process's machine."""
        if name == "emulator":
            return [*super().command(name), "--host", HUB, "--control-token", CONTROL]
        command = super().command(name)
        if name.startswith("api"):
            command[-1] = str(PORTS["api"])
        return self._machines[PLACES[name]].command(*command)

    def start(self, *names: str) -> None:
        """Start processes and wait until those with a port answer."""
        for name in names:
            self._processes[name] = self._run(name)
        for name in names:
            if (url := self._health(name)) is not None:
                log = self.folder / f"{name}.log"
                wait_for(lambda url=url: answers(url), self._processes[name], log, 2 * START_TIMEOUT_S)  # type: ignore[misc]

    def _health(self, name: str) -> str | None:
        port = PORTS.get(name.rstrip("0123456789"))
        return f"http://{self._machines[PLACES[name]].address}:{port}/healthz" if port else None

    @property
    def api_url(self) -> str:
        """Of the API, by way of the balancer."""
        return f"http://{HUB}:{PORTS['api']}"

    def _ask(self, path: str) -> Any:
        request = urllib.request.Request(
            f"{self._emulator_url}{path}", headers={"Authorization": f"Bearer {CONTROL}"}
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            return json.load(response)


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
        connection = await asyncpg.connect(self._standby_url, timeout=10)
        try:
            await connection.execute("SELECT pg_promote()")
        finally:
            await connection.close()


async def _migrated(url: str) -> None:
    db = Database(url)
    try:
        await migrate(db)
    finally:
        await db.close()


def _either(url: str, standby: str) -> str:
    hosts = ",".join(f"{HUB}:{sa.make_url(place).port}" for place in (url, standby))
    return f"postgresql://postgres@{hosts}/{sa.make_url(url).database}?target_session_attrs=read-write"


class RedisPair:
    """A Valkey with a replica and a sentinel."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._servers: list[ValkeyServer] = []
        self._port = 0
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
            with running_sentinel(self._folder, self._start, HUB) as (port, _):
                self._port = port
                self.url = f"redis+sentinel://{HUB}:{port}/{MASTER}/0"
                yield
        finally:
            for server in self._servers:
                server.kill()

    def _master(self) -> int:
        with redis.Redis(HUB, self._port, socket_timeout=2) as sentinel:
            place: int = sentinel.sentinel_get_master_addr_by_name(MASTER)[1]
            return place

    def fail_over(self) -> None:
        """The master is killed; returns once the sentinel names the other."""
        (old,) = [server for server in self._servers if server.port == self._master()]
        old.kill()
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._master() == old.port:
            if time.monotonic() > deadline:
                raise ServerError(log_tail(self._folder / "sentinel.log"))
            time.sleep(0.1)


@contextlib.contextmanager
def balancer(folder: Path, machines: Mapping[str, Machine]) -> Iterator[None]:
    """nginx on the hub, before both `web` and both `api`."""
    top = folder / "nginx"
    top.mkdir()
    upstreams = {
        kind: " ".join(f"server {m.address}:{port} max_fails=0;" for m in machines.values())
        for kind, port in PORTS.items()
    }
    configuration = top / "nginx.conf"
    configuration.write_text(NGINX.format(folder=top, hub=HUB, **upstreams))
    process = subprocess.Popen(["nginx", "-c", str(configuration), "-p", str(top)], stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        end(process, ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)))
