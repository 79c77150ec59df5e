"""How `web`, `worker` and the emulator begin to listen and end: addresses of both families, signals from the
first moment on, and what is half done when they are told."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import aiohttp
import pytest

from app.provider.signature import sign
from tests.servers.processes import free_port

SECRET = "whsec_of_this_test"
TALLYHOOK = str(Path(sys.executable).parent / "tallyhook")
WAIT_S = 60.0
COMMANDS = {
    "web": [TALLYHOOK, "web"],
    "worker": [TALLYHOOK, "worker"],
    "workers": [sys.executable, "-m", "workers"],
    "emulator": [TALLYHOOK, "emulator", "--port", "0"],
    "app.emulator": [sys.executable, "-m", "app.emulator", "--port", "0"],
}
READY = {"web": "istening", "worker": "worker_started", "workers": "worker_started", "emulator": "listening"}
LATE = ("_http_parser", "uvloop", "msgspec")
"""Compiled parts of what is imported last; none is in the process yet when it begins to hear signals."""


class Running:
    """One process and what it has said."""

    def __init__(self, popen: "subprocess.Popen[bytes]", log: Path) -> None:
        self.popen = popen
        self.log = log

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for it, as long as the process lives."""
        until_s = time.monotonic() + WAIT_S
        while not condition():
            assert self.popen.poll() is None, self.log.read_text()
            assert time.monotonic() < until_s, self.log.read_text()
            time.sleep(0.002)

    def has_printed(self, text: str) -> bool:
        return text in self.log.read_text()

    def hears(self, number: signal.Signals) -> bool:
        """Whether the kernel would call a handler of it (SigCgt of proc(5))."""
        status = Path(f"/proc/{self.popen.pid}/status").read_text()
        caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
        return bool(int(caught, 16) & 1 << (number - 1))

    def ended(self) -> int:
        try:
            return self.popen.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"did not end within {WAIT_S} s: {self.log.read_text()}")


@contextmanager
def running(
    name: str, folder: Path, *, nohup: bool = False, alone: bool = False, **env: str
) -> Iterator[Running]:
    """A process on an embedded database, with a Redis that is away. With `alone` it is process 1 of its own
    namespace, as in a container."""
    log = folder / f"{name}.log"
    with log.open("ab") as output:
        popen = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", *COMMANDS[name]] if alone else COMMANDS[name],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            start_new_session=True,
            # Whatever these tests themselves were started by.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL),
            env={k: v for k, v in os.environ.items() if not k.startswith(("TALLYHOOK_", "CLORO_"))}
            | {
                "TALLYHOOK_DATA_DIR": str(folder / "data"),
                "REDIS_URL": "redis://127.0.0.1:1",
                "PORT": "0",
                "CLORO_WEBHOOK_SECRET": SECRET,
                "TALLYHOOK_LOG_FORMAT": "json",
                "CLORO_API_KEY": "k",
                "CLORO_BASE_URL": "http://127.0.0.1:9",
                "PYTHONPATH": str(Path(__file__).parents[2]),
            }
            | env,
        )
    try:
        yield Running(popen, log)
    finally:
        if popen.poll() is None:
            popen.kill()
            popen.wait(WAIT_S)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_f25_sigterm_is_handled_before_anything_is_imported(name: str, tmp_path: Path) -> None:
    with running(name, tmp_path) as process:
        process.until(lambda: process.hears(signal.SIGTERM))
        maps = Path(f"/proc/{process.popen.pid}/maps").read_text()
        process.popen.send_signal(signal.SIGTERM)
        assert process.ended() == 0, process.log.read_text()
    assert [part for part in LATE if part in maps] == []
    assert "Traceback" not in process.log.read_text()


@pytest.mark.skipif(
    subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True).returncode != 0,
    reason="no right to make a namespace of processes",
)
@pytest.mark.parametrize("after_s", [0.2, 0.6, 1.0])
def test_f25_process_1_of_a_container_ends_whenever_it_is_signalled(after_s: float, tmp_path: Path) -> None:
    """A signal that it has no handler for would be lost, and it would run until it is killed. Among the
    moments are those at which `tallyhook worker` gives its place to the worker."""
    with running("worker", tmp_path, alone=True) as process:
        children = Path(f"/proc/{process.popen.pid}/task/{process.popen.pid}/children")
        process.until(lambda: bool(children.read_text()))
        child = int(children.read_text())
        one = Running(process.popen, process.log)
        one.until(lambda: bool(Path(f"/proc/{child}/status").read_text()))
        started_s = time.monotonic()

        def hears() -> bool:
            status = Path(f"/proc/{child}/status").read_text()
            caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
            return bool(int(caught, 16) & 1 << (signal.SIGTERM - 1))

        process.until(hears)
        time.sleep(max(0.0, started_s + after_s - time.monotonic()))  # a moment of the start, whichever it is
        os.kill(child, signal.SIGTERM)
        assert process.ended() == 0, process.log.read_text()


