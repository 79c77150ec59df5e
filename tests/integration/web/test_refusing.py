"""What the receiver refuses, with nothing stored: R3, R5, R8, R9, R10, malformed JSON, slow bodies; and what
that costs before anybody is known."""

import asyncio
import gzip
import random
import socket
import threading
import zlib
from contextlib import suppress

import pytest

from app.provider.signature import RefusalReason, Refused
from app.store import Store
from app.web.receiver import webhook
from app.web.server import METRICS, RECEIVER
from tests.integration.web.conftest import StartReceiver
from tests.integration.web.receiving import (
    PATH,
    SECRET,
    WAIT_S,
    Receiving,
    delivery_body,
    signed,
    stored,
    until,
)

MIB = 1024 * 1024
FORGED = f"X-Cloro-Timestamp: 1\r\nX-Cloro-Signature: v1={'0' * 64}\r\n"
"""Headers that may fit a body, so that it is read."""


async def test_r3_no_flipped_byte_passes(receiver: Receiving, store: Store, seed: int) -> None:
    body = delivery_body()
    headers = signed(body, receiver.now_s)
    signature = headers["X-Cloro-Signature"]
    rng = random.Random(seed)
    for place in range(len(signature)):
        wrong = rng.choice([c for c in "0123456789abcdefv=" if c != signature[place]])
        forged = signature[:place] + wrong + signature[place + 1 :]
        response = await receiver.post(body, headers | {"X-Cloro-Signature": forged})
        assert response.status == 401, f"seed {seed}, byte {place} of the signature"
    for place in rng.sample(range(len(body)), 60):
        forged_body = bytearray(body)
        forged_body[place] ^= 1 << rng.randrange(8)
        response = await receiver.post(bytes(forged_body), headers)
        assert response.status == 401, f"seed {seed}, byte {place} of the body"
    other = str(receiver.now_s + 1)
    assert (await receiver.post(body, headers | {"X-Cloro-Timestamp": other})).status == 401
    assert await stored(store) == []
    assert receiver.wake.calls == []


async def test_r3_a_forgery_is_not_parsed(receiver: Receiving) -> None:
    # The answer to a bad signature does not depend on what the body is.
    for body in (b"", b"{", b"\xff\xfe", delivery_body()):
        response = await receiver.post(body, signed(body, receiver.now_s, secret="whsec_guess"))
        assert (response.status, await response.json()) == (401, {"error": "mismatch"})


async def test_r5_a_replay_after_the_window_is_refused(receiver: Receiving, store: Store) -> None:
    body = delivery_body()
    headers = signed(body, receiver.now_s)
    receiver.clock.advance(301_000)
    response = await receiver.post(body, headers)
    assert (response.status, await response.json()) == (401, {"error": "stale"})
    receiver.clock.advance(-602_000)
    assert (await receiver.post(body, headers)).status == 401
    receiver.clock.advance(1_000)
    assert (await receiver.post(body, headers)).status == 200
    assert receiver.refused("stale") == 2
    assert len(await stored(store)) == 1


@pytest.mark.parametrize("missing", ["X-Cloro-Signature", "X-Cloro-Timestamp", "both"])
async def test_r8_without_headers_it_fails_closed(receiver: Receiving, store: Store, missing: str) -> None:
    body = delivery_body()
    headers = {
        k: v
        for k, v in signed(body, receiver.now_s).items()
        if "Cloro" not in k or missing not in (k, "both")
    }
    assert (await receiver.post(body, headers)).status == 401
    assert receiver.refused("missing_headers") == 1
    assert await stored(store) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"12",
        b"{",
        b'{"a":1}x',
        b'{"a":NaN}',
        b"{'a':1}",
        b'{"a":"\xff"}',
        b"\xef\xbb\xbf{}",
        rb'{"a":"\ud83d"',
        rb'["\ud83d"]',
        rb'{"a":"\ud83d","b":NaN}',
        b"{}\x00",
    ],
)
async def test_malformed_json_with_a_valid_signature(receiver: Receiving, store: Store, body: bytes) -> None:
    response = await receiver.post(body)
    assert (response.status, await response.json()) == (400, {"error": "malformed"})
    assert receiver.refused("malformed") == 1
    assert await stored(store) == []


