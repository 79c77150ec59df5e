"""Work on a timer beside the jobs, which needs no Redis; and how work is brought to its end."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import structlog

from app.ports import StoreUnavailable

log = structlog.get_logger(__name__)

AGAIN_S = 1.0
TURN_S = 300.0
"""A turn that takes longer is cut short. Each wait in it has a limit of its own, so this is the last resort:
500 polls of a provider that answers none of them take five minutes and a half."""


async def run_every(
    turn: Callable[[], Awaitable[None]],
    *,
    name: str,
    every_s: float,
    stopping: asyncio.Event,
    within_s: float = TURN_S,
) -> None:
    """One `turn` now and then every `every_s`, until `stopping`. What fails, or takes longer than `within_s`,
    is logged and tried again at the next turn."""
    while not stopping.is_set():
        limit = asyncio.timeout(within_s)
        try:
            async with limit:
                await turn()
        except StoreUnavailable as error:
            log.warning("store_unavailable", work=name, error=str(error)[:200])
        except Exception:
            if limit.expired():
                log.error("turn_cut_short", work=name, after_s=within_s)
            else:
                log.exception("turn_failed", work=name)
        await sleep_until(every_s, stopping)


async def sleep_until(wait_s: float, stopping: asyncio.Event) -> None:
    """Wait, or less when it is time to stop."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            await stopping.wait()


async def cancel_all(tasks: Iterable["asyncio.Task[Any]"], *, within_s: float = 0.0) -> None:
    """Let tasks end by themselves for so long, then cancel them and wait until they have. Cancelled again
    and again: a library may take a cancellation for a timeout of its own and go on."""
    late = set(tasks)
    wait_s = within_s
    while late:
        _, late = await asyncio.wait(late, timeout=wait_s)
        for task in late:
            if wait_s:
                log.warning("cut_short", work=task.get_name())
            task.cancel()
        wait_s = AGAIN_S
