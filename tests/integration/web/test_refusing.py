"""What the receiver refuses, with nothing stored: R3, R5, R8, R9, R10, malformed JSON, slow bodies."""

import asyncio
import gzip
import random
import zlib

import pytest

from app.store import Store
from tests.integration.web.conftest import StartReceiver
from tests.integration.web.receiving import PATH, SECRET, Receiving, delivery_body, signed, stored, until

MIB = 1024 * 1024


async def test_r3_no_flipped_byte_passes(receiver: Receiving, store: Store) -> None:
    seed = random.randrange(2**32)
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
        b"", b"null", b"[]", b'"text"', b"12", b"{", b'{"a":1}x', b'{"a":NaN}', b"{'a':1}", b'{"a":"\xff"}',
        b"\xef\xbb\xbf{}", rb'{"a":"\ud83d"', rb'["\ud83d"]', rb'{"a":"\ud83d","b":NaN}', b"{}\x00",
    ],
)  # fmt: skip
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


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_compressed_body_is_verified_as_it_was_before(
    receiver: Receiving, store: Store, encoding: str
) -> None:
    body = delivery_body()
    packed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    headers = signed(body, receiver.now_s) | {"Content-Encoding": encoding}
    assert (await receiver.post(body, headers, data=packed)).status == 200
    assert [delivery.body for delivery in await stored(store)] == [body]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_r10_a_bomb_is_refused(
    sqlite_store: Store, start_receiver: StartReceiver, encoding: str
) -> None:
    receiver = await start_receiver(sqlite_store, body_bytes_max=MIB)
    bomb = (gzip.compress if encoding == "gzip" else zlib.compress)(b"\0" * (200 * MIB))
    assert len(bomb) < MIB
    headers = signed(bomb, receiver.now_s) | {"Content-Encoding": encoding}
    assert (await receiver.post(bomb, headers)).status == 413
    assert receiver.refused("oversize") == 1


@pytest.mark.parametrize(
    ("encoding", "data", "status"),
    [
        ("gzip", b"this is not gzip", 400),
        ("gzip", gzip.compress(delivery_body())[:-9], 400),
        ("gzip", gzip.compress(delivery_body()) + b"more", 400),
        ("deflate", b"\xff\xff\xff", 400),
        ("br", b"\x0b\x02\x80", 415),
        ("zstd", b"(\xb5/\xfd", 415),
        ("gzip, gzip", gzip.compress(gzip.compress(delivery_body())), 415),
    ],
)
async def test_r10_a_bad_encoding_is_refused(
    sqlite_store: Store, start_receiver: StartReceiver, encoding: str, data: bytes, status: int
) -> None:
    receiver = await start_receiver(sqlite_store)
    headers = signed(delivery_body(), receiver.now_s) | {"Content-Encoding": encoding}
    assert (await receiver.post(delivery_body(), headers, data=data)).status == status
    assert await stored(sqlite_store) == []


async def test_r11_a_slow_body_is_cut_off(sqlite_store: Store, start_receiver: StartReceiver) -> None:
    receiver = await start_receiver(sqlite_store, body_read_timeout_s=0.05)
    reader, writer = await asyncio.open_connection(receiver.client.host, receiver.client.port)
    writer.write(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
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
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n"
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
async def test_a_sender_that_asks_first_is_told_before_it_sends(
    sqlite_store: Store, start_receiver: StartReceiver, expect: str, length: int, status: int
) -> None:
    receiver = await start_receiver(sqlite_store)
    reader, writer = await asyncio.open_connection(receiver.client.host, receiver.client.port)
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nExpect: {expect}\r\n\r\n"
    writer.write(head.encode(errors="surrogateescape"))
    assert (await reader.readline()).startswith(f"HTTP/1.1 {status} ".encode())
    writer.transport.abort()


async def test_the_secret_is_in_no_answer(receiver: Receiving) -> None:
    for headers in ({}, signed(b"{}", receiver.now_s - 9_999), signed(b"x", receiver.now_s)):
        response = await receiver.post(b"{}", headers)
        assert SECRET not in await response.text()
        assert SECRET not in str(response.headers)
