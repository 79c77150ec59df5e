"""The page in this process, on a real loopback socket and a real store, and visitors with their cookies."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import CookieJar, TCPConnector
from aiohttp.test_utils import TestClient, TestServer

from app.api.route import Parts
from app.api.server import create_api
from app.config import Settings
from app.page import kept
from app.page.site import mount
from app.store import Store
from tests.clock import SteppedClock
from tests.integration.api.asking import Api
from tests.integration.page.visiting import Visitor

StartPage = Callable[..., Awaitable[Visitor]]


@pytest.fixture
async def start_page(clock: SteppedClock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StartPage]:
    """`await start_page(store, <setting>=…)`: a visitor who is not signed in yet."""
    # What a page is not kept waiting for is there all the same, however busy the machine is.
    monkeypatch.setattr(kept, "WITHIN_S", 20.0)
    async with AsyncExitStack() as running:

        async def start(store: Store, **settings: Any) -> Visitor:
            chosen = Settings(_env_file=None, **settings)
            parts = Parts(store, chosen, clock)
            server = TestServer(create_api(parts, chosen, mount))
            client = TestClient(server, connector=TCPConnector(limit=0), cookie_jar=CookieJar(unsafe=True))
            await running.enter_async_context(client)
            # As a process does at its end; or whoever left an open stream is waited for.
            running.callback(parts.stopping.set)
            return Visitor(Api(client, store, clock, parts))

        yield start


@pytest.fixture
async def visitor(store: Store, start_page: StartPage) -> Visitor:
    """Of a page on a store of each kind, signed in, who may operate."""
    made = await start_page(store)
    await made.sign_in()
    return made


@pytest.fixture
async def stranger(sqlite_store: Store, start_page: StartPage) -> Visitor:
    """Of a page on a fresh SQLite file, not signed in."""
    return await start_page(sqlite_store)


@pytest.fixture
async def reader(stranger: Visitor) -> Visitor:
    """The same, signed in, who may operate: for what no database has a part in."""
    await stranger.sign_in()
    return stranger
