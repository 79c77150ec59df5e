"""The process around the receiver: port, bound on connections, orderly end (R11, R24)."""

import asyncio
import errno
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog

from app.address.listening import listening_remedy
from app.cli.processes import serve_web
from app.config import load_settings
from app.errors import UserError
from app.web.server import create_app, run, serve
from tests.clock import SteppedClock
from tests.integration.web.receiving import (
    LIMITS,
    PATH,
    SECRET,
    WAIT_S,
    HeldStore,
    WakeDouble,
    delivery_body,
    signed,
    until,
)


class Served:
    """`serve` as a task, until `stop` is set."""

    def __init__(self, task: "asyncio.Task[None]", stop: asyncio.Event, port: int) -> None:
        self.task = task
        self.stop = stop
        self.port = port
        self.url = f"http://127.0.0.1:{port}"


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture
async def serve_it(clock: SteppedClock) -> AsyncIterator[Serve]:
    """`await serve_it(store, connections_max=...)`."""
    async with AsyncExitStack() as running:

        async def start(store: HeldStore, **options: Any) -> Served:
            app = create_app(
                store, WakeDouble(), secrets=(SECRET,), limits=LIMITS, clock=clock, public_metrics=True
            )
            port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            stop = asyncio.Event()
            task = asyncio.create_task(
                serve(
                    app, host="127.0.0.1", stop=stop, on_listening=port.set_result, **{"port": 0, **options}
                )
            )

            async def end() -> None:
                stop.set()
                store.gate.set()
                await asyncio.wait({task})
                if not task.cancelled():
                    task.result()

            running.push_async_callback(end)
            async with asyncio.timeout(WAIT_S):
                return Served(task, stop, await port)

        yield start


async def test_a_free_port_is_taken_and_reported(serve_it: Serve, held: HeldStore) -> None:
    with structlog.testing.capture_logs() as lines:
        served = await serve_it(held)
    (line,) = [line for line in lines if line["event"] == "listening"]
    assert line["port"] == served.port > 0
    async with aiohttp.ClientSession() as client, client.get(f"{served.url}/healthz") as response:
        assert response.status == 200


