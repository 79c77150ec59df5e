"""Group commit: no 2xx before the commit, many deliveries share one, failure acknowledges nothing, bounds
hold, an ended client changes nothing (R12 to R16), and the end is orderly (R24).
"""

import asyncio

import pytest
from msgspec.structs import replace

from app.domain.delivery import RawDelivery
from app.domain.task import new_id
from app.ports import StoreUnavailable
from app.store import Store
from app.web.receiver import inbox
from app.web.receiver.inbox import InboxFull
from app.web.server import INBOX, PROBES
from tests.integration.web.conftest import StartReceiver
from tests.integration.web.receiving import WAIT_S, HeldStore, Receiving, delivery_body, signed, stored, until


async def several_waiting(
    receiver: Receiving, number: int, *, first: int = 0
) -> list["asyncio.Task[object]"]:
    """`number` deliveries whose answers are held back, numbered from `first` on."""
    before = receiver.waiting
    posts = [receiver.post_soon(delivery_body(first + i)) for i in range(number)]
    await until(lambda: receiver.waiting == before + number)
    return posts  # type: ignore[return-value]


async def answers(posts: list["asyncio.Task[object]"]) -> list[int]:
    return [response.status for response in await asyncio.gather(*posts)]  # type: ignore[attr-defined]


async def test_r14_no_2xx_before_the_commit(start_receiver: StartReceiver, held: HeldStore) -> None:
    receiver = await start_receiver(held)
    post = receiver.post_soon(delivery_body())
    await until(lambda: len(held.groups) == 1)
    # The commit runs. Another whole exchange over the same server is long enough for an early answer.
    async with receiver.client.get("/healthz") as response:
        assert response.status == 200
    assert not post.done()
    assert held.committed == []
    assert receiver.wake.calls == []
    held.gate.set()
    assert (await post).status == 200
    assert [delivery.body for delivery in held.committed] == [delivery_body()]
    await until(lambda: receiver.wake.taken == [held.committed[0].id])


async def test_deliveries_gather_while_a_commit_runs(start_receiver: StartReceiver, held: HeldStore) -> None:
    receiver = await start_receiver(held)
    first = await several_waiting(receiver, 1)
    await until(lambda: len(held.groups) == 1)
    rest = await several_waiting(receiver, 40)
    assert [len(group) for group in held.groups] == [1]
    held.gate.set()
    assert await answers(first + rest) == [200] * 41
    assert [len(group) for group in held.groups] == [1, 40]
    assert receiver.count("tallyhook_inbox_commit_deliveries_count") == 2
    assert receiver.count("tallyhook_inbox_commit_deliveries_sum") == 41


async def test_a_group_has_a_largest_size(start_receiver: StartReceiver, held: HeldStore) -> None:
    receiver = await start_receiver(held, commit_size_max=16)
    first = await several_waiting(receiver, 1)
    await until(lambda: len(held.groups) == 1)
    rest = await several_waiting(receiver, 40)
    held.gate.set()
    assert await answers(first + rest) == [200] * 41
    assert [len(group) for group in held.groups] == [1, 16, 16, 8]


@pytest.fixture
async def after_a_group(
    start_receiver: StartReceiver, held: HeldStore, monkeypatch: pytest.MonkeyPatch
) -> Receiving:
    """A receiver that has committed four at once, and from now on waits as long as a test may take."""
    receiver = await start_receiver(held)
    first = await several_waiting(receiver, 1)
    await until(lambda: len(held.groups) == 1)
    rest = await several_waiting(receiver, inbox.LINGER_FROM, first=1)
    held.gate.set()
    assert await answers(first + rest) == [200] * 5
    monkeypatch.setattr(inbox, "LINGER_S", WAIT_S)
    return receiver


