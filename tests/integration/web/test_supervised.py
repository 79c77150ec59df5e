"""The receiver outlives what its tasks run into; where it cannot, it ends and says so."""

import asyncio

import pytest

from app import background_tasks
from app.background_tasks import WorkFailed
from app.web.receiver.inbox import Inbox
from app.web.receiver.waker import Waker
from app.web.server import INBOX, create_app, serve
from tests.clock import SteppedClock
from tests.integration.web.conftest import StartReceiver
from tests.integration.web.receiving import (
    LIMITS,
    SECRET,
    WAIT_S,
    HeldStore,
    WakeDouble,
    delivery_body,
    until,
)


@pytest.mark.parametrize("name", ["inbox committer", "waker"])
async def test_f14_a_task_that_is_cancelled_is_started_again(
    start_receiver: StartReceiver, held: HeldStore, name: str
) -> None:
    held.gate.set()
    receiver = await start_receiver(held)
    assert (await receiver.post(delivery_body(1))).status == 200
    supervisors = receiver.app[INBOX].tasks
    for task in [t for t in asyncio.all_tasks() if t.get_name() == name and t not in supervisors]:
        task.cancel()
        await asyncio.wait({task})
    assert (await receiver.post(delivery_body(2))).status == 200
    await until(lambda: len(receiver.wake.taken) == 2)
    async with receiver.client.get("/healthz") as response:
        assert response.status == 200


@pytest.mark.parametrize(
    ("part", "method", "name"), [(Inbox, "commit_groups", "inbox committer"), (Waker, "send_wakes", "waker")]
)
async def test_f14_the_process_ends_with_a_task_that_cannot_be_kept(
    held: HeldStore, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch, part: type, method: str, name: str
) -> None:
    monkeypatch.setattr(background_tasks, "RESTART_DELAY_S", 0.0)

    async def dies(_self: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(part, method, dies)
    app = create_app(held, WakeDouble(), secrets=(SECRET,), limits=LIMITS, clock=clock)
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(WorkFailed, match=f"{name} failed 5 times in a row: RuntimeError: a bug"):
            await serve(app, host="127.0.0.1", port=0)


async def test_f14_healthz_is_503_when_deliveries_cannot_be_taken_any_more(
    start_receiver: StartReceiver, held: HeldStore
) -> None:
    receiver = await start_receiver(held)
    for task in receiver.app[INBOX].tasks:
        task.cancel()
        await asyncio.wait({task})
    async with receiver.client.get("/healthz") as response:
        assert (response.status, await response.text()) == (503, "dead\n")
    assert (await receiver.post(delivery_body())).status == 503
