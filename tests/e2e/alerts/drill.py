"""A stack that is scraped while faults are brought about, and what is asked of the alerts then."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.config import EMULATOR_WEBHOOK_SECRET
from app.provider.wire import read_answer
from app.store import Database, Store
from tests.e2e import timelapse
from tests.e2e.stack import KILL, Stack
from tests.e2e.timelapse import Recorder
from tests.integration.store.scenes import execute
from tests.integration.web.receiving import signed
from tests.servers.postgres import PostgresServer
from tests.servers.processes import free_port
from tests.servers.valkey import ValkeyServer

ENV = {
    "TALLYHOOK_STATE_EVERY_S": "0.2",
    "TALLYHOOK_AUDIT_EVERY_S": "1",
    "TALLYHOOK_NOTICE_EVERY_S": "0.5",
    "TALLYHOOK_FORECAST_EVERY_S": "0.5",
    "TALLYHOOK_ACK_GRACE_S": "2",
    "TALLYHOOK_DATABASE_TIMEOUT_S": "30",
    "TALLYHOOK_COMMIT_TIMEOUT_S": "30",
    "TALLYHOOK_ARCHIVE_AFTER_DAYS": "2",
}
PROCESSES = ("web", "worker", "api")
QUIET = ("--time-scale", "60", "--concurrency", "200", "--internal-retry", "0")
AT_LAST = 4
"""Ticks, of which the last state of something is made."""
Step = Callable[[], Awaitable[None]]


@dataclass
class Drill:
    """The stack, the recorder, the act that is played, and what went wrong so far."""

    stack: Stack
    recorder: Recorder
    valkey: ValkeyServer
    admin: AsyncEngine
    folder: Path
    offset: Path
    act: "Act | None" = None
    wrong: list[str] = field(default_factory=list)

    @property
    def tick(self) -> int:
        return len(self.recorder.ticks)

    async def meet(
        self,
        fault: Step,
        cure: Step,
        *,
        clears_s: float,
        minutes: int = 0,
        pace: int = 1,
        lasts_minutes: int = 0,
        clears_minutes: int = 0,
    ) -> None:
        """One fault, and its end. `minutes`: all of it comes again for so long, at a pace; `lasts_minutes`,
        `clears_minutes`: as it was last it stays for so long, while it lasts and when it is over."""
        assert self.act is not None
        first = self.tick
        await asyncio.sleep(2)
        well = self.tick - first
        await fault()
        cured = self.tick - first
        await cure()
        await asyncio.sleep(clears_s)
        ticks = timelapse.begun_at(await self.recorder.settled(self.tick), first)
        # From the end, so that what comes before keeps its place.
        ticks = timelapse.stretched(ticks, len(ticks) - AT_LAST, len(ticks), clears_minutes)
        ticks = timelapse.stretched(ticks, cured - AT_LAST, cured, lasts_minutes)
        ticks = timelapse.stretched(ticks, well, cured, minutes, pace=pace)
        self.wrong += timelapse.check(self.folder, self.act.name, ticks, self.act.alerts, well=well - 1)

    def shown(self, name: str, **labels: str) -> float:
        """What the last scrape says of a metric, the most of its series with these labels; 0: nothing."""
        tick = next((tick for tick in reversed(self.recorder.ticks) if tick), {})
        return timelapse.most(tick, name, **labels)

    def is_shown(self, name: str) -> bool:
        """Whether the last scrape has any series of a metric."""
        tick = next((tick for tick in reversed(self.recorder.ticks) if tick), {})
        return any(series == name for series, _ in tick)

    async def until_shown(self, name: str, above: float, **labels: str) -> None:
        """Wait until a metric is above this in each of the last ticks."""

        async def is_shown() -> bool:
            return self.shown(name, **labels) > above

        await self.stack.until(is_shown, f"{name} above {above:g}")
        await asyncio.sleep((AT_LAST + 1) * timelapse.TICK_S)

    async def submit(self, count: int, **how: Any) -> str:
        await self.stack.submit(count, **how)
        return self.stack.run_id

    async def until_settled(self, run_id: str) -> None:
        async def settled() -> bool:
            return (await self.stack.store.queries.progress(run_id)).open == 0

        await self.stack.until(settled, f"the end of {run_id}")

    async def restart(self, name: str, **env: str) -> None:
        self.stack.end(name)
        self.stack.env_of[name] = self.stack.env_of.get(name, {}) | env
        self.stack.start(name)

    async def restart_emulator(self, *options: str) -> None:
        """It has forgotten all."""
        if "emulator" in self.stack.pids():
            self.stack.end("emulator", KILL)
        self.stack.emulator_options = list(options)
        self.stack.start("emulator")

    def command(self, *words: str) -> None:
        done = self.stack.tallyhook(*words)
        assert done.returncode == 0, done.stdout + done.stderr

    async def sql(self, *statements: str) -> None:
        await execute(self.stack.store, *statements)


@dataclass(frozen=True)
class Act:
    """A fault, and the alerts that are about it."""

    name: str
    alerts: tuple[str, ...]
    play: Callable[[Drill], Awaitable[None]]


def act(*alerts: str) -> Callable[[Callable[[Drill], Awaitable[None]]], Act]:
    """Say which alerts must fire by what a function does, and be silent before and after it."""
    return lambda play: Act(play.__name__, alerts, play)


async def nothing() -> None:
    """It is over by itself."""


@contextlib.asynccontextmanager
async def opened(
    postgres: PostgresServer, postgres_template: str, valkey: ValkeyServer, folder: Path
) -> AsyncIterator[Drill]:
    """Processes that run, are scraped, and have done a little."""
    url = postgres.create_database(postgres_template)
    store = Store(Database(url), read_answer)
    stack, offset = Stack(folder, store, url, valkey.url), folder / "offset"
    offset.write_text("0")
    ports = {name: free_port() for name in PROCESSES}
    stack.env |= ENV | {"TALLYHOOK_ARCHIVE_URL": str(folder / "archive")}
    for name, port in ports.items():
        stack.env_of[name] = {"TALLYHOOK_METRICS_PORT": str(port)}
    stack.env_of["web"] |= {
        "PYTHONPATH": str(Path(__file__).parents[1] / "shifted_clock"),
        "SHIFTED_CLOCK_FILE": str(offset),
    }
    stack.emulator_options = list(QUIET)
    recorder = Recorder({name: f"http://127.0.0.1:{port}/metrics" for name, port in ports.items()})
    admin = create_async_engine(
        postgres.admin_url.replace("postgresql://", "postgresql+asyncpg://"), isolation_level="AUTOCOMMIT"
    )
    try:
        stack.start("emulator", "web", "api", "worker")
        made = Drill(stack, recorder, valkey, admin, folder, offset)
        await made.until_settled(await made.submit(10))
        recorder.start()
        await asyncio.sleep(3)
        yield made
    finally:
        await recorder.stop()
        stack.close()
        await store.close()
        await admin.dispose()
        postgres.drop_database(url)


async def post_signed(drill: Drill, body: bytes, secret: str = EMULATOR_WEBHOOK_SECRET) -> int:
    now_s = await drill.stack.store.health.database_ms() // 1000
    headers = signed(body, now_s, secret=secret)
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{drill.stack.web_url}/webhooks/cloro", data=body, headers=headers) as response,
    ):
        return response.status


def late_report(row: dict[str, Any], charged: int = 5) -> bytes:
    """Of a task that nobody reported on."""
    task = {
        "id": row["provider_task_id"],
        "taskType": row["task_type"],
        "status": "COMPLETED",
        "idempotencyKey": row["idempotency_key"],
    }
    credits = {"creditsToCharge": charged, "creditsCharged": charged}
    return json.dumps({"task": task, "credits": credits, "response": {"text": "late"}}).encode()