async def test_while_deliveries_keep_coming_they_share_a_commit(
    after_a_group: Receiving, held: HeldStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the machine stands still meanwhile: who sends is due before who waits, each time."""
    monkeypatch.setattr(inbox, "LINGER_STEP_S", 0.1)
    monkeypatch.setattr(inbox, "LINGER_SIZE", 6)
    queue, acknowledged = after_a_group.app[INBOX], []
    for number in range(6):
        queue.queue_delivery(replace(held.groups[0][0], id=new_id(number)), acknowledged.append)
        await asyncio.sleep(0.03)
    await until(lambda: acknowledged == [None] * 6)
    assert [len(group) for group in held.groups] == [1, 4, 6]


async def test_what_comes_alone_is_not_kept_waiting(
    after_a_group: Receiving, held: HeldStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing comes after it: it waits for one step.
    assert (await after_a_group.post(delivery_body(10))).status == 200
    # The one before was alone: it waits for none.
    monkeypatch.setattr(inbox, "LINGER_STEP_S", WAIT_S)
    assert (await after_a_group.post(delivery_body(11))).status == 200
    assert [len(group) for group in held.groups] == [1, 4, 1, 1]


async def test_a_failed_commit_acknowledges_none_of_its_group(
    start_receiver: StartReceiver, held: HeldStore
) -> None:
    receiver = await start_receiver(held)
    held.error = OSError("disk full")
    posts = await several_waiting(receiver, 12)
    held.gate.set()
    responses = await asyncio.gather(*posts)
    assert [response.status for response in responses] == [503] * 12  # type: ignore[attr-defined]
    assert all("Retry-After" in response.headers for response in responses)  # type: ignore[attr-defined]
    assert held.committed == []
    assert receiver.wake.calls == []
    assert receiver.waiting == 0
    # The next one is none the worse for it.
    held.error = None
    assert (await receiver.post(delivery_body())).status == 200


async def test_r16_a_database_that_is_gone_gives_503(
    store: Store, start_receiver: StartReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = await start_receiver(store)
    real = store.inbox.store_deliveries

    async def broken(raw: list[RawDelivery], *, due_at_ms: int, more: object) -> None:
        # A column that takes no null: fails in the database, after a good row of the same transaction.
        bad = replace(raw[0], id=new_id(0), received_at_ms=None)  # type: ignore[arg-type]
        await real([*raw, bad], due_at_ms=due_at_ms)

    monkeypatch.setattr(store.inbox, "store_deliveries", broken)
    assert (await receiver.post(delivery_body())).status == 503
    monkeypatch.undo()
    assert await stored(store) == []
    assert (await receiver.post(delivery_body())).status == 200


async def test_a_commit_that_takes_too_long_is_given_up(
    start_receiver: StartReceiver, held: HeldStore
) -> None:
    receiver = await start_receiver(held, commit_timeout_s=0.3)
    # On a machine that is busy, some come when the commit of the first is given up already.
    posts = [receiver.post_soon(delivery_body(i)) for i in range(3)]
    assert await answers(posts) == [503] * 3
    await until(lambda: app_refusal(receiver) is None)
    held.gate.set()
    assert (await receiver.post(delivery_body())).status == 200


async def test_r16_a_database_that_hangs_holds_nobody(start_receiver: StartReceiver, held: HeldStore) -> None:
    held.deaf = True
    receiver = await start_receiver(held, commit_timeout_s=0.2)
    # Of its group, gathered behind it, or come when it hangs already.
    posts = [receiver.post_soon(delivery_body(i)) for i in range(6)]
    assert await answers(posts) == [503] * 6
    # As long as it hangs nothing more is taken, not even its body.
    response = await receiver.post(delivery_body())
    assert (response.status, await response.json()) == (503, {"error": "stalled"})
    assert len(held.groups) == 1
    async with receiver.client.get("/readyz") as ready:
        assert ready.status == 503
        assert "inbox stalled" in (await ready.json())["reasons"]
    held.gate.set()
    await until(lambda: app_refusal(receiver) is None)
    assert receiver.waiting == 0
    assert (await receiver.post(delivery_body())).status == 200


async def test_r16_nothing_waits_in_vain_until_the_database_takes_writes_again(
    start_receiver: StartReceiver, held: HeldStore
) -> None:
    receiver = await start_receiver(held, commit_timeout_s=0.2)
    held.error = StoreUnavailable("cut off")
    assert (await receiver.post(delivery_body())).status == 503
    for _ in range(3):
        response = await receiver.post(delivery_body())
        assert (response.status, await response.json()) == (503, {"error": "stalled"})
    assert len(held.groups) == 1, "none of them was tried"
    held.error = None
    held.gate.set()
    await until(lambda: app_refusal(receiver) is None)
    assert (await receiver.post(delivery_body())).status == 200


def app_refusal(receiver: Receiving) -> str | None:
    return receiver.app[INBOX].refusal_reason


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param({"deliveries_waiting_max": 5}, id="by number"),
        pytest.param({"waiting_bytes_max": 5 * len(delivery_body()), "body_bytes_max": 500}, id="by bytes"),
    ],
)
async def test_r12_above_the_bound_it_sheds_before_reading(
    start_receiver: StartReceiver, held: HeldStore, limits: dict[str, int]
) -> None:
    receiver = await start_receiver(held, **limits)
    posts = await several_waiting(receiver, 5)
    reader, writer = await asyncio.open_connection(receiver.client.host, receiver.client.port)
    # No body follows; the answer comes all the same.
    writer.write(b"POST /webhooks/cloro HTTP/1.1\r\nHost: x\r\nContent-Length: 300\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 5" in head
    writer.close()
    assert receiver.refused("full") == 1
    held.gate.set()
    assert await answers(posts) == [200] * 5
    assert (await receiver.post(delivery_body())).status == 200
    assert len(held.committed) == 6


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param({"deliveries_waiting_max": 3}, id="by number"),
        pytest.param(
            {"waiting_bytes_max": 4 * len(delivery_body()) - 1, "body_bytes_max": 500}, id="by bytes"
        ),
    ],
)
async def test_r12_bodies_that_were_read_while_it_filled_are_not_taken_either(
    start_receiver: StartReceiver, held: HeldStore, limits: dict[str, int]
) -> None:
    receiver = await start_receiver(held, **limits)
    posts = await several_waiting(receiver, 3)
    await until(lambda: len(held.groups) == 1)
    one_more = replace(held.groups[0][0], id=new_id(0))
    with pytest.raises(InboxFull, match="full"):
        async with asyncio.timeout(WAIT_S):
            await receiver.app[INBOX].commit_delivery(one_more)
    held.gate.set()
    assert await answers(posts) == [200] * 3
    await receiver.app[INBOX].commit_delivery(one_more)
    assert len(held.committed) == 4


async def test_r12_a_burst_is_shed_and_never_half_taken(store: Store, start_receiver: StartReceiver) -> None:
    receiver = await start_receiver(store, deliveries_waiting_max=10)
    statuses = [
        response.status
        for response in await asyncio.gather(*(receiver.post(delivery_body(i)) for i in range(200)))
    ]
    assert set(statuses) <= {200, 503}
    assert len(await stored(store)) == statuses.count(200)
    assert receiver.waiting == 0


async def test_r15_a_client_that_goes_away_does_not_undo_the_commit(
    start_receiver: StartReceiver, held: HeldStore
) -> None:
    receiver = await start_receiver(held)
    body = delivery_body()
    _, writer = await asyncio.open_connection(receiver.client.host, receiver.client.port)
    headers = "".join(f"{k}: {v}\r\n" for k, v in signed(body, receiver.now_s).items())
    writer.write(
        f"POST /webhooks/cloro HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode()
        + body
    )
    await until(lambda: len(held.groups) == 1)
    writer.transport.abort()
    other = await several_waiting(receiver, 1)
    held.gate.set()
    assert await answers(other) == [200]
    await until(lambda: len(held.committed) == 2)
    assert receiver.waiting == 0


async def test_r15_a_cancelled_caller_does_not_undo_the_commit(
    start_receiver: StartReceiver, held: HeldStore
) -> None:
    receiver = await start_receiver(held)
    posts = await several_waiting(receiver, 1)
    await until(lambda: len(held.groups) == 1)
    delivery = held.groups[0][0]
    caller = asyncio.create_task(receiver.app[INBOX].commit_delivery(delivery))
    await until(lambda: receiver.waiting == 2)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    held.gate.set()
    assert await answers(posts) == [200]
    await until(lambda: held.committed == [delivery, delivery])
    await until(lambda: receiver.waiting == 0)
    assert receiver.app[INBOX].waiting_bytes == 0


async def test_r24_the_end_flushes_what_was_read(start_receiver: StartReceiver, held: HeldStore) -> None:
    receiver = await start_receiver(held)
    first = await several_waiting(receiver, 1)
    await until(lambda: len(held.groups) == 1)
    rest = await several_waiting(receiver, 5, first=1)
    receiver.app[PROBES].draining = True
    receiver.app[INBOX].drain()
    async with receiver.client.get("/readyz") as response:
        assert response.status == 503
    refused = await receiver.post(delivery_body())
    assert (refused.status, await refused.json()) == (503, {"error": "draining"})
    closing = asyncio.create_task(receiver.app[INBOX].close())
    held.gate.set()
    await closing
    assert await answers(first + rest) == [200] * 6
    assert len(receiver.wake.taken) == 6


async def test_an_end_that_cannot_flush_acknowledges_nothing(
    start_receiver: StartReceiver, held: HeldStore
) -> None:
    receiver = await start_receiver(held, flush_timeout_s=0.05)
    first = await several_waiting(receiver, 1)
    await until(lambda: len(held.groups) == 1)
    rest = await several_waiting(receiver, 5)
    await receiver.app[INBOX].close()
    assert await answers(first + rest) == [503] * 6
    assert held.committed == []
    assert receiver.waiting == 0


async def test_a_store_that_raises_at_once_does_not_end_the_committer(
    start_receiver: StartReceiver, held: HeldStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = await start_receiver(held)
    held.gate.set()

    def broken(raw: object, *, due_at_ms: int, more: object) -> None:
        raise TypeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(held.inbox, "store_deliveries", broken)
        assert (await receiver.post(delivery_body())).status == 503
    assert (await receiver.post(delivery_body())).status == 200
