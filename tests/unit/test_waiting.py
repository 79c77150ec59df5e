"""A moment that may not come is waited for, for some time."""

import asyncio

import pytest

from app.waiting import set_within


async def test_it_ends_when_the_event_is_set_or_the_time_is_over() -> None:
    event = asyncio.Event()
    await set_within(event, 0.0)
    await set_within(event, -1.0)
    assert not event.is_set()
    waiting = asyncio.create_task(set_within(event, 3_600))
    await asyncio.sleep(0)
    assert not waiting.done()
    event.set()
    await waiting


async def test_who_cancels_it_as_the_event_is_set_is_heard() -> None:
    event = asyncio.Event()
    waiting = asyncio.create_task(set_within(event, 3_600))
    await asyncio.sleep(0)
    event.set()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
