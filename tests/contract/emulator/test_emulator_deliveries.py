"""C-I: webhooks over real HTTP: body, headers, signature, ladder, identity."""

import asyncio
import hashlib
import hmac
import time
from typing import Any

import pytest
from emulator_harness import Arrival, Receiver, eventually

from app.emulator.engine.faults import FaultRates
from app.emulator.engine.options import DEFAULT_SECRET, Switches
from app.emulator.engine.webhooks import Deliveries, Delivery


def verify(arrival: Arrival, secret: str = DEFAULT_SECRET) -> bool:
    """A receiver's check, written apart from the signer."""
    stamp = arrival.headers["X-Cloro-Timestamp"]
    expected = hmac.new(secret.encode(), f"{stamp}.".encode() + arrival.raw, hashlib.sha256).hexdigest()
    return arrival.headers["X-Cloro-Signature"] == f"v1={expected}" and abs(time.time() - int(stamp)) <= 300


async def test_i1_body_is_the_status_answer_without_webhook(emulate: Any, receiver: Receiver) -> None:
    for edition in ("2025", "2026"):
        provider = await emulate(edition=edition)
        task_id = await provider.create("PERPLEXITY", webhook={"url": receiver.url}, idempotencyKey="k")
        await provider.step(60)
        body = await provider.status(task_id)
        body.pop("webhook", None)
        assert receiver.arrivals[-1].body == body
        assert body["task"]["idempotencyKey"] == "k"


async def test_i1_failed_tasks_are_reported_too(emulate: Any, receiver: Receiver) -> None:
    provider = await emulate(faults=FaultRates(fail=1.0))
    await provider.create(webhook={"url": receiver.url})
    await provider.step(600)
    (arrival,) = receiver.arrivals
    assert arrival.body["task"]["status"] == "FAILED"
    assert arrival.body["credits"]["creditsCharged"] == 0


async def test_i1_nothing_without_a_url_and_nothing_before_the_end(emulate: Any, receiver: Receiver) -> None:
    provider = await emulate(concurrency=1)
    await provider.create()
    await provider.create(webhook={"url": receiver.url})
    await provider.step(1)
    assert receiver.arrivals == []


async def test_i1_each_task_of_a_batch_fires_its_own(emulate: Any, receiver: Receiver) -> None:
    provider = await emulate()
    tasks = [provider.task(webhook={"url": receiver.url}) for _ in range(5)]
    await provider.post("/v1/async/task/batch", tasks)
    await provider.step(60)
    assert len({arrival.body["task"]["id"] for arrival in receiver.arrivals}) == 5


async def test_i2_headers_of_a_signed_delivery(emulate: Any, receiver: Receiver) -> None:
    provider = await emulate()
    task_id = await provider.create(webhook={"url": receiver.url})
    await provider.step(10)
    (arrival,) = receiver.arrivals
    assert arrival.headers["Content-Type"] == "application/json"
    assert arrival.headers["X-Cloro-Webhook-Id"] == f"{task_id}-1"
    assert arrival.headers["X-Cloro-Signature"].startswith("v1=")
    assert verify(arrival)


async def test_i2_unsigned(emulate: Any, receiver: Receiver) -> None:
    provider = await emulate(webhook_secret=None)
    await provider.create(webhook={"url": receiver.url})
    await provider.step(10)
    assert not [name for name in receiver.arrivals[0].headers if name.startswith("X-Cloro")]


async def test_i3_rotation_has_no_overlap(emulate: Any, receiver: Receiver) -> None:
    """From the rotation on everything is signed with the new secret, retries included."""
    provider = await emulate()
    receiver.script = [500]
    await provider.create(webhook={"url": receiver.url})
    await provider.step(10)
    await provider.control("organizations/default", {"webhookSecret": "whsec_new"})
    await provider.step(120)
    first, second = receiver.arrivals
    assert verify(first)
    assert verify(second, "whsec_new")
    await provider.control("organizations/default", {"webhookSecret": None})
    await provider.create(webhook={"url": receiver.url})
    await provider.step(10)
    assert "X-Cloro-Signature" not in receiver.arrivals[-1].headers


