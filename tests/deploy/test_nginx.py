"""nginx before `web`, as deploy/nginx has it: a real one, real deliveries, slow and strange clients."""

import asyncio
import contextlib
import io
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import trustme
import yaml
from aiohttp.abc import AbstractResolver, ResolveResult

from app.provider.wire import read_answer
from app.store import Database, Store
from tests.conftest import StartValkey
from tests.deploy.tools import DEPLOY, debian_tool, must
from tests.e2e.stack import TALLYHOOK
from tests.integration.web.receiving import PATH, SECRET, delivery_body, signed, stored
from tests.servers.processes import answers, end, free_port, wait_for

pytestmark = pytest.mark.deploy
NAME = "hooks.example.com"
MIB = 1024 * 1024
STOP = ((signal.SIGTERM, 30.0), (signal.SIGKILL, 5.0))


class Here(AbstractResolver):
    """Every name is this machine."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            {"hostname": host, "host": "127.0.0.1", "port": port, "family": family, "proto": 0, "flags": 0}
        ]

    async def close(self) -> None:
        pass


@dataclass
class Proxy:
    """A running nginx."""

    port: int
    process: "subprocess.Popen[bytes]"
    trust: ssl.SSLContext

    @property
    def url(self) -> str:
        return f"https://{NAME}:{self.port}"

    def session(self) -> aiohttp.ClientSession:
        """Of a client that finds every name here, and trusts the CA."""
        connector = aiohttp.TCPConnector(resolver=Here(), ssl=self.trust, limit=32, family=socket.AF_INET)
        return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60))


def certify(folder: Path) -> ssl.SSLContext:
    """A certificate for NAME, where the configuration reads it; what trusts it."""
    ca, trust = trustme.CA(), ssl.create_default_context()
    ca.configure_trust(trust)
    certificate = ca.issue_cert(NAME)
    certificate.private_key_pem.write_to_path(str(folder / "privkey.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "fullchain.pem"))
    return trust


def written(folder: Path, port: int, upstream: str, **changes: str) -> Path:
    """The configuration as deploy/nginx has it, with the ports and places of a test, and `changes`."""
    text = (DEPLOY / "nginx" / "tallyhook.conf").read_text()
    for before, after in {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/tallyhook/tls/": f"{folder}/",
        "/var/log/nginx/access.log": f"{folder}/access.log",
        **changes,
    }.items():
        assert before in text, before
        text = text.replace(before, after)
    (folder / "tallyhook.conf").write_text(upstream + text)
    user = "user nobody nogroup;\n" if os.geteuid() == 0 else ""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    main = folder / "nginx.conf"
    main.write_text(
        f"{user}daemon off;\npid {folder}/nginx.pid;\nworker_processes 2;\nerror_log {folder}/error.log;\n"
        f"events {{ worker_connections 512; }}\nhttp {{\n{temporary}include {folder}/tallyhook.conf;\n}}\n"
    )
    return main


def upstream_of(webs: list[int]) -> str:
    """upstream.conf with a line for each of them."""
    text, line = (DEPLOY / "nginx" / "upstream.conf").read_text(), "    server 127.0.0.1:8080 max_fails=0;\n"
    assert line in text
    return text.replace(line, "".join(line.replace("8080", str(web)) for web in webs))


@contextlib.contextmanager
def running_nginx(folder: Path, webs: list[int], **changes: str) -> Iterator[Proxy]:
    nginx, port, log = debian_tool("nginx"), free_port(), folder / "nginx.log"
    trust = certify(folder)
    main = written(folder, port, upstream_of(webs), **changes)
    with log.open("wb") as output:
        command = [nginx, "-c", str(main)]
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        wait_for((folder / "nginx.pid").exists, process, log, 15)
        yield Proxy(port, process, trust)
    finally:
        end(process, ((signal.SIGQUIT, 20.0), (signal.SIGKILL, 5.0)))


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that nginx's processes, which are nobody's, reach; pytest's own is for one user alone."""
    folder = Path(tempfile.mkdtemp(prefix="tallyhook-nginx-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


class Webs:
    """Receivers on one database, each on a port of its own."""

    def __init__(self, folder: Path, database: str, redis: str) -> None:
        self._folder = folder
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("TALLYHOOK_", "CLORO_"))},
            "DATABASE_URL": database,
            "REDIS_URL": redis,
            "CLORO_WEBHOOK_SECRET": SECRET,
            "CLORO_API_KEY": "sk_test_nobody",
        }

    def start(self, port: int) -> int:
        log = self.log(port)
        with log.open("ab") as output:
            process = subprocess.Popen(
                [TALLYHOOK, "web"],
                env=self._env | {"PORT": str(port)},
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._processes[port] = process
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/healthz"), process, log, 60)
        return port

    def log(self, port: int) -> Path:
        return self._folder / f"web{port}.log"

    def end(self, port: int) -> None:
        end(self._processes.pop(port), STOP)

    def close(self) -> None:
        for port in list(self._processes):
            self.end(port)


@pytest.fixture
async def webs(tmp_path: Path, postgres_url: str, start_valkey: StartValkey) -> AsyncIterator[Webs]:
    started = Webs(tmp_path, postgres_url, start_valkey().url)
    try:
        yield started
    finally:
        started.close()


@pytest.fixture
async def inbox(postgres_url: str) -> AsyncIterator[Store]:
    store = Store(Database(postgres_url), read_answer)
    yield store
    await store.close()


async def post(http: aiohttp.ClientSession, url: str, body: bytes, **headers: str) -> int:
    """The status of one delivery."""
    headers = signed(body, int(time.time())) | headers
    async with http.post(f"{url}{PATH}", data=io.BytesIO(body), headers=headers) as answer:
        return answer.status


def test_nginx_takes_the_files(tmp_path: Path) -> None:
    """`nginx -t`; and what compose puts in upstream.conf's place, but for a word of newer versions."""
    nginx, _ = debian_tool("nginx"), certify(tmp_path)
    assert "successful" in must(nginx, "-t", "-c", written(tmp_path, free_port(), upstream_of([8080])))
    inline = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["configs"]["upstream"]["content"]
    assert "server web:8080 resolve" in inline
    inline = inline.replace("server web:8080 resolve", "server 127.0.0.1:1")
    assert "successful" in must(nginx, "-t", "-c", written(tmp_path, free_port(), inline))


async def test_deliveries_come_through_as_they_were_signed(place: Path, inbox: Store, webs: Webs) -> None:
    """Small and large ones, byte for byte; what is too large, compressed, or for nobody is refused."""
    with running_nginx(place, [webs.start(free_port())]) as proxy:
        async with proxy.session() as http:
            bodies = [delivery_body(n, "é" * size) for n, size in enumerate((10, 9_000, 80_000, 7 * MIB))]
            assert [await post(http, proxy.url, body) for body in bodies] == [200] * 4
            forged = signed(bodies[0], int(time.time()), secret="whsec_other")
            assert await post(http, proxy.url, bodies[0], **forged) == 401
            assert await post(http, proxy.url, bytes(16 * MIB + 1)) == 413
            assert await post(http, proxy.url, bodies[0], **{"Content-Encoding": "gzip"}) == 415
            for path in ("/", "/metrics", "/healthz", "/readyz", "/v1/runs", "/webhooks"):
                async with http.get(proxy.url + path) as answer:
                    assert answer.status == 404, path
            async with http.get(f"{proxy.url}{PATH}") as answer:
                assert answer.status == 403
            with pytest.raises(aiohttp.ClientError):
                await http.get(f"https://other.example.com:{proxy.port}/")
    assert sorted(one.body for one in await stored(inbox)) == sorted(bodies)


async def test_slow_clients_are_cut_off_and_never_reach_web(place: Path, inbox: Store, webs: Webs) -> None:
    """A head that does not end, and a body that stands still; others are served meanwhile."""
    web = webs.start(free_port())
    quick = {
        name: name.replace("10s", "1s") for name in ("client_header_timeout 10s", "client_body_timeout   10s")
    }
    with running_nginx(place, [web], **quick) as proxy:

        async def dribble(head: bytes) -> bytes:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", proxy.port, ssl=proxy.trust, server_hostname=NAME
            )
            writer.write(head)
            try:
                async with asyncio.timeout(20):
                    return await reader.read()
            except ConnectionError:
                return b""
            finally:
                writer.close()

        head = f"POST {PATH} HTTP/1.1\r\nHost: {NAME}\r\n".encode()
        signature = "".join(f"{k}: {v}\r\n" for k, v in signed(b"{", int(time.time())).items()).encode()
        slow = [dribble(head), dribble(head + signature + b"Content-Length: 1000\r\n\r\n{")]
        async with proxy.session() as http:
            *cut, status = await asyncio.gather(*slow, post(http, proxy.url, delivery_body(1)))
        assert status == 200
        assert all(said == b"" or b"408" in said for said in cut), cut
    assert "refused" not in webs.log(web).read_text()
    assert len(await stored(inbox)) == 1


