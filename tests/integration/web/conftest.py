"""A receiver on a real loopback socket; `start_receiver` makes one with other parts or limits."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import DummyCookieJar, TCPConnector
from aiohttp.test_utils import TestClient, TestServer

from app.store import Store
from app.web import health
from app.web.receiver.direct import DirectConnection
from app.web.server import RECEIVER, create_app
from tests.changed_limits import changed
from tests.clock import SteppedClock
from tests.integration.web.receiving import LIMITS, SECRET, WAIT_S, HeldStore, Receiving, WakeDouble

StartReceiver = Callable[..., Awaitable[Receiving]]


def direct_connection(server: Any, *, loop: object, **options: Any) -> DirectConnection:
    """A connection as `serve` makes it, in the place of aiohttp's."""
    return DirectConnection(server, server.request_handler.__self__[RECEIVER], lambda _: None, **options)


@pytest.fixture
async def start_receiver(
    clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[StartReceiver]:
    """`await start_receiver(store, wake=..., secrets=..., allow_unsigned=..., <limit>=...)`."""
    monkeypatch.setattr("aiohttp.web_server.RequestHandler", direct_connection)
    # A machine that is busy with others takes longer than readiness allows.
    monkeypatch.setattr(health, "DATABASE_TIMEOUT_S", WAIT_S)
    monkeypatch.setattr(health, "COMMIT_PROVES_FOR_S", 10 * WAIT_S)
    async with AsyncExitStack() as running:

        async def start(
            store: Any,
            *,
            wake: WakeDouble | None = None,
            secrets: tuple[str, ...] = (SECRET,),
            allow_unsigned: bool = False,
            public_metrics: bool = False,
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
                public_metrics=public_metrics,
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
