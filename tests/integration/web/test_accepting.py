"""What the receiver takes, on both databases: R1, R4, R7, R20, R21, and what it keeps of it."""

import asyncio
import json
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import sqlalchemy as sa
from aiohttp.test_utils import TestClient
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.settlement import Source
from app.provider.signature import Verified, answer_challenge, verify
from app.store import Store
from app.store.tables import deliveries
from app.web.receiver import webhook
from tests.integration.web.conftest import StartReceiver
from tests.integration.web.receiving import (
    OLD_SECRET,
    PATH,
    SECRET,
    WAIT_S,
    Receiving,
    delivery_body,
    signed,
    stored,
    until,
)


async def test_a_delivery_is_kept_as_it_came_and_can_be_verified_again(
    receiver: Receiving, store: Store
) -> None:
    body = delivery_body()
    response = await receiver.post(body)
    assert (response.status, await response.json()) == (200, {"received": True})
    (kept,) = await stored(store)
    assert kept.body == body
    assert kept.source == Source.DELIVERY
    assert kept.received_at_ms == receiver.clock()
    assert kept.webhook_id == "b27a21e1-7c39-4aa2-a347-23e828c426f9-1"
    assert verify([SECRET], kept.signed_at, kept.signature, kept.body, receiver.now_s, 300) == Verified(
        receiver.now_s, 0
    )
    await until(lambda: receiver.wake.taken == [kept.id])


async def test_r1_fifty_copies_at_once_are_one_row_that_counts_them(
    receiver: Receiving, store: Store
) -> None:
    body = delivery_body()
    responses = await asyncio.gather(*(receiver.post(body) for _ in range(50)))
    assert [response.status for response in responses] == [200] * 50
    (kept,) = await stored(store)
    assert kept.body == body
    assert await repeats(store) == [49]
    assert receiver.count("tallyhook_deliveries_repeated_total") == 49
    await until(lambda: receiver.wake.taken == [kept.id])


async def test_r1_every_attempt_of_the_provider_is_a_row(receiver: Receiving, store: Store) -> None:
    """Each is signed anew; two of the same second differ in their number alone."""
    body = delivery_body()
    for attempt in (1, 2):
        headers = signed(body, receiver.now_s, attempt=attempt)
        assert (await receiver.post(body, headers)).status == 200
    assert (await receiver.post(body, signed(body, receiver.now_s + 1, attempt=2))).status == 200
    assert await repeats(store) == [0, 0, 0]


async def test_r4_a_replay_inside_the_window_is_only_counted(receiver: Receiving, store: Store) -> None:
    body = delivery_body()
    headers = signed(body, receiver.now_s)
    assert (await receiver.post(body, headers)).status == 200
    (first,) = await stored(store)
    await until(lambda: receiver.wake.taken == [first.id])
    for _ in range(3):
        receiver.clock.advance(99_000)
        assert (await receiver.post(body, headers)).status == 200
    assert await stored(store) == [first]
    assert await repeats(store) == [3]
    other = delivery_body(2)
    assert (await receiver.post(other)).status == 200
    await until(lambda: len(receiver.wake.taken) == 2)
    assert len(set(receiver.wake.taken)) == 2, "nobody is woken for a repeat"


async def test_r4_one_captured_delivery_makes_few_rows_whatever_is_written_next_to_the_signature(
    receiver: Receiving, store: Store
) -> None:
    """Neither the webhook's id nor the scheme before the hex is covered by the signature."""
    body = delivery_body()
    headers = signed(body, receiver.now_s)
    bare = headers | {"X-Cloro-Signature": headers["X-Cloro-Signature"].removeprefix("v1=")}
    made_up = [f"{n:032x}" for n in range(15)] + [f"x-{n}" for n in range(15)] + ["", "-", "é-2", "1-2-3"]
    sent = [each | {"X-Cloro-Webhook-Id": name} for name in made_up for each in (headers, bare)]
    sent.append({k: v for k, v in headers.items() if k != "X-Cloro-Webhook-Id"})
    answers = await asyncio.gather(*(receiver.post(body, each) for each in sent))
    assert [answer.status for answer in answers] == [200] * len(sent)
    kept = await repeats(store)
    assert len(kept) == 10
    assert sum(kept) + len(kept) == len(sent)


