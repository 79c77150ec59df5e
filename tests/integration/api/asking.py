"""What tests of the API share: tokens, requests, runs to ask about."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from aiohttp.test_utils import TestClient
from yarl import URL

from app.api.route import Parts
from app.domain.task import TaskSpec
from app.services.access import create_token
from app.store import Store
from tests.clock import SteppedClock


@dataclass
class Answered:
    """An answer, read to its end."""

    status: int
    headers: Any
    body: bytes
    document: Any = field(default=None)


@dataclass
class Api:
    """A running API, and its store."""

    client: TestClient[Any, Any]
    store: Store
    clock: SteppedClock
    parts: Parts
    tokens: dict[tuple[str, str | None], str] = field(default_factory=dict)

    async def token(self, scope: str = "operate", account: str | None = None) -> str:
        """A token of this scope; the same one each time."""
        if (scope, account) not in self.tokens:
            name = f"{scope} {account or ''}"
            made = await create_token(self.store, name, scope, account, now_ms=self.clock())
            assert made is not None
            self.tokens[scope, account] = made[1]
        return self.tokens[scope, account]

    async def ask(
        self,
        path: str | URL,
        method: str = "GET",
        *,
        scope: str = "operate",
        account: str | None = None,
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> Answered:
        """One request with a token."""
        authorization = {"Authorization": f"Bearer {await self.token(scope, account)}"}
        async with self.client.request(
            method, path, headers=authorization | (headers or {}), **options
        ) as response:
            body = await response.read()
            is_json = "json" in response.content_type and not response.content_type.endswith("ndjson")
            document = await response.json(content_type=None) if is_json and body else None
            return Answered(response.status, response.headers, body, document)

    async def run(self, name: str = "monday", *, tasks: int = 2, account: str = "default") -> str:
        """A run of some tasks, loaded and begun; its id."""
        run_id = await self.store.runs.create_run(
            name=name,
            source="prompts.csv",
            budget=Decimal("12.5"),
            now_ms=self.clock.advance(1),
            account=account,
        )
        specs = [
            (TaskSpec(n, "GEMINI", {"prompt": f"secret question {n}", "country": "GB"}), Decimal(5))
            for n in range(1, tasks + 1)
        ]
        await self.store.runs.add_tasks(run_id, specs, self.clock())
        await self.store.runs.start_run_if_loading(run_id, sha256="0", bad_lines=0)
        return run_id


async def until(look: Callable[[], Awaitable[object]], wanted: object) -> None:
    """Wait until what is looked at is so."""
    async with asyncio.timeout(20):
        while await look() != wanted:  # noqa: ASYNC110 - another task writes it
            await asyncio.sleep(0.01)
