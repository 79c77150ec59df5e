"""Turns on a timer, which need no Redis; sleep and cancel for tasks that are asked to stop.

A turn that fails is tried again at its next time. app/background_tasks.py keeps tasks that must not end.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

import structlog

from app.ports import StoreUnavailable
from app.waiting import set_within

log = structlog.get_logger(__name__)

CANCEL_AGAIN_S = 1.0
TURN_TIMEOUT_S = 300.0
"""A turn that takes longer is cut short. Each wait in it has its own limit, so this is the last resort: 500
polls of a provider that answers none of them take five and a half minutes."""


class TurnWatch(Protocol):
    """Told of each turn."""

    def note_turn(
        self, duty: str, took_s: float, rows: int | None, *, failed: bool, ended_s: float
    ) -> None: ...


async def run_every(
    turn: Callable[[], Awaitable[int | None]],
    *,
    name: str,
    every_s: float,
    stopping: asyncio.Event,
    within_s: float = TURN_TIMEOUT_S,
    watch: TurnWatch | None = None,
) -> None:
    """One `turn` now, and the next ones `every_s` after the last has ended, until `stopping`. A turn that
    fails, or takes longer than `within_s`, is logged; the next one comes. What a turn returns is how much it
    dealt with, for `watch`."""
    while not stopping.is_set():
        limit, began_s, rows, failed = asyncio.timeout(within_s), time.monotonic(), None, False
        try:
            async with limit:
                rows = await turn()
        except StoreUnavailable as error:
            failed = True
            log.warning("store_unavailable", work=name, error=str(error)[:200])
        except Exception:
            failed = True
            if limit.expired():
                log.error("turn_cut_short", work=name, after_s=within_s)
            else:
                log.exception("turn_failed", work=name)
        finally:
            if watch is not None:
                watch.note_turn(name, time.monotonic() - began_s, rows, failed=failed, ended_s=time.time())
        await set_within(stopping, every_s)


async def cancel_all(tasks: Iterable["asyncio.Task[Any]"], *, within_s: float = 0.0) -> None:
    """Give tasks `within_s` to end by themselves, then cancel them until all have ended: a library may take
    one cancellation for a timeout of its own and go on."""
    late = set(tasks)
    wait_s = within_s
    while late:
        _, late = await asyncio.wait(late, timeout=wait_s)
        for task in late:
            if wait_s:
                log.warning("cut_short", work=task.get_name())
            task.cancel()
        wait_s = CANCEL_AGAIN_S
