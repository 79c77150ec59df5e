"""A receiver on a real loopback socket; `start_receiver` makes one with other parts or limits."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import DummyCookieJar, TCPConnector
from aiohttp.test_utils import TestClient, TestServer

from app.store import Store
from app.web.server import create_app
from tests.changed_limits import changed
from tests.clock import SteppedClock
from tests.integration.web.receiving import LIMITS, SECRET, HeldStore, Receiving, WakeDouble

StartReceiver = Callable[..., Awaitable[Receiving]]


@pytest.fixture
async def start_receiver(clock: SteppedClock) -> AsyncIterator[StartReceiver]:
    """`await start_receiver(store, wake=..., secrets=..., allow_unsigned=..., <limit>=...)`."""
    async with AsyncExitStack() as running:

        async def start(
            store: Any,
            *,
            wake: WakeDouble | None = None,
            secrets: tuple[str, ...] = (SECRET,),
            allow_unsigned: bool = False,
            **limits: Any,
        ) -> Receiving:
            woken = wake or WakeDouble()
            app = create_app(
                store,
                woken,
                secrets=secrets,
                limits=changed(LIMITS, **limits),
                clock=clock,
                allow_unsigned=allow_unsigned,
            )
            # As many connections as a test wants to have at once.
            client = TestClient(TestServer(app), connector=TCPConnector(limit=0), cookie_jar=DummyCookieJar())
            await running.enter_async_context(client)
            return Receiving(app, client, clock, woken)

        yield start


@pytest.fixture
async def receiver(store: Store, start_receiver: StartReceiver) -> Receiving:
    """A receiver on a real store of each kind."""
    return await start_receiver(store)


@pytest.fixture
def held() -> HeldStore:
    """A store that commits when its gate is opened."""
    return HeldStore()