async def repeats(store: Store) -> list[int]:
    """How often each stored delivery came again, the oldest first."""
    query = sa.select(deliveries.c.repeats).order_by(deliveries.c.id)
    return await store.db.read(lambda connection: _all(connection, query))


async def _all(connection: AsyncConnection, query: sa.Select[tuple[int]]) -> list[int]:
    return list(await connection.scalars(query))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{}", id="empty object"),
        pytest.param(b'{"event":"task.finished","version":9}', id="another edition"),
        pytest.param(delivery_body(0x999), id="R21 a task we never sent"),
        pytest.param(b' {"task":{"status":"EXPLODED"}}\r\n', id="unknown status, white space"),
        pytest.param(rb'{"response":{"text":"cut \ud83d"}}', id="half a surrogate pair"),
        pytest.param(rb'{"a":"\ud83d","n":' + b"9" * 5_000 + b"}", id="half a pair and a huge number"),
        pytest.param(rb'{"response":{"text":"nul \u0000"}}', id="NUL"),
        pytest.param(b'{"n":' + b"9" * 5_000 + b',"f":1e99999}', id="huge numbers"),
        pytest.param(b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}", id="deep nesting"),
        pytest.param(b'{"a":1,"a":2}', id="repeated key"),
    ],
)
async def test_r20_any_json_object_is_stored(receiver: Receiving, store: Store, body: bytes) -> None:
    assert (await receiver.post(body)).status == 200
    assert [delivery.body for delivery in await stored(store)] == [body]


async def test_r7_both_secrets_hold_while_rotating(store: Store, start_receiver: StartReceiver) -> None:
    receiver = await start_receiver(store, secrets=(SECRET, OLD_SECRET))
    body = delivery_body()
    for secret in (SECRET, OLD_SECRET):
        response = await receiver.post(body, signed(body, receiver.now_s, secret=secret))
        assert response.status == 200
    assert receiver.count("tallyhook_deliveries_old_secret_total") == 1
    # Afterwards only the new one does.
    rotated = await start_receiver(store, secrets=(SECRET,))
    response = await rotated.post(body, signed(body, rotated.now_s, secret=OLD_SECRET))
    assert response.status == 401
    assert rotated.refused("mismatch") == 1
    assert len(await stored(store)) == 2


async def test_odd_headers_are_stored_bounded_and_printable(receiver: Receiving, store: Store) -> None:
    body = delivery_body()
    headers = signed(body, receiver.now_s) | {"X-Cloro-Webhook-Id": "é\u009f" + "x" * 5_000}
    assert (await receiver.post(body, headers)).status == 200
    (kept,) = await stored(store)
    assert kept.webhook_id is not None
    assert len(kept.webhook_id) == 200
    assert kept.webhook_id.isascii()
    assert kept.webhook_id.isprintable()


async def test_a_large_body_is_checked_off_the_loop_and_stored(receiver: Receiving, store: Store) -> None:
    body = delivery_body(text="x" * 900_000)
    assert (await receiver.post(body)).status == 200
    assert [delivery.body for delivery in await stored(store)] == [body]


async def test_a_delivery_without_wake_is_due_for_the_sweep(
    store: Store, start_receiver: StartReceiver
) -> None:
    receiver = await start_receiver(store, sweep_after_s=10.0)
    await receiver.post(delivery_body())
    (kept,) = await stored(store)
    arguments = {"limit": 10, "next_due_at_ms": 0}
    assert await store.inbox.claim_overdue_deliveries(now_ms=receiver.clock() + 9_999, **arguments) == []
    assert await store.inbox.claim_overdue_deliveries(now_ms=receiver.clock() + 10_000, **arguments) == [
        kept.id
    ]


