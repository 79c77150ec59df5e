"""What the emulator's tests share: a running emulator with a clock in the test's hand, and a webhook
receiver."""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from app.emulator.engine.clock import Clock
from app.emulator.engine.emulator import Emulator
from app.emulator.engine.options import DEFAULT_KEY, Options
from app.emulator.http.server import EMULATOR, create_app

ROOT = Path(__file__).parents[3]
START_S = 1_736_942_400.0
"""2025-01-15T12:00:00Z: a plain day in the middle of a month."""
LIVE_KEY = "sk_live_0123456789abcdef0123456789abcdef"
CHATGPT = {"prompt": "best shoes", "country": "US"}
TASK_TYPES = ("CHATGPT", "GEMINI", "COPILOT", "PERPLEXITY", "AIMODE", "GOOGLE", "GOOGLE_NEWS", "GROK")


class Wall:
    """A wall clock that only tests move, for the one-second rate window."""

    def __init__(self) -> None:
        self.now_s = START_S

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Reply:
    status: int
    headers: aiohttp.typedefs.LooseHeaders
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    def header(self, name: str) -> str | None:
        return self.headers.get(name)  # type: ignore[union-attr]

    def error(self) -> Any:
        return self.body["error"]

    def fields(self) -> list[str]:
        return [detail["field"] for detail in self.body["error"]["details"]]


@dataclass
class Arrival:
    headers: Any
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)


class Receiver:
    """Records deliveries and answers with scripted statuses, 200 when the script is over."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.script: list[int] = []
        self.default = 200
        self._server: TestServer | None = None

    async def start(self) -> "Receiver":
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/hook", self._take)
        self._server = TestServer(app)
        await self._server.start_server()
        return self

    async def stop(self) -> None:
        assert self._server is not None
        await self._server.close()

    @property
    def url(self) -> str:
        assert self._server is not None
        return str(self._server.make_url("/hook"))

    async def _take(self, request: web.Request) -> web.Response:
        self.arrivals.append(Arrival(request.headers.copy(), await request.read()))
        status = self.script.pop(0) if self.script else self.default
        headers = {"Location": "/hook"} if status in (301, 302, 307, 308) else {}
        return web.Response(status=status, headers=headers)


@dataclass
class Provider:
    """One emulator over real HTTP. Time is stopped unless `step` moves it or a scale was given."""

    emulator: Emulator
    server: TestServer
    http: aiohttp.ClientSession
    wall: Wall | None
    key: str = DEFAULT_KEY
    numbers: Any = field(default_factory=lambda: itertools.count(1))

    @property
    def url(self) -> str:
        return str(self.server.make_url("")).rstrip("/")

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = "",
        headers: dict[str, str] | None = None,
    ) -> Reply:
        headers = dict(headers or {})
        if key is not None:
            headers.setdefault("Authorization", f"Bearer {key or self.key}")
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body)
        async with self.http.request(
            method, self.url + path, data=data, headers=headers, allow_redirects=False
        ) as response:
            return Reply(response.status, response.headers.copy(), await response.read())

    async def post(self, path: str, body: Any = None, **rest: Any) -> Reply:
        return await self.call("POST", path, body, **rest)

    async def get(self, path: str, **rest: Any) -> Reply:
        return await self.call("GET", path, **rest)

    def task(self, task_type: str = "GOOGLE", **over: Any) -> dict[str, Any]:
        subject = "query" if task_type.startswith("GOOGLE") else "prompt"
        payload = {subject: f"question {next(self.numbers)}", "country": "US"}
        return {"taskType": task_type, "payload": payload | over.pop("payload", {})} | over

    async def create(self, task_type: str = "GOOGLE", **over: Any) -> str:
        key = over.pop("key", "")
        reply = await self.post("/v1/async/task", self.task(task_type, **over), key=key)
        assert reply.status == 200, reply.raw
        task_id: str = reply.body["task"]["id"]
        return task_id

    async def status(self, task_id: str, **rest: Any) -> Any:
        reply = await self.get(f"/v1/async/task/{task_id}", **rest)
        assert reply.status == 200, reply.raw
        return reply.body

    async def books(self, organization: str = "default") -> Any:
        return (await self.get(f"/_emulator/books?organization={organization}", key=None)).body

    async def control(self, path: str, body: Any) -> Any:
        reply = await self.post(f"/_emulator/{path}", body, key=None)
        assert reply.status == 200, reply.raw
        return reply.body

    async def step(self, seconds: float) -> None:
        await self.emulator.advance(seconds)

    async def finish(self, call: asyncio.Future[Reply], step_s: float = 60.0) -> Reply:
        """The reply to a sync call, letting emulated time pass until it is there."""
        while not call.done():
            await self.step(step_s)
            await asyncio.sleep(0)
        return await call

    def begin_sync(self, path: str = "chatgpt", body: Any = None, **rest: Any) -> asyncio.Future[Reply]:
        """A sync call, sent and not awaited."""
        return asyncio.ensure_future(self.post(f"/v1/monitor/{path}", body or CHATGPT, **rest))

    async def sync(self, path: str = "chatgpt", body: Any = None, **rest: Any) -> Reply:
        """A sync call, with the emulated minutes it needs."""
        return await self.finish(self.begin_sync(path, body, **rest))

    async def abandon_sync(self) -> None:
        """A sync call whose client closes the connection while the attempt runs."""
        organization = self.emulator.organizations["default"]
        call = self.begin_sync()
        await eventually(lambda: organization.slots_used == 1)
        connection = next(iter(self.server.runner.server.connections))  # type: ignore[union-attr]
        call.cancel()
        await eventually(lambda: connection.transport is None)

    async def quiet(self, seconds: float = 60.0) -> Any:
        """Real time: wait until no task is active and no delivery pending; the books then."""

        async def still() -> bool:
            books = (await self.get("/_emulator/books?tasks=0", key=None)).body
            return bool(books["active_tasks"] == 0 and books["pending_deliveries"] == 0)

        await eventually(still, seconds)
        return await self.books()


async def eventually(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    """Wait for a condition, sync or async; never for a fixed time."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.005)


async def start_provider(options: Options, *, scale: float = 0.0, frozen_wall: bool = False) -> Provider:
    wall = Wall() if frozen_wall else None
    clock = Clock(scale, start_s=START_S, wall=wall or time.time)
    app = create_app(options, clock=clock)
    server = TestServer(app)
    await server.start_server()
    return Provider(app[EMULATOR], server, aiohttp.ClientSession(), wall)


async def start_command(*arguments: str) -> asyncio.subprocess.Process:
    """`python -m app.emulator` in a process of its own, its output in pipes."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "app.emulator",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )


async def refused_by_command(status: int, *arguments: str) -> str:
    """What the command writes to stderr when it ends with `status` instead of starting."""
    process = await start_command(*arguments)
    _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == status
    return errors.decode()


async def stop_provider(provider: Provider) -> None:
    await provider.http.close()
    await provider.server.close()
