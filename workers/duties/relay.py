"""Pushes results to whoever wants them, in parallel with everything else: a receiver that is slow or away
holds up nobody but itself. Every worker does; each endpoint is one worker's at a time.
"""

import asyncio
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from app.domain.notices.notice import Answered
from app.domain.relay.message import Endpoint, EndpointState
from app.limits import to_ms
from app.relay_client import open_relay_client
from app.services.relay import Post, Pump, Pushed
from workers.context import Context
from workers.periodic import cancel_all, run_every

log = structlog.get_logger(__name__)

CLOSE_EVERY_S = 600.0
DRAIN_S = 10.0
"""After SIGTERM, posts that are under way may end for so long."""


async def run_relay(context: Context) -> None:
    """Look for results and push them until the process stops."""
    async with open_relay_client(context.settings) as client:
        relay = Relay(context, client.post)
        try:
            await run_every(
                relay.turn,
                name="relay",
                every_s=context.settings.relay_every_s,
                stopping=context.stopping,
                watch=context.signals,
            )
        finally:
            await relay.end()


@dataclass(slots=True)
class Relay:
    """The endpoints that this process posts to."""

    context: Context
    post: Post
    owner: str = field(default_factory=lambda: uuid.uuid4().hex)
    _pumps: dict[str, tuple[Pump, "asyncio.Task[None]"]] = field(default_factory=dict)
    _closed_s: float = 0.0

    async def turn(self) -> int:
        """Make messages of what was settled, keep what this process has, take what is due. How many were
        made."""
        context, limits = self.context, self.context.settings
        is_all, messages = False, 0
        while not is_all and not context.stopping.is_set():
            made, is_all = await context.store.relay_messages.make_messages(context.clock())
            messages += made
        lease_ms = to_ms(limits.relay_lease_s)
        await self._keep(lease_ms)
        free = limits.relay_in_flight - len(self._pumps)
        if free > 0 and not context.stopping.is_set():
            endpoints = context.store.relay_endpoints
            taken = await endpoints.claim_endpoints(
                self.owner, limit=free, now_ms=context.clock(), lease_ms=lease_ms
            )
            for endpoint in taken:
                self._start(endpoint)
        await self._close()
        return messages

    async def end(self) -> None:
        """Let posts end that are under way; nothing new is begun once the process is stopping."""
        tasks = [task for _, task in self._pumps.values()]
        if tasks:
            await cancel_all(tasks, within_s=DRAIN_S)

    async def _keep(self, lease_ms: int) -> None:
        if not self._pumps:
            return
        until_ms = self.context.clock() + lease_ms
        kept = await self.context.store.relay_endpoints.keep_endpoints(
            self.owner, list(self._pumps), until_ms=until_ms
        )
        for endpoint_id, (pump, _) in self._pumps.items():
            pump.is_lost = endpoint_id not in kept

    def _start(self, endpoint: Endpoint) -> None:
        context = self.context
        pump = Pump(
            context.store,
            self._post,
            endpoint,
            self.owner,
            self._share,
            context.settings,
            context.clock,
            context.jitter,
            context.stopping,
        )
        task = asyncio.create_task(self._run(pump), name=f"relay {endpoint.id}")
        self._pumps[endpoint.id] = pump, task

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answered:
        began_s = time.monotonic()
        answered = await self.post(url, headers, body)
        self.context.signals.note_post(answered, time.monotonic() - began_s)
        return answered

    def _share(self) -> int:
        """All have the same share, so that slow ones together leave to each other one what is its own."""
        limits = self.context.settings
        return max(
            min(limits.relay_endpoint_in_flight, limits.relay_in_flight // max(len(self._pumps), 1)), 1
        )

    async def _run(self, pump: Pump) -> None:
        endpoint_id = pump.endpoint.id
        try:
            _tell(await pump.run())
        except Exception as error:
            # Its lease runs out, and whoever has it then goes on.
            log.warning("relay_failed", endpoint=endpoint_id, error=type(error).__name__)
        finally:
            self._pumps.pop(endpoint_id, None)

    async def _close(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if not self._closed_s or now_s - self._closed_s >= CLOSE_EVERY_S:
            self._closed_s = now_s
            await self.context.store.relay_messages.close_endpoints(self.context.clock())


def _tell(pushed: Pushed) -> None:
    about = {"endpoint": pushed.endpoint.id, "account": pushed.endpoint.account}
    if pushed.taken:
        log.info("results_pushed", **about, count=pushed.taken)
    if pushed.given_up:
        log.warning("relay_given_up", **about, count=pushed.given_up, error=pushed.error)
    if pushed.state is EndpointState.SET_ASIDE:
        log.error("relay_set_aside", **about, error=pushed.error)
    elif pushed.rest_ms is not None:
        log.warning("relay_rests", **about, error=pushed.error, wait_s=round(pushed.rest_ms / 1000, 1))
