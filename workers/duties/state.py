"""Reads the state of the whole in one worker, for whoever scrapes it: never at a scrape, and never in all."""

import asyncio
import contextlib
import uuid

import structlog

from app.limits import to_ms
from app.ports import StoreUnavailable
from app.services.state import read_state
from workers.context import Context
from workers.periodic import run_every

log = structlog.get_logger(__name__)

LEASE = "state"
LEASE_LOOKS, LEASE_MIN_S = 9, 10.0
"""The lease is for so many looks, and no less; prolonged at each, so that one worker goes on looking."""
SHOWN_SHARE = 0.9
"""What was read is shown for a shorter time than the lease: no two workers show it."""
LOOK_SHARE = 50
"""A look may take a fiftieth of the time of one connection; it is some 20 ms."""
RESTS_MAX = 3
"""But it rests no longer than so many times `state_every_s`: what is shown must not grow old."""


async def run_state(context: Context) -> None:
    """Look every few seconds, where anybody can scrape it, until the process stops."""
    if context.settings.metrics_port is None:
        await context.stopping.wait()
        return
    reader = StateReader(context)
    try:
        await run_every(
            reader.turn,
            name="state",
            every_s=context.settings.state_every_s,
            stopping=context.stopping,
            watch=context.signals,
        )
    finally:
        await reader.leave()


class StateReader:
    """Reads in whichever worker holds the lease."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._owner = uuid.uuid4().hex
        self._again_s = 0.0
        self._lease_s = max(LEASE_LOOKS * context.settings.state_every_s, LEASE_MIN_S)

    async def turn(self) -> None:
        """One look; nothing while another worker looks, or too soon."""
        context, monotonic_s = self._context, asyncio.get_running_loop().time
        began_s = monotonic_s()
        if began_s < self._again_s:
            return
        now = context.clock()
        if not await context.store.runs.acquire_lease(
            LEASE, self._owner, until_ms=now + to_ms(self._lease_s), now_ms=now
        ):
            context.signals.board.drop(LEASE)
            return
        settings = context.settings
        readings = await read_state(
            context.store, context.providers, settings, has_archive=bool(settings.archive_url)
        )
        context.signals.board.put(LEASE, readings, for_s=SHOWN_SHARE * self._lease_s)
        rest_s = min(RESTS_MAX * settings.state_every_s, LOOK_SHARE * (monotonic_s() - began_s))
        self._again_s = monotonic_s() + rest_s

    async def leave(self) -> None:
        """Look no more, so that another worker need not wait for the end of the lease."""
        self._context.signals.board.drop(LEASE)
        with contextlib.suppress(StoreUnavailable):
            await self._context.store.runs.release_lease(LEASE, self._owner)