async def _pieces(size: int, sent: list[int]) -> object:
    for _ in range(size // (64 * 1024)):
        yield b" " * (64 * 1024)
        sent.append(64 * 1024)


@pytest.mark.parametrize("mebibytes", [1, 16, 64])
async def test_r9_a_huge_body_is_refused_by_its_length(
    sqlite_store: Store, start_receiver: StartReceiver, mebibytes: int
) -> None:
    receiver = await start_receiver(sqlite_store, body_bytes_max=MIB - 1)
    # Only the head is sent: the refusal does not wait for the body.
    reader, writer = await asyncio.open_connection(receiver.client.host, receiver.client.port)
    writer.write(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {mebibytes * MIB}\r\n\r\n".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
    writer.close()
    assert receiver.refused("oversize") == 1
    assert await stored(sqlite_store) == []


async def test_r9_a_huge_body_without_a_length_is_cut_off(
    sqlite_store: Store, start_receiver: StartReceiver
) -> None:
    receiver = await start_receiver(sqlite_store, body_bytes_max=MIB)
    headers = signed(b"", receiver.now_s)
    response = await receiver.post(b"", headers, data=_pieces(2 * MIB, []))
    assert response.status == 413
    assert receiver.refused("oversize") == 1


async def test_r9_the_largest_allowed_body_is_taken(
    sqlite_store: Store, start_receiver: StartReceiver
) -> None:
    receiver = await start_receiver(sqlite_store, body_bytes_max=16 * MIB, waiting_bytes_max=64 * MIB)
    frame = len(delivery_body(text=""))
    body = delivery_body(text="x" * (16 * MIB - frame))
    assert len(body) == 16 * MIB
    assert (await receiver.post(body)).status == 200
    assert (await receiver.post(body + b" ")).status == 413


BOMB = gzip.compress(bytes(16 * MIB), 9)


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        pytest.param("gzip", gzip.compress(delivery_body()), id="gzip"),
        pytest.param("x-gzip", gzip.compress(b"") + gzip.compress(delivery_body()), id="two members"),
        pytest.param("deflate", zlib.compress(delivery_body()), id="deflate"),
        pytest.param("br", b"\x0b\x02\x80", id="br"),
        pytest.param("gzip, gzip", gzip.compress(BOMB), id="gzip of gzip"),
        pytest.param("identity, gzip", BOMB, id="a list"),
        pytest.param("gzip", BOMB, id="bomb"),
    ],
)
@pytest.mark.parametrize("over", ["the wire", "the text", "nothing"])
async def test_r10_what_is_compressed_is_refused_before_it_is_read(
    receiver: Receiving, store: Store, encoding: str, packed: bytes, over: str
) -> None:
    """The provider names no coding. Whatever was signed, not one byte is inflated to find out."""
    headers = signed(packed if over == "the wire" else delivery_body(), receiver.now_s)
    if over == "nothing":
        headers = {}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    answer = await head_alone(
        receiver, f"{head}Content-Encoding: {encoding}\r\nContent-Length: {len(packed)}"
    )
    assert answer.startswith("HTTP/1.1 415 ")
    assert "accept-encoding: identity" in answer.lower(), "which tells how it would be taken (RFC 9110)"
    response = await receiver.post(packed, headers | {"Content-Encoding": encoding})
    assert (response.status, await response.json()) == (415, {"error": "content_encoding"})
    assert await stored(store) == []


async def test_identity_is_no_coding(receiver: Receiving, store: Store) -> None:
    for n, name in enumerate(("identity", "Identity", "")):
        body = delivery_body(n)
        headers = signed(body, receiver.now_s) | {"Content-Encoding": name}
        assert (await receiver.post(body, headers)).status == 200
    assert len(await stored(store)) == 3


GOOD_HEX = "0" * 64


@pytest.mark.parametrize(
    ("timestamp", "signature", "reason"),
    [
        (None, None, "missing_headers"),
        ("1", None, "missing_headers"),
        (None, f"v1={GOOD_HEX}", "missing_headers"),
        ("soon", f"v1={GOOD_HEX}", "bad_timestamp"),
        ("9" * 4_000, f"v1={GOOD_HEX}", "bad_timestamp"),
        ("1", f"v2={GOOD_HEX}", "bad_scheme"),
        ("1", "v1=", "mismatch"),
        ("1", f"v1={GOOD_HEX}0", "mismatch"),
        ("1", "v1=" + "zz" * 32, "mismatch"),
        ("1", f"v1={'A' * 64}", "mismatch"),
    ],
)
@pytest.mark.parametrize("length", ["Content-Length: 900000", "Transfer-Encoding: chunked"])
async def test_f12_headers_that_fit_no_body_are_refused_before_it(
    receiver: Receiving, timestamp: str | None, signature: str | None, reason: str, length: str
) -> None:
    lines = [length]
    lines += [f"X-Cloro-Timestamp: {timestamp}"] if timestamp is not None else []
    lines += [f"X-Cloro-Signature: {signature}"] if signature is not None else []
    for asks_first in ([], ["Expect: 100-continue"]):
        assert (await head_alone(receiver, "\r\n".join(lines + asks_first))).startswith("HTTP/1.1 401 ")
    assert receiver.refused(reason) == 2


async def test_f12_where_unsigned_is_allowed_only_what_claims_a_signature_is_refused_by_it(
    sqlite_store: Store, start_receiver: StartReceiver
) -> None:
    receiver = await start_receiver(sqlite_store, allow_unsigned=True)
    assert (await receiver.post(delivery_body(), {})).status == 200
    claimed = "X-Cloro-Timestamp: 1\r\nX-Cloro-Signature: v1=\r\nContent-Length: 900000"
    assert (await head_alone(receiver, claimed)).startswith("HTTP/1.1 401 ")