@pytest.mark.parametrize(
    ("host", "remedy"),
    [
        ("no-such-host.invalid", "set TALLYHOOK_HOST"),
        ("192.0.2.1", "set TALLYHOOK_HOST"),
        ("127.0.0.1", "set PORT to a free one"),
    ],
)
async def test_f25_where_nobody_can_listen_is_reported(host: str, remedy: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = load_settings(
            _env_file=None,
            host=host,
            PORT=taken.getsockname()[1],
            data_dir=tmp_path,
            REDIS_URL="redis://127.0.0.1:1",
        )
        with pytest.raises(UserError, match="cannot listen on") as caught:
            await serve_web(settings, as_json=True)
    assert remedy in caught.value.remedy


def test_f25_a_port_of_the_systems_is_reported() -> None:
    """Whom the system lets have it meets no such error."""
    assert "above 1023" in listening_remedy(PermissionError(errno.EACCES, "permission denied"))


async def test_r24_sigterm_finishes_what_is_in_flight(
    serve_it: Serve, held: HeldStore, clock: SteppedClock
) -> None:
    served = await serve_it(held)
    body = delivery_body()
    async with aiohttp.ClientSession() as client:
        post = asyncio.create_task(
            client.post(served.url + PATH, data=body, headers=signed(body, clock() // 1000))
        )
        await until(lambda: len(held.groups) == 1)
        os.kill(os.getpid(), signal.SIGTERM)
        await until(served.stop.is_set)
        # No new connection is taken any more, and the one in flight is waited for.
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
                except ConnectionRefusedError:
                    break
                writer.close()
        assert not post.done()
        assert not served.task.done()
        held.gate.set()
        response = await post
        assert response.status == 200
        assert [delivery.body for delivery in held.committed] == [body]
        await served.task


async def test_a_load_balancer_is_given_time_to_notice(serve_it: Serve, held: HeldStore) -> None:
    held.gate.set()
    served = await serve_it(held, drain_delay_s=WAIT_S)
    async with aiohttp.ClientSession() as client:
        served.stop.set()

        async def is_ready() -> bool:
            async with client.get(f"{served.url}/readyz") as response:
                return response.status == 200

        async with asyncio.timeout(WAIT_S / 2):
            while await is_ready():
                pass
        # Meanwhile deliveries are still taken.
        body = delivery_body()
        now_s = 1_790_812_800
        async with client.post(served.url + PATH, data=body, headers=signed(body, now_s)) as response:
            assert response.status == 200
    served.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await served.task
    assert len(held.committed) == 1


async def test_r11_silent_sockets_give_way_to_good_traffic(
    serve_it: Serve, held: HeldStore, clock: SteppedClock
) -> None:
    held.gate.set()
    served = await serve_it(held, connections_max=20)
    heads = (b"", b"POST ", b"POST /webhooks/cloro HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
    slow = []
    for number in range(100):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(heads[number % 3])
        slow.append((reader, writer))
    async with aiohttp.ClientSession() as client:
        for number in range(30):
            body = delivery_body(number)
            headers = signed(body, clock() // 1000) | {"Connection": "close"}
            async with client.post(served.url + PATH, data=body, headers=headers) as response:
                assert response.status == 200
        async with client.get(f"{served.url}/metrics") as response:
            text = await response.text()
    (line,) = [line for line in text.splitlines() if line.startswith("tallyhook_connections_cut ")]
    assert float(line.split()[1]) >= 80
    # The ones cut know it: their sockets are at an end.
    for reader, writer in slow[:60]:
        async with asyncio.timeout(WAIT_S):
            try:
                while await reader.read(1_000):
                    pass
            except ConnectionResetError:
                pass
        writer.close()
    for _, writer in slow[60:]:
        writer.transport.abort()


async def test_r11_an_acknowledged_connection_outlives_silent_ones(
    serve_it: Serve, held: HeldStore, clock: SteppedClock
) -> None:
    held.gate.set()
    served = await serve_it(held, connections_max=5)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    silent = []
    for number in range(20):
        body = delivery_body(number)
        headers = signed(body, clock() // 1000) | {"Host": "x", "Content-Length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"POST {PATH} HTTP/1.1\r\n{head}\r\n".encode() + body)
        async with asyncio.timeout(WAIT_S):
            answer = await reader.readuntil(b"}")
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        silent.append((await asyncio.open_connection("127.0.0.1", served.port))[1])
    for each in (writer, *silent):
        each.close()


async def test_r11_connections_that_were_answered_long_ago_give_way_too(
    serve_it: Serve, held: HeldStore
) -> None:
    served = await serve_it(held, connections_max=5)
    kept = []
    for _ in range(8):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        kept.append((reader, writer))
    # The first three made room for the last three.
    for reader, writer in kept[:3]:
        async with asyncio.timeout(WAIT_S):
            await reader.read()
        writer.close()
    for reader, writer in kept[3:]:
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(WAIT_S):
            assert (await reader.read()).count(b"HTTP/1.1 200 ") == 1
        writer.close()


def test_run_gives_back_what_main_gives() -> None:
    async def main() -> str:
        return type(asyncio.get_running_loop()).__module__

    assert run(main()).startswith("uvloop")


async def test_several_processes_share_one_port_only_when_asked_to(
    serve_it: Serve, clock: SteppedClock
) -> None:
    one = await serve_it(HeldStore(), share_port=True)
    other = await serve_it(HeldStore(), share_port=True, port=one.port)
    assert other.port == one.port
    alone = create_app(HeldStore(), WakeDouble(), secrets=(SECRET,), limits=LIMITS, clock=clock)
    with pytest.raises(OSError, match="in use"):
        await serve(alone, host="127.0.0.1", port=one.port, stop=asyncio.Event())
    one.stop.set()
    await one.task
    async with aiohttp.ClientSession() as session, session.get(f"{other.url}/healthz") as answer:
        assert answer.status == 200, "the other one goes on"
