"""Work on a timer goes on after a failure; what must end does, even when it loses a cancellation."""

import asyncio

import pytest
import structlog.testing

from app.ports import StoreUnavailable
from workers.periodic import cancel_all, run_every


async def test_a_failed_turn_is_logged_and_the_next_one_comes() -> None:
    stopping, turns = asyncio.Event(), 0

    async def turn() -> None:
        nonlocal turns
        turns += 1
        if turns == 1:
            raise StoreUnavailable("away")
        if turns == 2:
            raise ValueError("a bug")
        stopping.set()

    with structlog.testing.capture_logs() as logs:
        await run_every(turn, name="looking", every_s=0.001, stopping=stopping)
    assert turns == 3
    assert [(line["event"], line["work"]) for line in logs] == [
        ("store_unavailable", "looking"),
        ("turn_failed", "looking"),
    ]


async def test_f17_a_turn_that_hangs_is_cut_short_and_the_next_one_comes() -> None:
    stopping, turns = asyncio.Event(), 0

    async def turn() -> None:
        nonlocal turns
        turns += 1
        if turns == 2:
            stopping.set()
        await asyncio.Event().wait()

    with structlog.testing.capture_logs() as logs:
        await run_every(turn, name="looking", every_s=0.001, stopping=stopping, within_s=0.02)
    assert [(line["event"], line["work"]) for line in logs] == [("turn_cut_short", "looking")] * 2


async def test_stopping_is_not_waited_for() -> None:
    stopping = asyncio.Event()

    async def turn() -> None:
        stopping.set()

    async with asyncio.timeout(30):
        await run_every(turn, name="looking", every_s=3_600, stopping=stopping)


async def test_what_ends_in_time_is_not_cancelled() -> None:
    task = asyncio.create_task(asyncio.sleep(0.01, "done"))
    await cancel_all([task], within_s=30)
    assert task.result() == "done"


async def test_r14_a_lost_cancellation_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker told to stop once did not: what swallows a cancellation would be waited for without end."""
    monkeypatch.setattr("workers.periodic.CANCEL_AGAIN_S", 0.01)
    lost = 0

    async def stubborn() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
                if lost == 3:
                    raise

    task = asyncio.create_task(stubborn(), name="stubborn")
    await asyncio.sleep(0)
    with structlog.testing.capture_logs() as logs:
        await cancel_all([task])
    assert task.cancelled()
    assert [line["work"] for line in logs if line["event"] == "cut_short"] == ["stubborn"] * 2
