"""Faults of our own parts: processes, database, Redis, clocks; and what strangers send."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator

import aiohttp
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from tests.e2e.alerts.drill import Drill, act, nothing, post_signed
from tests.e2e.stack import KILL
from tests.integration.web.receiving import delivery_body, signed


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


@act("TallyhookNoWorker", "TallyhookProcessDown")
async def no_worker(drill: Drill) -> None:
    async def fault() -> None:
        drill.stack.end("worker", KILL)
        await asyncio.sleep(6)

    async def cure() -> None:
        drill.stack.start("worker")

    await drill.meet(fault, cure, clears_s=20)


@act("TallyhookDutyStandsStill")
async def leases_locked(drill: Drill) -> None:
    async def fault() -> None:
        async with locked(drill.stack.store.db.url, "leases"):
            await asyncio.sleep(14)

    await drill.meet(fault, nothing, clears_s=6)


@act("TallyhookDutyFails")
async def duty_fails(drill: Drill) -> None:
    async def fault() -> None:
        await drill.sql("ALTER TABLE schedules RENAME TO schedules_x")
        await asyncio.sleep(9)

    async def cure() -> None:
        await drill.sql("ALTER TABLE schedules_x RENAME TO schedules")

    await drill.meet(fault, cure, clears_s=13)


@act("TallyhookInboxOld")
async def results_locked(drill: Drill) -> None:
    async def fault() -> None:
        async with locked(drill.stack.store.db.url, "results"):
            await drill.submit(20)
            await asyncio.sleep(9)

    async def cure() -> None:
        await drill.until_settled(drill.stack.run_id)

    await drill.meet(fault, cure, clears_s=4)


@act("TallyhookDeliveriesSetAside", "TallyhookSignaturesRefused")
async def strangers(drill: Drill) -> None:
    async def fault() -> None:
        assert await post_signed(drill, b'{"task": {"status": "NONE"}}') == 200
        for number in range(15):
            assert await post_signed(drill, delivery_body(number), "whsec_" + "0" * 32) == 401
        await asyncio.sleep(10)

    async def cure() -> None:
        await drill.sql("UPDATE deliveries SET state = 'done' WHERE state = 'quarantined'")

    await drill.meet(fault, cure, clears_s=7)


@act("TallyhookCommitsFail", "TallyhookDatabaseFails", "TallyhookApiFails")
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
    try:
        await drill.meet(fault, cure, clears_s=15)
    finally:
        asking.cancel()


@act("TallyhookCommitsSlow")
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

    await drill.meet(fault, nothing, clears_s=8)


@act("TallyhookRedisFails")
async def redis_hangs(drill: Drill) -> None:
    async def fault() -> None:
        os.kill(drill.valkey.pid, signal.SIGSTOP)
        await asyncio.sleep(18)

    async def cure() -> None:
        os.kill(drill.valkey.pid, signal.SIGCONT)

    await drill.meet(fault, cure, clears_s=13)


@act("TallyhookLoopLate")
async def loop_late(drill: Drill) -> None:
    async def fault() -> None:
        pid = drill.stack.pids()["web"]
        for _ in range(16):
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(0.9)
            os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(0.4)

    await drill.meet(fault, nothing, clears_s=8)


@act("TallyhookClockOff")
async def clock_off(drill: Drill) -> None:
    async def fault() -> None:
        drill.offset.write_text("90")
        await asyncio.sleep(8)

    async def cure() -> None:
        drill.offset.write_text("0")

    await drill.meet(fault, cure, clears_s=4)