async def test_the_challenge_proves_the_secret(store: Store, start_receiver: StartReceiver) -> None:
    receiver = await start_receiver(store, secrets=(SECRET, OLD_SECRET))
    client: TestClient = receiver.client
    challenge = "0123456789abcdef" * 2
    async with client.get(PATH, params={"challenge": challenge}) as response:
        assert response.status == 200
        assert await response.json() == {"answer": answer_challenge(SECRET, challenge)}
    for wrong in ("", "0123456789abcde", "0" * 65, "0123456789ABCDEF", "0123456789abcdef\n", "1700000000.{}"):
        async with client.get(PATH, params={"challenge": wrong}) as response:
            assert response.status == 400
            assert SECRET not in await response.text()


async def test_unsigned_deliveries_are_taken_only_when_allowed(
    store: Store, start_receiver: StartReceiver
) -> None:
    receiver = await start_receiver(store, secrets=(), allow_unsigned=True)
    body = delivery_body()
    assert (await receiver.post(body, {})).status == 200
    # One that is signed cannot be verified without a secret; the operator chose not to.
    assert (await receiver.post(body, signed(body, receiver.now_s))).status == 200
    assert (await receiver.post(b"[1]", {})).status == 400
    assert len(await stored(store)) == 2


async def test_where_unsigned_is_allowed_a_signature_that_is_there_must_hold(
    store: Store, start_receiver: StartReceiver
) -> None:
    receiver = await start_receiver(store, allow_unsigned=True)
    body = delivery_body()
    assert (await receiver.post(body, {})).status == 200
    assert (await receiver.post(body, signed(body, receiver.now_s, secret="whsec_other"))).status == 401
    assert len(await stored(store)) == 1


async def test_json_text_is_not_changed(receiver: Receiving, store: Store) -> None:
    body = json.dumps({"b": 1.10, "a": [1, 2]}, indent=3).encode() + b"\n\n"
    assert (await receiver.post(body)).status == 200
    assert (await stored(store))[0].body == body


async def test_w10_a_large_body_holds_up_nobody(
    receiver: Receiving, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long its signature takes: here, until another delivery is answered."""
    large = delivery_body(1, "x" * 900_000)
    is_checking, is_answered = threading.Event(), threading.Event()
    waited: list[bool] = []

    def slow(
        secrets: Sequence[str], timestamp: str | None, signature: str | None, body: bytes, *rest: int
    ) -> Any:
        if len(body) == len(large):
            is_checking.set()
            waited.append(is_answered.wait(WAIT_S))
        return verify(secrets, timestamp, signature, body, *rest)

    monkeypatch.setattr(webhook, "verify", slow)
    posting = asyncio.create_task(receiver.post(large))
    await until(is_checking.is_set)
    assert (await receiver.post(delivery_body(2))).status == 200
    is_answered.set()
    assert (await posting).status == 200
    assert waited == [True]
    assert len(await stored(store)) == 2


@pytest.mark.parametrize(
    ("version", "connection", "stays_open"),
    [("1.1", "", True), ("1.1", "close", False), ("1.0", "", False), ("1.0", "keep-alive", True)],
)
async def test_an_acknowledgement_is_whole_http_on_any_connection(
    receiver: Receiving, store: Store, version: str, connection: str, stays_open: bool
) -> None:
    reader, writer = await asyncio.open_connection(receiver.client.host, receiver.client.port)
    for number in range(2 if stays_open else 1):
        body = delivery_body(number)
        headers = signed(body, receiver.now_s) | {"Host": "a", "Content-Length": str(len(body))}
        if connection:
            headers["Connection"] = connection
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"POST {PATH} HTTP/{version}\r\n{head}\r\n".encode() + body)
        async with asyncio.timeout(WAIT_S):
            status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            fields = dict(line.split(": ", 1) for line in lines if line)
            assert status == f"HTTP/{version} 200 OK"
            assert fields["Content-Type"] == "application/json"
            assert abs((parsedate_to_datetime(fields["Date"]) - datetime.now(UTC)).total_seconds()) < WAIT_S
            assert json.loads(await reader.readexactly(int(fields["Content-Length"]))) == {"received": True}
    if not stays_open:
        async with asyncio.timeout(WAIT_S):
            assert await reader.read() == b""
    writer.close()
    assert len(await stored(store)) == (2 if stays_open else 1)