async def test_reloads_and_restarts_lose_no_delivery(place: Path, inbox: Store, webs: Webs) -> None:
    """nginx reloads and each `web` is restarted under load: every delivery gets its 200 and is stored once.

    A reload closes idle connections, which a client may be about to use: it sends again, as any does."""
    ports = [webs.start(free_port()), webs.start(free_port())]
    statuses: list[int] = []
    over = asyncio.Event()
    with running_nginx(place, ports) as proxy:

        async def deliver(lane: int, http: aiohttp.ClientSession) -> None:
            number = lane
            while not over.is_set():
                body = delivery_body(number)
                headers = signed(body, int(time.time()))
                try:
                    statuses.append(await post(http, proxy.url, body, **headers))
                except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
                    statuses.append(await post(http, proxy.url, body, **headers))
                number += 8

        async with proxy.session() as http, asyncio.TaskGroup() as group:
            for lane in range(8):
                group.create_task(deliver(lane, http))
            for port in ports:
                proxy.process.send_signal(signal.SIGHUP)
                await asyncio.sleep(0.5)
                await asyncio.to_thread(webs.end, port)
                await asyncio.to_thread(webs.start, port)
            over.set()
    assert len(statuses) > 50
    assert set(statuses) == {200}
    assert len(await stored(inbox)) == len(statuses)
