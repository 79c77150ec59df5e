"""A run with an endpoint, and a worker's relay that is turned by hand, with a stepped clock."""

import asyncio
from collections.abc import Callable
from typing import Any

from app.address.web import Outbound, read_networks
from app.domain.relay.message import NewEndpoint, Scheme, new_secret
from app.relay_client import RelayClient
from app.store.read.relay import EndpointRow
from tests.clock import SteppedClock
from tests.integration.services.pipeline import Pipeline
from workers.duties.relay import Relay
from workers.signals import WorkerSignals

LOOPBACK = read_networks("127.0.0.0/8")


class _Settings:
    relay_in_flight = 64
    relay_endpoint_in_flight = 16
    relay_timeout_s = 60.0
    relay_every_s = 0.05
    relay_failing_s = 24 * 3600.0
    relay_lease_s = 60.0


class _Context:
    """What the duty needs of a worker's."""

    def __init__(self, pipeline: Pipeline, **settings: Any) -> None:
        self.store, self.clock = pipeline.store, pipeline.clock
        self.settings: Any = _Settings()
        for name, value in settings.items():
            setattr(self.settings, name, value)
        self.stopping = asyncio.Event()
        self.signals = WorkerSignals()

    @staticmethod
    def jitter() -> float:
        return 0.5


class Worker:
    """One worker's relay."""

    def __init__(self, pipeline: Pipeline, *, allowed: Any = LOOPBACK, **settings: Any) -> None:
        self.context: Any = _Context(pipeline, **settings)
        self.client = RelayClient(
            allowed=allowed, outbound=Outbound(), timeout_s=self.context.settings.relay_timeout_s
        )
        self.relay = Relay(self.context, self.client.post)

    async def __aenter__(self) -> "Worker":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.context.stopping.set()
        await self.relay.end()
        await self.client.__aexit__(None, None, None)

    async def turn(self) -> None:
        """One turn, and all that it began to its end."""
        await self.relay.turn()
        await self.ended()

    async def ended(self) -> None:
        await until(lambda: not self.relay._pumps)


def endpoint(url: str, scheme: Scheme = Scheme.STANDARD, secret: str | None = None) -> NewEndpoint:
    return NewEndpoint(url, secret or new_secret(), scheme)


async def complete(pipeline: Pipeline) -> None:
    """Submit all, and have a report on each settled."""
    await pipeline.submit()
    reports = [pipeline.provider.finish(key) for key in pipeline.provider.accepted]
    await pipeline.deliver(*reports)


async def only_endpoint(pipeline: Pipeline) -> EndpointRow:
    (row,) = await pipeline.store.relay.endpoints(limit=10)
    return row


async def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - a condition has no event
            await asyncio.sleep(0.005)


def stepped_to_now(clock: SteppedClock) -> None:
    """To this machine's time, by which the published package judges."""
    import time

    clock.now_ms = int(time.time() * 1000)
