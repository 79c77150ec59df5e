"""Two machines that share one provider, database and Redis: `web`, `api` and workers on each.

The servers and the balancer are on the hub, which both machines reach over a bridge.
"""

import contextlib
import json
import os
import signal
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from app.store import Store
from tests.e2e.stack import START_TIMEOUT_S, Stack
from tests.servers.machines import HUB, Machine
from tests.servers.processes import answers, end, wait_for

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
SHIFTED_CLOCK = Path(__file__).parent / "shifted_clock"
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

    def on(self, machine: str) -> list[str]:
        """The processes of a machine."""
        return [name for name, place in PLACES.items() if place == machine]

    @contextlib.contextmanager
    def frozen(self, machine: str) -> Iterator[None]:
        """All its processes stand still, as when a hypervisor moves it."""
        pids = [self.pids()[name] for name in self.on(machine)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def give_disk(self, machine: str, size: str) -> None:
        """The machine has a disk of its own, for its processes' logs and all that they write."""
        disk = self.folder / machine
        self._machines[machine].make_disk(disk, size)
        for name in self.on(machine):
            (self.folder / f"{name}.log").symlink_to(disk / f"{name}.log")
            self.env_of.setdefault(name, {}).update(
                TMPDIR=str(disk), TALLYHOOK_HEARTBEAT_FILE=str(disk / f"{name}.beat")
            )

    def give_clock(self, machine: str) -> Path:
        """The machine has a clock of its own: as many seconds wrong as stand in this file."""
        offset = self.folder / f"{machine}.clock"
        offset.write_text("0")
        path = os.pathsep.join([str(SHIFTED_CLOCK), self.env.get("PYTHONPATH", "")])
        for name in self.on(machine):
            self.env_of.setdefault(name, {}).update(PYTHONPATH=path, SHIFTED_CLOCK_FILE=str(offset))
        return offset

    def logged(self) -> Counter[tuple[str, str]]:
        """Lines of their logs, by process and event: warnings and errors."""
        lines: Counter[tuple[str, str]] = Counter()
        for name in PLACES:
            for line in (self.folder / f"{name}.log").read_text(errors="replace").splitlines():
                with contextlib.suppress(ValueError):
                    entry = json.loads(line)
                    if entry["level"] in ("warning", "error", "critical"):
                        lines[name, entry["event"][:60]] += 1
        return lines

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
