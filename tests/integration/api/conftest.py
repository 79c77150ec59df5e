"""The API in this process, on a real loopback socket and a real store; `start_api` makes one with others."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import DummyCookieJar, TCPConnector
from aiohttp.test_utils import TestClient, TestServer

from app.api.route import Parts, wake_nobody
from app.api.server import create_api
from app.config import Settings
from app.store import Store
from app.web.receiver.direct import DirectConnection
from app.web.server import TAKERS
from tests.clock import SteppedClock
from tests.integration.api.asking import Api

StartApi = Callable[..., Awaitable[Api]]
Wake = Callable[[], Awaitable[object]]


def direct_connection(server: Any, *, loop: object, **options: Any) -> DirectConnection:
    """A connection as `serve_api` makes it, in the place of aiohttp's."""
    return DirectConnection(server, server.request_handler.__self__[TAKERS], lambda _: None, **options)


@pytest.fixture
async def start_api(clock: SteppedClock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StartApi]:
    """`await start_api(store, <setting>=…)`; `wake`: as Parts has it."""
    monkeypatch.setattr("aiohttp.web_server.RequestHandler", direct_connection)
    async with AsyncExitStack() as running:

        async def start(store: Store, *, wake: Wake = wake_nobody, **settings: Any) -> Api:
            chosen = Settings(_env_file=None, **settings)
            parts = Parts(store, chosen, clock, wake=wake)
            server = TestServer(create_api(parts, chosen))
            client = TestClient(server, connector=TCPConnector(limit=0), cookie_jar=DummyCookieJar())
            await running.enter_async_context(client)
            # As a process does at its end; or whoever left an open stream is waited for.
            running.callback(parts.stopping.set)
            return Api(client, store, clock, parts)

        yield start


@pytest.fixture
async def api(store: Store, start_api: StartApi) -> Api:
    """An API on a store of each kind."""
    return await start_api(store)


@pytest.fixture
async def sqlite_api(sqlite_store: Store, start_api: StartApi) -> Api:
    """An API on a fresh SQLite file, for what no database has a part in."""
    return await start_api(sqlite_store)
