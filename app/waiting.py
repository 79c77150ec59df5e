"""Waits for a moment that may not come."""

import asyncio
import contextlib


async def set_within(event: asyncio.Event, wait_s: float) -> None:
    """Wait until an event is set, for `wait_s` at most. Whoever cancels this is heard, also as it is set:
    `asyncio.wait_for` forgets that before Python 3.12."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, wait_s)):
            await event.wait()
