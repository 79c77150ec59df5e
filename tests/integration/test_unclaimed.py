"""The queue takes jobs and nobody does them: what is due is sent and settled all the same."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from app.cli.doctor.redis import check_redis
from app.config import load_settings
from app.queue import QUEUE_NAME
from app.store import Store
from tests.clock import SteppedClock
from tests.conftest import StartValkey
from tests.integration.test_workers import Scene, eventually, running, scene_on
from tests.servers.valkey import ValkeyServer
from workers import __main__ as worker
from workers import arq_loop
from workers.arq_settings import MAX_JOBS
from workers.context import SETTLES_AT_ONCE
from workers.duties.wakes import run_wakes, wake_senders


@pytest.fixture
async def scene(sqlite_store: Store, clock: SteppedClock, valkey_url: str) -> AsyncIterator[Scene]:
    async with scene_on(sqlite_store, clock, valkey_url) as opened:
        yield opened


async def test_f15_what_nobody_claims_is_sent_by_whoever_sees_it(scene: Scene, valkey: ValkeyServer) -> None:
    """As with workers on another queue, or an arq that stands still: every wake is taken."""
    await scene.pipeline.start(5)
    async with running(run_wakes(scene.context), scene.context):
        await eventually(lambda: _counts(scene, "submitted", 5))
    with valkey.client() as client:
        assert client.zcard(QUEUE_NAME), "the queue took the wakes, and still has them"


async def test_f15_a_wake_is_given_its_time_first(scene: Scene) -> None:
    await scene.pipeline.start(1)
    due = await wake_senders(scene.context, set())
    assert due == {"default"}
    assert scene.context.sending is None, "whoever takes the job begins"
    assert await wake_senders(scene.context, due) == due
    assert scene.context.sending is not None
    await scene.context.sending
    assert await wake_senders(scene.context, due) == set()


async def test_f15_hung_jobs_hold_up_neither_sending_nor_settling(scene: Scene) -> None:
    ids = await scene.delivered()
    for _ in range(SETTLES_AT_ONCE):
        await scene.context.settle_slots.acquire()  # for good
    for _ in range(2 * MAX_JOBS):
        assert await scene.context.queue.wake_settle(ids)
    async with running(worker.run_until_stopped(scene.context, scene.url), scene.context):
        scene.pipeline.clock.advance(10_000)
        await eventually(lambda: _counts(scene, "completed", 3))
        await scene.pipeline.start(5)
        await eventually(lambda: _counts(scene, "submitted", 5))
        for _ in range(SETTLES_AT_ONCE):
            scene.context.settle_slots.release()


async def test_f15_a_user_who_may_not_ask_info_has_workers_all_the_same(
    sqlite_store: Store, clock: SteppedClock, start_valkey: StartValkey
) -> None:
    server = start_valkey(appendonly=False)
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">hidden", "~*", "&*", "+@all", "-info")
    url = server.url.replace("://", "://app:hidden@")
    async with scene_on(sqlite_store, clock, url) as scene:
        ids = await scene.delivered()
        with capture_logs() as logs:
            async with running(arq_loop.run_arq(scene.context, url), scene.context):
                assert await scene.context.queue.wake_settle(ids)
                await eventually(lambda: _counts(scene, "completed", 3))
        events = [line["event"] for line in logs if line["log_level"] != "info"]
        assert events == ["eviction_policy_unknown"]
    checks = await check_redis(load_settings(_env_file=None, redis_url=url))
    assert {check.name: check.state for check in checks} == {
        "redis": "ok",
        "redis persistence": "warning",
        "redis eviction": "warning",
    }
    assert all("unknown: INFO is refused" in check.detail for check in checks[1:])


async def _counts(scene: Scene, state: str, n: int) -> bool:
    await asyncio.sleep(0)
    return await scene.count(state) == n