@pytest.mark.parametrize("where", ["in a finalizer", "beside a thread"])
def test_f25_no_moment_of_the_start_swallows_the_signal(where: str, tmp_path: Path) -> None:
    """An exception of a signal handler is only printed when it comes in a finalizer, and a database's thread
    that nobody stops keeps the interpreter for ever."""
    code = [
        "from app.stop_signals import exit_on_signals",
        "import threading, time",
        "exit_on_signals()",
        "class Slow:",
        "    def __del__(self):",
        "        print('there', flush=True); time.sleep(0.5)",
        "if 'thread' in sys.argv[1]:",
        "    threading.Thread(target=threading.Event().wait).start()",
        "Slow()",
        "time.sleep(60)",
    ]
    log = tmp_path / "log"
    with log.open("wb") as output:
        popen = subprocess.Popen(
            [sys.executable, "-c", "\n".join(["import sys", *code]), where],
            stdout=output,
            stderr=output,
            cwd=Path(__file__).parents[2],
        )
    process = Running(popen, log)
    try:
        process.until(lambda: process.has_printed("there"))
        popen.send_signal(signal.SIGTERM)
        assert popen.wait(60.0) == 0, log.read_text()
    finally:
        if popen.poll() is None:
            popen.kill()
            popen.wait(WAIT_S)


@pytest.mark.parametrize("name", ["web", "worker", "emulator"])
def test_f25_sighup_ends_in_order_unless_it_is_ignored(name: str, tmp_path: Path) -> None:
    with running(name, tmp_path) as process:
        process.until(lambda: process.has_printed(READY[name]))
        process.popen.send_signal(signal.SIGHUP)
        assert process.ended() == 0, process.log.read_text()
    with running(name, tmp_path, nohup=True) as process:
        process.until(lambda: process.log.read_text().count(READY[name]) >= 2)
        process.popen.send_signal(signal.SIGHUP)
        time.sleep(0.2)  # that nothing happens can only be waited for
        assert process.popen.poll() is None, "nohup"
        process.popen.send_signal(signal.SIGTERM)
        assert process.ended() == 0, process.log.read_text()


def has_ipv6() -> bool:
    try:
        with closing(socket.create_server(("::1", 0), family=socket.AF_INET6)):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["[::]", "::1"])
@pytest.mark.parametrize("name", ["web", "emulator"])
async def test_f25_ipv6_is_listened_on_and_written_as_it_must_be(
    name: str, host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, bare = free_port(), host.strip("[]")
    command = [*COMMANDS[name], "--json"]
    if name == "emulator":
        command += ["--host", host, "--port", str(port)]
    monkeypatch.setitem(COMMANDS, name, command)
    with running(name, tmp_path, TALLYHOOK_HOST=host, PORT=str(port)) as process:
        process.until(
            lambda: process.has_printed('"event":"ready"') or process.has_printed('"event": "ready"')
        )
        lines = [json.loads(one) for one in process.log.read_text().splitlines() if one.startswith("{")]
        (ready,) = [one for one in lines if one["event"] == "ready"]
        assert ready["url"] == f"http://[{bare}]:{port}"
        path = "/healthz" if name == "web" else "/_emulator/state"
        if name == "web":
            reached = "127.0.0.1" if bare == "::" else "[::1]"
            assert ready["webhook_url"] == f"http://{reached}:{port}/webhooks/cloro"
        async with aiohttp.ClientSession() as http:
            token = {"Authorization": f"Bearer {ready.get('control_token')}"}
            for address in ["[::1]", *(["127.0.0.1"] if bare == "::" else [])]:
                async with http.get(f"http://{address}:{port}{path}", headers=token) as response:
                    assert response.status == 200


async def test_f25_what_is_half_sent_at_sigterm_is_taken_and_the_balancer_has_time(tmp_path: Path) -> None:
    """A delivery whose body is half here when `web` is told to end is read, stored and answered; until the
    delay is over, so is one that only comes."""
    port = free_port()
    settings = {"PORT": str(port), "TALLYHOOK_DRAIN_DELAY_S": "1.5"}
    with running("web", tmp_path, **settings) as process:
        process.until(lambda: process.has_printed("istening on"))
        body = b'{"half": "' + b"x" * 100_000 + b'"}'
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head(body) + body[:70_000])
        await writer.drain()
        await asyncio.sleep(0.1)  # for the head to be read
        process.popen.send_signal(signal.SIGTERM)
        async with aiohttp.ClientSession() as http:
            async with asyncio.timeout(WAIT_S):
                while True:
                    async with http.get(f"http://127.0.0.1:{port}/readyz") as response:
                        if "draining" in await response.text():
                            break
            late = b'{"late": 1}'
            async with http.post(
                f"http://127.0.0.1:{port}/webhooks/cloro", data=late, headers=signed(late)
            ) as response:
                assert response.status == 200, "it is only not ready yet"
        # Now it no longer listens.
        async with asyncio.timeout(WAIT_S):
            while listens(port):  # noqa: ASYNC110 - another process does it
                await asyncio.sleep(0.02)
        writer.write(body[70_000:])
        async with asyncio.timeout(WAIT_S):
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        assert process.ended() == 0, process.log.read_text()
    assert process.log.read_text().count("Traceback") == 0


def signed(body: bytes) -> dict[str, str]:
    now = str(int(time.time()))
    return {
        "X-Cloro-Timestamp": now,
        "X-Cloro-Signature": sign(SECRET, now, body),
        "X-Cloro-Webhook-Id": "t-1",
    }


def head(body: bytes) -> bytes:
    lines = ["POST /webhooks/cloro HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in signed(body).items()]
    return "\r\n".join([*lines, "", ""]).encode()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
