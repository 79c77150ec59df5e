"""Asking one provider over real HTTP, with a store that keeps what it says."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from app.cli.runs.ask import question_of
from app.emulator.engine.options import Options
from app.emulator.http.server import create_app
from app.limits import Limits
from app.provider.ratelimit.pacing import Pacer
from app.provider.sync import SyncClient, encode_sync_report
from app.provider.wire import read_report
from app.services.settle import settle
from app.services.sync_call import SyncRequest, SyncResult, ask
from app.store import Store
from tests.books import Books, Row, checked_books
from tests.clock import SteppedClock

EMULATOR_KEY = "sk_live_" + "0123456789abcdef" * 2
EDITIONS = ["2025", "2026"]
LIMITS = Limits()
SLOT_WAIT_S = 60
SCALE = 2_000.0


def question(engine: str = "chatgpt", **options: Any) -> SyncRequest:
    include = options.pop("include", [])
    return question_of("Which CRM?", engine, "US", include, options.pop("state", ""), "default")


@dataclass
class Asking:
    """A client of one provider, and the store that keeps what it says."""

    store: Store
    clock: SteppedClock
    url: str
    timeout_s: float = 60.0
    slept: list[float] = field(default_factory=list)
    while_waiting: Callable[[], Awaitable[None]] | None = None

    async def __call__(self, asked_for: SyncRequest, *, key: str = EMULATOR_KEY) -> SyncResult:
        client = SyncClient(base_url=self.url, api_key=key, pacer=Pacer(500), timeout_s=self.timeout_s)
        try:
            return await ask(
                self.store,
                client,
                encode_sync_report,
                self.settle,
                asked_for,
                limits=LIMITS,
                slot_wait_s=SLOT_WAIT_S,
                clock=self.clock,
                jitter=lambda: 0.5,
                sleep=self.sleep,
            )
        finally:
            await client.close()

    async def settle(self, ids: Any) -> object:
        return await settle(self.store, read_report, ids, clock=self.clock, unmatched_ms=0)

    async def sleep(self, seconds: float) -> None:
        """Time passes at once."""
        self.slept.append(seconds)
        self.clock.advance(round(seconds * 1000))
        if self.while_waiting is not None:
            await self.while_waiting()

    async def books(self) -> Books:
        return await checked_books(self.store)

    async def task(self) -> Row:
        (task,) = (await self.books()).tasks
        return task


@contextlib.asynccontextmanager
async def served(store: Store, clock: SteppedClock, app: web.Application) -> AsyncIterator[Asking]:
    async with TestServer(app) as server:
        yield Asking(store, clock, str(server.make_url("")).rstrip("/"))


def emulator(edition: str, **options: Any) -> web.Application:
    defaults: dict[str, Any] = {"keys": (EMULATOR_KEY,), "time_scale": SCALE, "requests_per_s": 0}
    return create_app(Options(edition=edition, **(defaults | options)))
