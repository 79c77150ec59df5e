"""Every alert fires by the metrics of real processes that meet its fault, and is silent before and after it.

Each act brings a fault about, waits, takes it away, and waits again; all the while every process is scraped.
What was scraped goes through `promtool test rules` with the alerts as they are shipped.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.config import EMULATOR_WEBHOOK_SECRET
from app.domain.delivery import RawDelivery
from app.domain.relay.message import NewEndpoint, new_secret
from app.domain.run_reason import ReasonCode, RunReason
from app.domain.settlement import Source
from app.domain.task import RunState, new_id
from app.domain.time_format import DAY_MS
from app.provider.wire import read_answer
from app.store import Database, Store
from tests.conftest import StartValkey
from tests.e2e import timelapse
from tests.e2e.stack import KILL, Stack
from tests.e2e.timelapse import Recorder
from tests.integration.relay.receiver import Receiver, receiving
from tests.integration.store.scenes import execute, rows
from tests.integration.web.receiving import delivery_body, signed
from tests.servers.postgres import PostgresServer
from tests.servers.processes import free_port
from tests.servers.valkey import ValkeyServer

pytestmark = [
    pytest.mark.debian,
    pytest.mark.timeout(1_200),
    pytest.mark.skipif(
        timelapse.PROMTOOL is None,
        reason="no promtool here: apt-get install prometheus, or PROMTOOL=/path/of/promtool",
    ),
]
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
FUTURE_PARTITIONS = """
    SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'deliveries'::regclass
    AND c.relname LIKE 'deliveries_p%'
    AND c.relname > 'deliveries_p' || to_char(now() + interval '1 day', 'YYYYMMDD')