@pytest.mark.parametrize("kind", ["unsigned", "compressed", "oversize", "unknown account"])
async def test_f12_a_long_body_that_is_refused_is_not_read_to_be_thrown_away(
    sqlite_store: Store, start_receiver: StartReceiver, kind: str
) -> None:
    receiver = await start_receiver(
        sqlite_store, body_bytes_max=(1 if kind == "oversize" else 256) * MIB, waiting_bytes_max=256 * MIB
    )
    path = f"{PATH}/nobody" if kind == "unknown account" else PATH
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {200 * MIB}\r\n"
    head += "Content-Encoding: gzip\r\n" if kind == "compressed" else ""
    sender = socket.create_connection((receiver.client.host, receiver.client.port))
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)

    def push() -> int:
        """Bytes that were taken from us until the connection ended."""
        taken = 0
        with sender, suppress(OSError):
            sender.sendall(f"{head}\r\n".encode())
            while True:
                taken += sender.send(bytes(MIB))
        return taken

    taken = await asyncio.to_thread(push)
    # What the kernel keeps for a socket of each side, and what was read before the head was looked at.
    assert taken < 40 * MIB
    assert (
        receiver.app[METRICS].registry.get_sample_value(
            "tallyhook_deliveries_total",
            {
                "answer": {
                    "unsigned": "401",
                    "compressed": "415",
                    "oversize": "413",
                    "unknown account": "404",
                }[kind]
            },
        )
        == 1
    )


async def test_f12_large_forgeries_are_checked_one_at_a_time_and_count_until_then(
    sqlite_store: Store, start_receiver: StartReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = await start_receiver(sqlite_store, waiting_bytes_max=3 * MIB)
    checking, most, gate = [0], [0], threading.Event()

    def slow(*_: object) -> Refused:
        checking[0] += 1
        most[0] = max(most[0], checking[0])
        gate.wait(WAIT_S)
        checking[0] -= 1
        return Refused(RefusalReason.MISMATCH)

    monkeypatch.setattr(webhook, "verify", slow)
    large = bytes(MIB)
    posts = [receiver.post_soon(large) for _ in range(3)]
    await until(lambda: receiver.app[RECEIVER].unverified_bytes > 2 * MIB)
    # A fourth would be more than all of them may hold together.
    assert (await receiver.post(large)).status == 503
    gate.set()
    assert [response.status for response in await asyncio.gather(*posts)] == [401] * 3
    assert most == [1]
    assert receiver.app[RECEIVER].unverified_bytes == 0


async def head_alone(receiver: Receiving, lines: str) -> str:
    """The head of the answer to a head whose body never comes."""
    reader, writer = await asyncio.open_connection(receiver.client.host, receiver.client.port)
    try:
        writer.write(f"POST {PATH} HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n".encode())
        async with asyncio.timeout(WAIT_S):
            return (await reader.readuntil(b"\r\n\r\n")).decode()
    finally:
        writer.transport.abort()


async def test_r11_a_slow_body_is_cut_off(sqlite_store: Store, start_receiver: StartReceiver) -> None:
    receiver = await start_receiver(sqlite_store, body_read_timeout_s=0.05)
    reader, writer = await asyncio.open_connection(receiver.client.host, receiver.client.port)
    writer.write(f"POST {PATH} HTTP/1.1\r\nHost: x\r\n{FORGED}Content-Length: 100\r\n\r\n{{".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"Connection: close" in head
    # And the connection is closed, so that it holds no place.
    while await reader.read(1024):
        pass
    writer.close()
    assert receiver.refused("read_timeout") == 1


async def test_a_body_that_breaks_off_is_nobody_s_error(
    sqlite_store: Store, start_receiver: StartReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = await start_receiver(sqlite_store)
    reader, writer = await asyncio.open_connection(receiver.client.host, receiver.client.port)
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\n{FORGED}Content-Length: 100\r\nExpect: 100-continue\r\n\r\n"
    writer.write(head.encode())
    # From this answer on the receiver waits for the body.
    assert (await reader.readline()).startswith(b"HTTP/1.1 100 ")
    writer.transport.abort()
    await until(lambda: receiver.refused("disconnected") == 1)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize(
    ("expect", "length", "status"),
    [
        ("100-Continue", 100, 100),
        ("100-continue", 2 * MIB, 413),
        ("a cheque", 100, 417),
        ("\udc80", 100, 417),
    ],
)
async def test_a_sender_that_asks_first_is_answered_before_it_sends(
    sqlite_store: Store, start_receiver: StartReceiver, expect: str, length: int, status: int
) -> None:
    receiver = await start_receiver(sqlite_store)
    reader, writer = await asyncio.open_connection(receiver.client.host, receiver.client.port)
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\n{FORGED}Content-Length: {length}\r\nExpect: {expect}\r\n\r\n"
    writer.write(head.encode(errors="surrogateescape"))
    assert (await reader.readline()).startswith(f"HTTP/1.1 {status} ".encode())
    writer.transport.abort()


async def test_the_secret_is_in_no_answer(receiver: Receiving) -> None:
    for headers in ({}, signed(b"{}", receiver.now_s - 9_999), signed(b"x", receiver.now_s)):
        response = await receiver.post(b"{}", headers)
        assert SECRET not in await response.text()
        assert SECRET not in str(response.headers)