async def test_i5_what_falls_due_as_the_last_sender_ends_is_sent(
    emulate: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = Deliveries._settle
    copies: list[Delivery] = []

    def settled(self: Deliveries, delivery: Delivery, status: int, attempt: int) -> None:
        settle(self, delivery, status, attempt)
        if not copies:
            copies.append(Delivery(delivery.organization, delivery.task, 1))
            # Before the loop calls back that its sender has ended.
            asyncio.get_running_loop().call_soon(self._due, copies[0], 0.0)

    monkeypatch.setattr(Deliveries, "_settle", settled)
    provider = await emulate()
    await provider.create(webhook={"url": receiver.url})
    await provider.step(10)
    await eventually(lambda: len(receiver.arrivals) == 2)


async def test_i5_ladder(emulate: Any, receiver: Receiver) -> None:
    """Five attempts, 2, 4, 8 and 16 minutes after the preceding failure, then no more."""
    provider = await emulate(edition="2026")
    receiver.default = 500
    task_id = await provider.create(webhook={"url": receiver.url})
    await provider.step(6)
    assert len(receiver.arrivals) == 1
    for attempts, wait_s in enumerate((120, 240, 480, 960), start=1):
        await provider.step(wait_s - 10)
        assert len(receiver.arrivals) == attempts
        await provider.step(10)
        assert len(receiver.arrivals) == attempts + 1
    await provider.step(12 * 3600)
    assert len(receiver.arrivals) == 5
    ids = [arrival.headers["X-Cloro-Webhook-Id"] for arrival in receiver.arrivals]
    assert ids == [f"{task_id}-{attempt}" for attempt in range(1, 6)]
    assert len({arrival.raw for arrival in receiver.arrivals}) == 1
    assert all(verify(arrival) for arrival in receiver.arrivals)
    books = await provider.books()
    assert books["pending_deliveries"] == 0
    assert books["totals"]["deliveries_given_up"] == 1
    assert (await provider.status(task_id))["webhook"]["delivered"] is False


async def test_i5_half_an_hour_passes_in_one_step(emulate: Any, receiver: Receiver) -> None:
    provider = await emulate()
    receiver.script = [500, 503, 404, 410]
    await provider.create(webhook={"url": receiver.url})
    await provider.step(1830)
    assert len(receiver.arrivals) == 5
    assert (await provider.books())["tasks"][0]["deliveries"] == {"sent": 5, "acked": 1}


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_i5_any_2xx_acknowledges(emulate: Any, receiver: Receiver, status: int) -> None:
    provider = await emulate()
    receiver.script = [status]
    await provider.create(webhook={"url": receiver.url})
    await provider.step(1200)
    assert len(receiver.arrivals) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 404, 410, 429, 500, 503])
async def test_i5_everything_else_is_retried(emulate: Any, receiver: Receiver, status: int) -> None:
    """Redirects are not followed, and no status stops the ladder (L17, L20)."""
    provider = await emulate()
    receiver.script = [status]
    await provider.create(webhook={"url": receiver.url})
    await provider.step(6)
    assert len(receiver.arrivals) == 1
    await provider.step(120)
    assert len(receiver.arrivals) == 2


async def test_i5_nobody_listens(emulate: Any) -> None:
    provider = await emulate()
    await provider.create(webhook={"url": "http://127.0.0.1:9/hook"})
    await provider.step(3600)
    assert (await provider.books())["totals"]["deliveries_given_up"] == 1


async def test_i5_timeout_counts_as_failure(emulate: Any) -> None:
    import asyncio

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hung.append(writer)
        await reader.read()

    hung: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(never_answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    provider = await emulate(delivery_timeout_s=0.2, ladder_s=(1.0,))
    await provider.create(webhook={"url": f"http://127.0.0.1:{port}/"})
    await provider.step(10)
    assert (await provider.books())["totals"]["deliveries_given_up"] == 1
    assert len(hung) == 2
    for writer in hung:
        writer.close()
    server.close()
    await server.wait_closed()


async def test_i5_ladder_jitter(emulate: Any, receiver: Receiver) -> None:
    """C-L row L18: exact by default, a share of each wait at random on request."""
    provider = await emulate(switches=Switches(ladder_jitter=0.5))
    receiver.default = 500
    for _ in range(12):
        await provider.create(webhook={"url": receiver.url})
    await provider.step(6)
    first = len(receiver.arrivals)
    await provider.step(60)
    early = len(receiver.arrivals) - first
    await provider.step(120)
    late = len(receiver.arrivals) - first
    assert early < late == 12


async def test_i5_webhook_may_outrun_nothing_else(emulate: Any, receiver: Receiver) -> None:
    """Completion order, not submission order."""
    provider = await emulate()
    slow = await provider.create("CHATGPT", webhook={"url": receiver.url})
    quick = await provider.create("GOOGLE", webhook={"url": receiver.url})
    await provider.step(120)
    assert [arrival.body["task"]["id"] for arrival in receiver.arrivals] == [quick, slow]


async def test_i5_delivery_and_billing_are_independent(emulate: Any) -> None:
    provider = await emulate()
    await provider.create(webhook={"url": "http://127.0.0.1:9/hook"})
    await provider.step(3600)
    assert (await provider.books())["charged"] == 3


async def test_deliveries_survive_a_scaled_clock(emulate: Any, receiver: Receiver) -> None:
    """The ladder on a clock that runs 6,000 times as fast: half an hour in a third of a second."""
    provider = await emulate(scale=6000.0)
    receiver.script = [500] * 4
    await provider.create(webhook={"url": receiver.url})
    await eventually(lambda: len(receiver.arrivals) == 5)
    assert all(verify(arrival) for arrival in receiver.arrivals)
    books = await provider.quiet()
    assert books["totals"]["deliveries_acked"] == 1
