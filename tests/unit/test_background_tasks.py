"""A task that must run is started again, whatever ended it; one that cannot be kept ends its process."""

import asyncio
from collections.abc import Callable

import pytest
import structlog.testing

from app import background_tasks
from app.background_tasks import FAILURES_MAX, WorkFailed, keep_running


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_tasks, "RESTART_DELAY_S", 0.0)


def ending(*ends: BaseException | None) -> tuple[Callable[[], "asyncio.Future[None]"], list[None]]:
    """Lives of a task, each with its end; (the task, lives begun)."""
    lives: list[None] = []
    rest = list(ends)

    async def run() -> None:
        lives.append(None)
        end = rest.pop(0)
        if end is not None:
            raise end

    return run, lives  # type: ignore[return-value]


async def test_f14_it_is_started_again_whatever_ended_it() -> None:
    # A bug, a cancellation that nobody meant for it, an end that nobody asked for.
    run, lives = ending(ValueError("a bug"), asyncio.CancelledError(), None, None)
    with structlog.testing.capture_logs() as logs:
        await keep_running(run, name="work", is_over=lambda: len(lives) == 4)
    assert len(lives) == 4
    assert [line["failures"] for line in logs if line["event"] == "task_failed"] == [1, 2, 3]


async def test_f14_one_that_cannot_be_kept_running_is_reported() -> None:
    run, lives = ending(*[ValueError("a bug")] * FAILURES_MAX)
    with pytest.raises(WorkFailed, match=r"work failed 5 times in a row: ValueError: a bug"):
        await keep_running(run, name="work", is_over=lambda: False)
    assert len(lives) == FAILURES_MAX


async def test_f14_after_steady_work_its_tries_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_tasks, "STEADY_S", -1.0)
    run, lives = ending(*[ValueError("a bug")] * (3 * FAILURES_MAX), None)
    await keep_running(run, name="work", is_over=lambda: True)
    assert len(lives) == 3 * FAILURES_MAX + 1


async def test_f14_a_fault_that_needs_a_person_is_not_tried_again() -> None:
    run, lives = ending(KeyError("setting"))
    with pytest.raises(KeyError):
        await keep_running(run, name="work", is_over=lambda: False, fatal=(KeyError,))
    assert len(lives) == 1


async def test_f14_cancelling_it_ends_the_task_too() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def run() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(keep_running(run, name="work", is_over=lambda: False))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
