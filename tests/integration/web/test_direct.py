"""Deliveries that a connection has taken as they arrive, and what it leaves to the handler (R3, R24)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.web.receiver.direct import DirectConnection
from app.web.receiver.webhook import Receiver
from app.web.server import RECEIVER
from tests.integration.web.conftest import StartReceiver
from tests.integration.web.receiving import PATH, HeldStore, Receiving, delivery_body, signed, until


class Line:
    """One connection to a receiver whose commits are held."""

    def __init__(self, receiver: Receiving, store: HeldStore, reader: Any, writer: Any) -> None:
        self.receiver, self.store, self.reader, self.writer = receiver, store, reader, writer

    def send(self, body: bytes, *, until_byte: int | None = None, path: str = PATH, **changed: str) -> bytes:
        """A signed delivery, or the first bytes of it; gives back the rest."""
        headers = (
            signed(body, self.receiver.now_s) | {"Host": "x", "Content-Length": str(len(body))} | changed
        )
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        raw = "\r\n".join(lines).encode() + body
        end = len(raw) if until_byte is None else until_byte
        self.writer.write(raw[:end])
        return raw[end:]

    async def status(self) -> int:
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        await self.reader.readexactly(int(length.split(b":")[1]))
        return int(head[9:12])


@pytest.fixture
async def line(start_receiver: StartReceiver, held: HeldStore) -> AsyncIterator[Line]:
    receiver = await start_receiver(held)
    reader, writer = await asyncio.open_connection(receiver.client.host, receiver.client.port)
    yield Line(receiver, held, reader, writer)
    held.gate.set()
    writer.close()


@pytest.fixture
def handled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of what the handler was called with."""
    paths: list[str] = []
    handle = Receiver._verify_and_store

    async def noting(self: Receiver, request: Any) -> Any:
        paths.append(request.path)
        return await handle(self, request)

    monkeypatch.setattr(Receiver, "_verify_and_store", noting)
    return paths


async def first_answered(line: Line) -> None:
    """From here on aiohttp's task waits for the next message."""
    line.store.gate.set()
    line.send(delivery_body(0))
    assert await line.status() == 200
    line.store.gate.clear()


async def test_a_whole_delivery_never_reaches_the_handler(line: Line, handled: list[str]) -> None:
    await first_answered(line)
    handled.clear()
    line.store.gate.set()
    for number in range(1, 4):
        line.send(delivery_body(number))
        assert await line.status() == 200
    assert handled == []
    assert len(line.store.committed) == 4
    assert line.receiver.count("tallyhook_deliveries_total", answer="200") == 4


async def test_r3_nothing_is_answered_before_the_commit(line: Line) -> None:
    await first_answered(line)
    line.send(delivery_body(1))
    await until(lambda: len(line.store.groups) == 2)
    answer = asyncio.ensure_future(line.status())
    await asyncio.sleep(0.05)
    assert not answer.done()
    line.store.gate.set()
    assert await answer == 200


async def test_a_commit_that_fails_is_answered_with_503(line: Line, handled: list[str]) -> None:
    await first_answered(line)
    handled.clear()
    line.store.error = OSError("the disk is full")
    line.store.gate.set()
    line.send(delivery_body(1))
    assert await line.status() == 503
    # Not committed, and not tried a second time behind the sender's back.
    assert (len(line.store.groups), handled) == (2, [])
    line.store.error = None
    line.send(delivery_body(1))
    assert await line.status() == 200


@pytest.mark.parametrize(
    ("body", "changed", "status"),
    [
        (delivery_body(1), {"X-Cloro-Signature": f"v1={'0' * 64}"}, 401),
        (delivery_body(1), {"X-Cloro-Signature": ""}, 401),
        (b"[1, 2]", {}, 400),
        (delivery_body(1), {"Content-Encoding": "gzip"}, 415),
        (delivery_body(1), {"Expect": "100-continuous"}, 417),
    ],
)
async def test_what_is_refused_keeps_its_connection(
    line: Line, body: bytes, changed: dict[str, str], status: int
) -> None:
    await first_answered(line)
    line.store.gate.set()
    line.send(body, **changed)
    assert await line.status() == status
    line.send(delivery_body(2))
    assert await line.status() == 200
    assert len(line.store.committed) == 2


async def test_a_body_in_pieces_is_the_handlers(line: Line, handled: list[str]) -> None:
    await first_answered(line)
    handled.clear()
    line.store.gate.set()
    rest = line.send(delivery_body(1), until_byte=-10)
    await until(lambda: bool(handled))
    line.writer.write(rest)
    assert await line.status() == 200


async def test_what_is_sent_ahead_is_answered_in_its_order(line: Line) -> None:
    await first_answered(line)
    line.send(delivery_body(1))
    await until(lambda: len(line.store.groups) == 2)
    line.send(delivery_body(2), **{"X-Cloro-Signature": ""})
    line.send(delivery_body(3))
    line.store.gate.set()
    assert [await line.status() for _ in range(3)] == [200, 401, 200]


async def test_r15_a_sender_that_goes_changes_nothing(line: Line) -> None:
    await first_answered(line)
    line.send(delivery_body(1))
    await until(lambda: len(line.store.groups) == 2)
    line.writer.close()
    await line.writer.wait_closed()
    line.store.gate.set()
    await until(lambda: len(line.store.committed) == 2)
    await line.receiver.app[RECEIVER].wait_until_idle(20.0)
    await until(lambda: line.receiver.waiting == 0)


async def test_r24_an_end_waits_for_the_answer(line: Line) -> None:
    await first_answered(line)
    line.send(delivery_body(1))
    await until(lambda: len(line.store.groups) == 2)
    idle = asyncio.ensure_future(line.receiver.app[RECEIVER].wait_until_idle(20.0))
    await asyncio.sleep(0.02)
    assert not idle.done()
    server: Any = line.receiver.client.server
    (connection,) = (c for c in server.runner.server.connections if c._request_in_progress)
    assert isinstance(connection, DirectConnection)
    connection.close()  # as aiohttp does it to all of them first
    ending = asyncio.ensure_future(connection.shutdown(20.0))
    await asyncio.sleep(0.02)
    line.store.gate.set()
    assert await line.status() == 200
    await asyncio.gather(idle, ending)