"""
Step = Callable[[], Awaitable[None]]


@dataclass
class Drill:
    """The stack, the recorder, and what went wrong so far."""

    stack: Stack
    recorder: Recorder
    valkey: ValkeyServer
    admin: AsyncEngine
    folder: Path
    offset: Path
    wrong: list[str] = field(default_factory=list)
    fired: list[str] = field(default_factory=list)

    @property
    def tick(self) -> int:
        return len(self.recorder.ticks)

    async def act(
        self,
        name: str,
        alerts: tuple[str, ...],
        fault: Step,
        cure: Step,
        *,
        clears_s: float,
        minutes: int = 0,
    ) -> None:
        """`minutes`: stretch the fault for so long."""
        first = self.tick
        await asyncio.sleep(2)
        well = self.tick
        await fault()
        cured = self.tick
        await cure()
        await asyncio.sleep(clears_s)
        ticks = timelapse.begun_at(await self.recorder.settled(self.tick), first)
        well, cured = well - first, cured - first
        if minutes:
            ticks = timelapse.stretched(ticks, well, cured, minutes)
        self.wrong += timelapse.check(self.folder, name, ticks, alerts, well=well - 1)
        self.fired += alerts

    def shown(self, name: str) -> float:
        """What the last scrape says of a metric; 0: nothing."""
        tick = next((tick for tick in reversed(self.recorder.ticks) if tick), {})
        return next((value for (series, _), value in tick.items() if series == name), 0.0)

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


@contextlib.asynccontextmanager
async def locked(url: str, table: str) -> AsyncIterator[None]:
    """Nobody else reads or writes a table meanwhile."""
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"))
    try:
        async with engine.begin() as connection:
            await connection.execute(sa.text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
            yield
    finally:
        await engine.dispose()


@pytest.fixture
async def drill(
    postgres: PostgresServer, postgres_template: str, start_valkey: StartValkey, tmp_path: Path
) -> AsyncIterator[Drill]:
    url, valkey = postgres.create_database(postgres_template), start_valkey(appendonly=False)
    store = Store(Database(url), read_answer)
    stack, offset = Stack(tmp_path, store, url, valkey.url), tmp_path / "offset"
    offset.write_text("0")
    ports = {name: free_port() for name in PROCESSES}
    stack.env |= ENV | {"TALLYHOOK_ARCHIVE_URL": str(tmp_path / "archive")}
    for name, port in ports.items():
        stack.env_of[name] = {"TALLYHOOK_METRICS_PORT": str(port)}
    stack.env_of["web"] |= {
        "PYTHONPATH": str(Path(__file__).parent / "shifted_clock"),
        "SHIFTED_CLOCK_FILE": str(offset),
    }
    stack.emulator_options = list(QUIET)
    recorder = Recorder({name: f"http://127.0.0.1:{port}/metrics" for name, port in ports.items()})
    admin = create_async_engine(
        postgres.admin_url.replace("postgresql://", "postgresql+asyncpg://"), isolation_level="AUTOCOMMIT"
    )
    try:
        stack.start("emulator", "web", "api", "worker")
        made = Drill(stack, recorder, valkey, admin, tmp_path, offset)
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


async def test_every_alert_fires_by_its_fault_and_clears_after_it(drill: Drill) -> None:
    for play in (
        no_worker,
        leases_locked,
        duty_fails,
        results_locked,
        strangers,
        database_away,
        commits_slow,
        redis_hangs,
        loop_late,
        clock_off,
        old_secret,
        provider_fails,
        rate_refused,
        no_deliveries,
        credits_end,
        drift,
        deliveries_lost,
        long_faults,
    ):
        only = os.environ.get("ACTS", "")
        if not only or play.__name__ in only.split(","):
            await play(drill)
    assert not drill.wrong, "\n".join(drill.wrong)
    if not os.environ.get("ACTS"):
        assert sorted(drill.fired) == sorted(timelapse.rules()), "each alert has its act"


async def no_worker(drill: Drill) -> None:
    async def fault() -> None:
        drill.stack.end("worker", KILL)
        await asyncio.sleep(6)

    async def cure() -> None:
        drill.stack.start("worker")

    await drill.act("no_worker", ("TallyhookNoWorker", "TallyhookProcessDown"), fault, cure, clears_s=20)


async def leases_locked(drill: Drill) -> None:
    async def fault() -> None:
        async with locked(drill.stack.store.db.url, "leases"):
            await asyncio.sleep(14)

    await drill.act("leases_locked", ("TallyhookDutyStandsStill",), fault, _nothing, clears_s=6)


async def duty_fails(drill: Drill) -> None:
    async def fault() -> None:
        await drill.sql("ALTER TABLE schedules RENAME TO schedules_x")
        await asyncio.sleep(9)

    async def cure() -> None:
        await drill.sql("ALTER TABLE schedules_x RENAME TO schedules")

    await drill.act("duty_fails", ("TallyhookDutyFails",), fault, cure, clears_s=13)


async def results_locked(drill: Drill) -> None:
    async def fault() -> None:
        async with locked(drill.stack.store.db.url, "results"):
            await drill.submit(20)
            await asyncio.sleep(9)

    async def cure() -> None:
        await drill.until_settled(drill.stack.run_id)

    await drill.act("results_locked", ("TallyhookInboxOld",), fault, cure, clears_s=4)


async def strangers(drill: Drill) -> None:
    async def fault() -> None:
        assert await post_signed(drill, b'{"task": {"status": "NONE"}}') == 200
        for number in range(15):
            assert await post_signed(drill, delivery_body(number), "whsec_" + "0" * 32) == 401
        await asyncio.sleep(10)

    async def cure() -> None:
        await drill.sql("UPDATE deliveries SET state = 'done' WHERE state = 'quarantined'")

    alerts = ("TallyhookDeliveriesSetAside", "TallyhookSignaturesRefused")
    await drill.act("strangers", alerts, fault, cure, clears_s=7)


async def database_away(drill: Drill) -> None:
    name = drill.stack.store.db.url.rpartition("/")[2].partition("?")[0]

    async def admin(statement: str) -> None:
        async with drill.admin.connect() as connection:
            await connection.execute(sa.text(statement))

    async def ask() -> None:
        token = await drill.stack.token("read")
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as client:
            while True:
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    async with client.get(f"{drill.stack.api_url}/v1/runs"):
                        pass
                await asyncio.sleep(0.2)

    async def fault() -> None:
        body, now_s = delivery_body(77), await drill.stack.store.health.database_ms() // 1000
        await admin(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS false')
        await admin(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        headers = signed(body, now_s)
        async with aiohttp.ClientSession() as client:
            for _ in range(30):
                url = f"{drill.stack.web_url}/webhooks/cloro"
                async with client.post(url, data=body, headers=headers) as response:
                    assert response.status == 503
                await asyncio.sleep(0.3)

    async def cure() -> None:
        await admin(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS true')

    asking = asyncio.create_task(ask())
    alerts = ("TallyhookCommitsFail", "TallyhookDatabaseFails", "TallyhookApiFails")
    try:
        await drill.act("database_away", alerts, fault, cure, clears_s=15)
    finally:
        asking.cancel()


async def commits_slow(drill: Drill) -> None:
    async def fault() -> None:
        async def post(number: int) -> None:
            await post_signed(drill, delivery_body(1_000 + number))

        posts = []
        for number in range(7):
            async with locked(drill.stack.store.db.url, "deliveries"):
                posts.append(asyncio.create_task(post(number)))
                await asyncio.sleep(1.6)
            await asyncio.sleep(0.2)
        await asyncio.gather(*posts)

    await drill.act("commits_slow", ("TallyhookCommitsSlow",), fault, _nothing, clears_s=8)


async def redis_hangs(drill: Drill) -> None:
    async def fault() -> None:
        os.kill(drill.valkey.pid, signal.SIGSTOP)
        await asyncio.sleep(18)

    async def cure() -> None:
        os.kill(drill.valkey.pid, signal.SIGCONT)

    await drill.act("redis_hangs", ("TallyhookRedisFails",), fault, cure, clears_s=13)


async def loop_late(drill: Drill) -> None:
    async def fault() -> None:
        pid = drill.stack.pids()["web"]
        for _ in range(16):
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(0.9)
            os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(0.4)

    await drill.act("loop_late", ("TallyhookLoopLate",), fault, _nothing, clears_s=8)


async def clock_off(drill: Drill) -> None:
    async def fault() -> None:
        drill.offset.write_text("90")
        await asyncio.sleep(8)

    async def cure() -> None:
        drill.offset.write_text("0")

    await drill.act("clock_off", ("TallyhookClockOff",), fault, cure, clears_s=4)


async def old_secret(drill: Drill) -> None:
    """An hour in which the old one is used, as it comes again for a day."""
    await drill.restart("web", CLORO_WEBHOOK_SECRET=f"whsec_{'1' * 32},{EMULATOR_WEBHOOK_SECRET}")

    async def fault() -> None:
        for _ in range(4):
            await drill.until_settled(await drill.submit(5))

    async def cure() -> None:
        """It signs with the new one."""
        await drill.restart("web", CLORO_WEBHOOK_SECRET=EMULATOR_WEBHOOK_SECRET)

    await drill.act("old_secret", ("TallyhookOldSecret",), fault, cure, clears_s=64, minutes=25 * 60)


async def provider_fails(drill: Drill) -> None:
    async def fault() -> None:
        drill.stack.change_faults({"error_500": 1.0})
        await drill.submit(20)
        await asyncio.sleep(19)

    async def cure() -> None:
        drill.stack.change_faults({"error_500": 0.0})
        await drill.until_settled(drill.stack.run_id)

    await drill.act("provider_fails", ("TallyhookNothingSent",), fault, cure, clears_s=4)


async def rate_refused(drill: Drill) -> None:
    async def fault() -> None:
        drill.stack.change_faults({"storm_429": 0.5})
        for _ in range(8):
            await drill.submit(30)
            await asyncio.sleep(3)

    async def cure() -> None:
        drill.stack.change_faults({"storm_429": 0.0})
        await drill.until_settled(drill.stack.run_id)

    await drill.act("rate_refused", ("TallyhookRateRefused",), fault, cure, clears_s=12)


async def no_deliveries(drill: Drill) -> None:
    """Nothing is delivered, and whoever should poll stands still."""
    await drill.restart("worker", TALLYHOOK_POLL_AFTER_S="1", TALLYHOOK_RETENTION_S="42")
    await drill.stack.until_workers_started(1)

    async def hold_the_sweep() -> None:
        while True:
            now = await drill.stack.store.health.database_ms()
            await drill.stack.store.runs.acquire_lease("sweep", "stuck", until_ms=now + 3_000, now_ms=now)
            await asyncio.sleep(0.05)

    async def fault() -> None:
        drill.stack.change_faults({"drop": 1.0})
        holding = asyncio.create_task(hold_the_sweep())
        await asyncio.sleep(1)
        await drill.submit(10)
        await asyncio.sleep(43)
        holding.cancel()
        await drill.stack.store.runs.release_lease("sweep", "stuck")

    async def cure() -> None:
        drill.stack.change_faults({"drop": 0.0})
        await drill.until_settled(drill.stack.run_id)

    alerts = ("TallyhookNoDeliveries", "TallyhookPollsOverdue", "TallyhookRetentionNear")
    await drill.act("no_deliveries", alerts, fault, cure, clears_s=4)
    await drill.restart("worker", TALLYHOOK_POLL_AFTER_S="8", TALLYHOOK_RETENTION_S="86400")


async def credits_end(drill: Drill) -> None:
    await drill.restart_emulator(*QUIET, "--credits", "400")

    async def fault() -> None:
        await drill.submit(300)
        await asyncio.sleep(16)

    async def cure() -> None:
        await topped_up(drill, 5_000)
        await drill.until_settled(drill.stack.run_id)

    await drill.act(
        "credits_end", ("TallyhookCreditsEnd", "TallyhookCreditsEndBeforeRuns"), fault, cure, clears_s=8
    )


async def drift(drill: Drill) -> None:
    """A report says more than the provider took, and a person books the rest as given back."""
    stack, booked = drill.stack, list[str]()

    async def sent() -> bool:
        return (await stack.store.queries.progress(stack.run_id)).states.get("submitted") == 1

    async def is_seen() -> bool:
        return drill.shown("tallyhook_drift_credits") != 0

    async def is_explained() -> bool:
        return drill.shown("tallyhook_drift_credits") == 0

    async def fault() -> None:
        stack.change_faults({"drop": 1.0})
        await drill.submit(1)
        await stack.until(sent, "a task at the provider")
        (row,) = await rows(stack.store, "SELECT * FROM tasks WHERE run_id = :run", run=UUID(stack.run_id))
        assert await post_signed(drill, late_report(row, charged=500)) == 200
        await drill.until_settled(stack.run_id)
        stack.change_faults({"drop": 0.0})
        booked.append(stack.run_id)
        # A balance may be a minute old, so three of them tell, and none is asked for while nothing moves.
        for _ in range(15):
            await drill.until_settled(await drill.submit(1))
            if await is_seen():
                break
            await asyncio.sleep(15)
        await stack.until(is_seen, "the drift")
        await asyncio.sleep(7)

    async def cure() -> None:
        gained = drill.shown("tallyhook_drift_credits")
        drill.command("adjust", booked[0], f"--credits={gained:g}", "--reason", "never taken, ticket 123")
        await drill.until_settled(await drill.submit(1))
        await stack.until(is_explained, "the drift to be explained", timeout_s=240)

    await drill.act("drift", ("TallyhookDrift",), fault, cure, clears_s=4)


async def topped_up(drill: Drill, credits: int) -> None:
    url = drill.stack.env["CLORO_BASE_URL"]
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{url}/_emulator/organizations/default", json={"topUp": credits}) as response,
    ):
        assert response.status == 200, await response.text()


async def long_faults(drill: Drill) -> None:
    """Those that are told late, at once: none has to do with another."""
    async with receiving() as receiver:
        await _meet_long_faults(drill, receiver)


async def _meet_long_faults(drill: Drill, receiver: Receiver) -> None:
    stack, archive, paused, held = drill.stack, drill.folder / "archive", list[str](), list[dict[str, Any]]()

    async def fault() -> None:
        paused.append(await drill.submit(3, begin=False))
        await stack.begin()
        by_hand = RunReason(ReasonCode.BY_HAND, "a person paused it")
        await stack.store.runs.halt_run_if_running(paused[0], RunState.PAUSED, by_hand)
        await _break_archive(drill, archive)
        await _push_in_vain(drill, receiver)
        for row in await rows(stack.store, FUTURE_PARTITIONS):
            await drill.sql(f"DROP TABLE {row['name']}")
        held.extend(await _be_forgotten(drill))
        await asyncio.sleep(66)

    async def cure() -> None:
        drill.command("resume", paused[0])
        archive.unlink()
        receiver.always = 204
        for row in await rows(stack.store, "SELECT id FROM relay_endpoints"):
            drill.command("relay", "retry", str(UUID(row["id"])))
        for row in held:
            assert await post_signed(drill, late_report(row)) == 200
        await drill.restart("worker")
        await drill.until_settled(paused[0])

    alerts = (
        "TallyhookArchiveLate",
        "TallyhookBalanceUnknown",
        "TallyhookPartitionsMissing",
        "TallyhookRelayOld",
        "TallyhookRelaySetAside",
        "TallyhookRunsHalted",
        "TallyhookUnknownCredits",
    )
    await drill.act("long_faults", alerts, fault, cure, clears_s=64)


async def _break_archive(drill: Drill, archive: Path) -> None:
    """A file in its place, and a day that should be in it."""
    shutil.rmtree(archive, ignore_errors=True)
    await asyncio.to_thread(archive.write_text, "in its place")
    now = await drill.stack.store.health.database_ms()
    old = now - 5 * DAY_MS
    row = RawDelivery(new_id(old), Source.DELIVERY, old, delivery_body(5_000))
    await drill.stack.store.inbox.store_deliveries([row], due_at_ms=now)


async def _push_in_vain(drill: Drill, receiver: Receiver) -> None:
    """To one endpoint that wants no more, and to one that never takes anything."""
    for answer, place in ((410, receiver.url), (503, f"{receiver.url}?second")):
        receiver.always = answer
        await drill.until_settled(await drill.submit(2, push_to=NewEndpoint(place, new_secret())))
        await asyncio.sleep(3)


async def deliveries_lost(drill: Drill) -> None:
    async def fault() -> None:
        await _lose_deliveries(drill)
        await asyncio.sleep(3)

    await drill.act("deliveries_lost", ("TallyhookDeliveriesLost",), fault, _nothing, clears_s=64)


async def _lose_deliveries(drill: Drill) -> None:
    """They are acknowledged, and gone before anybody settled them."""
    store, stack = drill.stack.store, drill.stack
    # Only this edition's polls say what became of the webhook.
    await drill.restart_emulator("--edition", "2026", "--time-scale", "10", "--internal-retry", "0")

    async def sent() -> bool:
        return (await store.queries.progress(stack.run_id)).states.get("submitted") == 5

    async def stored() -> bool:
        return await store.queries.waiting_count() >= 5

    await drill.submit(5)
    await stack.until(sent, "all sent")
    stack.end("worker", KILL)
    await stack.until(stored, "their deliveries")
    await asyncio.sleep(1)
    await drill.sql("DELETE FROM deliveries WHERE state = 'new'")
    stack.start("worker")
    await drill.until_settled(stack.run_id)

    async def found() -> bool:
        return bool(await rows(store, "SELECT 1 FROM findings WHERE verdict = 'lost_after_ack'"))

    await stack.until(found, "the loss to be found")
    await drill.restart_emulator(*QUIET)


async def _be_forgotten(drill: Drill) -> list[dict[str, Any]]:
    """By a provider that is away for 40 minutes; what it had."""
    stack = drill.stack
    await drill.restart_emulator("--time-scale", "0.5", "--concurrency", "200")
    run_id = await drill.submit(40)

    async def sent() -> bool:
        return (await stack.store.queries.progress(run_id)).states.get("submitted") == 40

    await stack.until(sent, "all sent")
    stack.end("emulator", KILL)
    await asyncio.sleep(40)
    await drill.restart_emulator(*QUIET)
    await drill.until_settled(run_id)
    return await rows(stack.store, "SELECT * FROM tasks WHERE run_id = :run", run=UUID(run_id))


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


async def _nothing() -> None:
    """It is over by itself."""
