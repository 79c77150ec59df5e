"""The queue may be down, slow or hung; receiving goes on (R18, R19)."""

import asyncio

import pytest

from app.store import Store
from app.web.metrics import Metrics
from app.web.receiver.waker import Waker
from tests.integration.web.conftest import StartReceiver
from tests.integration.web.receiving import WAIT_S, WakeDouble, delivery_body, stored, until


@pytest.mark.parametrize("error", [None, ConnectionError("refused"), TimeoutError()])
async def test_r18_a_queue_that_is_down_changes_no_answer(
    store: Store, start_receiver: StartReceiver, error: Exception | None
) -> None:
    wake = WakeDouble(takes=False, error=error)
    receiver = await start_receiver(store, wake=wake)
    assert [(await receiver.post(delivery_body(i))).status for i in range(5)] == [200] * 5
    assert len(await stored(store)) == 5
    await until(lambda: receiver.count("tallyhook_wake_failures_total") == 5)
    # Back again: the next delivery is enqueued.
    wake.takes, wake.error = True, None
    await receiver.post(delivery_body(5))
    await until(lambda: len(wake.taken) == 1)


async def test_r19_a_queue_that_hangs_changes_no_answer(store: Store, start_receiver: StartReceiver) -> None:
    wake = WakeDouble(hangs=True)
    receiver = await start_receiver(store, wake=wake, wake_timeout_s=60.0, wakes_pending_max=10)
    assert (await receiver.post(delivery_body())).status == 200
    await until(lambda: len(wake.calls) == 1)
    posts = await asyncio.gather(*(receiver.post(delivery_body(i)) for i in range(1, 31)))
    assert [response.status for response in posts] == [200] * 30
    assert receiver.waiting == 0
    # What waits is bounded; the sweep finds the rest.
    assert receiver.count("tallyhook_wakes_dropped_total") == 20
    wake.hangs = False
    wake.released.set()
    await until(lambda: len(wake.taken) == 11)
    newest = [delivery.id for delivery in (await stored(store))]
    assert set(wake.taken) <= set(newest)


async def test_a_call_that_never_ends_is_given_up(start_receiver: StartReceiver, sqlite_store: Store) -> None:
    wake = WakeDouble(hangs=True)
    receiver = await start_receiver(sqlite_store, wake=wake, wake_timeout_s=0.02)
    await receiver.post(delivery_body())
    await until(lambda: receiver.count("tallyhook_wake_failures_total") == 1)


def waker(wake: WakeDouble, **changes: float) -> Waker:
    options: dict = {"delay_s": 60.0, "size": 3, "group": 3, "pending_max": 100, "timeout_s": 60.0, **changes}
    return Waker(wake, Metrics(), **options)


async def test_ids_gather_until_there_are_enough() -> None:
    wake = WakeDouble()
    gathering = waker(wake)
    gathering.start()
    gathering.wake_soon(["a", "b"])
    gathering.wake_soon(["c", "d"])
    await until(lambda: wake.calls == [["a", "b", "c"]])
    # The rest waits for company, or for the end.
    await gathering.close(WAIT_S)
    assert wake.calls == [["a", "b", "c"], ["d"]]


async def test_ids_gather_for_a_while() -> None:
    wake = WakeDouble()
    gathering = waker(wake, delay_s=0.01, size=1_000)
    gathering.start()
    gathering.wake_soon(["a"])
    gathering.wake_soon(["b"])
    await until(lambda: wake.calls == [["a", "b"]])
    gathering.wake_soon(["c"])
    await until(lambda: wake.calls == [["a", "b"], ["c"]])
    await gathering.close(WAIT_S)


async def test_whole_groups_are_woken_and_what_is_left_over_with_the_next_ones() -> None:
    wake = WakeDouble(hangs=True)
    gathering = waker(wake, delay_s=0.05, size=1_000, group=2)
    gathering.start()
    gathering.wake_soon(["a", "b", "c", "d", "e"])
    await until(lambda: wake.calls == [["a", "b", "c", "d"]])
    gathering.wake_soon(["f"])
    wake.released.set()
    await until(lambda: wake.calls == [["a", "b", "c", "d"], ["e", "f"]])
    gathering.wake_soon(["g", "h", "i"])
    await gathering.close(WAIT_S)
    assert wake.calls[2:] == [["g", "h", "i"]]


async def test_the_end_does_not_wait_for_a_queue_that_hangs() -> None:
    wake = WakeDouble(hangs=True)
    gathering = waker(wake, delay_s=0.0, timeout_s=60.0)
    gathering.start()
    gathering.wake_soon(["a"])
    await until(lambda: len(wake.calls) == 1)
    async with asyncio.timeout(WAIT_S):
        await gathering.close(0.02)
    assert wake.taken == []
