"""The worker's own code on a real Valkey and a real store: jobs, their guard, and the supervision of arq."""

import asyncio
import contextlib
import pickle
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest
from arq.worker import Retry
from structlog.testing import capture_logs

from app.background_tasks import WorkFailed
from app.config import ConfigError, load_settings
from app.domain.send_outcome import Answer
from app.domain.task import idempotency_key
from app.ports import StoreUnavailable
from app.provider.client import Client
from app.queue import QUEUE_NAME, Queue
from app.services import sweep as services
from app.store import Store
from app.store.write.settlement import SettlementWrites
from app.store.write.submission import SubmissionWrites
from tests.clock import SteppedClock
from tests.conftest import StartValkey
from tests.integration.services.pipeline import Pipeline
from tests.servers.valkey import ValkeyServer
from workers import __main__ as worker
from workers import arq_loop, sending, settling
from workers.context import Context
from workers.duties import sweep as sweep_duty
from workers.jobs import guarded, settle_job, submit_job
from workers.sending import start_sending

PAYLOAD = {"v": 1}


@dataclass
class Scene:
    """A worker's context on one database, and the pipeline that feeds it."""

    context: Context
    pipeline: Pipeline
    url: str

    @property
    def ctx(self) -> dict[Any, Any]:
        """As arq hands it to a job."""
        return {"tallyhook": self.context}

    async def delivered(self, tasks: int = 3) -> list[str]:
        """Finished tasks whose reports are in the inbox; ids of the deliveries."""
        task_ids = await self.pipeline.start(tasks)
        await self.pipeline.submit()
        done = [self.pipeline.provider.finish(idempotency_key(i, 1)) for i in task_ids]
        return await self.pipeline.receive(*done)

    async def count(self, state: str) -> int:
        return (await self.pipeline.books()).states()[state]


@contextlib.asynccontextmanager
async def scene_on(store: Store, clock: SteppedClock, url: str, **settings: Any) -> AsyncIterator[Scene]:
    quick = {"redis_timeout_s": 20, "job_timeout_s": 60, "sweep_every_s": 0.05} | settings
    chosen = load_settings(_env_file=None, **quick)
    pipeline = Pipeline(store, clock)
    queue = Queue(url, timeout_s=chosen.redis_timeout_s)
    providers = {"default": cast(Client, pipeline.provider)}
    context = Context(chosen, store, providers, queue, clock=clock, jitter=lambda: 0.0)
    try:
        yield Scene(context, pipeline, url)
    finally:
        await queue.close()


@pytest.fixture
async def scene(sqlite_store: Store, clock: SteppedClock, valkey_url: str) -> AsyncIterator[Scene]:
    async with scene_on(sqlite_store, clock, valkey_url) as opened:
        yield opened


async def eventually(condition: Callable[[], Awaitable[bool]], timeout_s: float = 60.0) -> None:
    """Ask until it is true."""
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110 - a condition of the database has no event
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def running(work: Awaitable[None], context: Context) -> AsyncIterator["asyncio.Future[None]"]:
    """In the background until the block ends; it must then stop by itself, and in time."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        context.stopping.set()
        async with asyncio.timeout(60):
            await task


# The guard.


@pytest.mark.parametrize("error", [StoreUnavailable("away"), TimeoutError()])
async def test_a1_what_passes_by_itself_is_retried(scene: Scene, error: Exception) -> None:
    @guarded
    async def job(_context: Context, _payload: dict[str, Any]) -> None:
        raise error

    with pytest.raises(Retry) as caught:
        await job(scene.ctx, PAYLOAD)
    assert caught.value.defer_score is not None and 1_000 <= caught.value.defer_score <= 5_000


async def test_a2_a_job_ends_itself_before_arq_would(scene: Scene) -> None:
    scene.context.settings = scene.context.settings.model_copy(update={"job_timeout_s": 0.2})

    @guarded
    async def job(_context: Context, _payload: dict[str, Any]) -> None:
        await asyncio.Event().wait()

    with pytest.raises(Retry):
        await job(scene.ctx, PAYLOAD)


async def test_a2_the_shortest_timeout_leaves_a_job_some_time(
    sqlite_store: Store, clock: SteppedClock, valkey_url: str
) -> None:
    async with scene_on(sqlite_store, clock, valkey_url, job_timeout_s=5) as scene:
        ids = await scene.delivered()
        await settle_job(scene.ctx, PAYLOAD | {"ids": ids})
        assert await scene.count("completed") == 3


async def test_any_other_error_is_swallowed_and_its_rows_wait(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await scene.delivered()

    async def bug(*_: Any, **__: Any) -> Any:
        raise KeyError("bug")

    with monkeypatch.context() as patch:
        patch.setattr(settling, "settle", bug)
        await settle_job(scene.ctx, PAYLOAD | {"ids": ids})
    assert await scene.count("completed") == 0
    await settle_job(scene.ctx, PAYLOAD | {"ids": ids})
    assert await scene.count("completed") == 3


async def test_a_cancelled_job_is_cancelled(scene: Scene) -> None:
    started = asyncio.Event()

    @guarded
    async def job(_context: Context, _payload: dict[str, Any]) -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(job(scene.ctx, PAYLOAD))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    "payload",
    [{"v": 2}, {}, {"v": 1}, {"v": 1, "ids": "abc"}, {"v": 1, "ids": {}}, {"v": 1, "ids": [""] * 5_001}],
)
async def test_a17_a_payload_of_another_version_is_ignored(scene: Scene, payload: dict[str, Any]) -> None:
    await scene.delivered()
    await settle_job(scene.ctx, payload)
    if payload.get("v") != 1:
        await submit_job(scene.ctx, payload)
    assert await scene.count("completed") == 0


async def test_a_settle_job_works_in_transactions_of_bounded_size(
    sqlite_store: Store, clock: SteppedClock, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    settle = SettlementWrites.apply

    async def counted(store: Store, parsed: Any, *args: Any, **when: Any) -> Any:
        sizes.append(len(parsed))
        return await settle(store, parsed, *args, **when)

    monkeypatch.setattr(SettlementWrites, "apply", counted)
    async with scene_on(sqlite_store, clock, valkey_url, settle_size=20) as scene:
        ids = await scene.delivered(45)
        await settle_job(scene.ctx, PAYLOAD | {"ids": ids})
        assert sizes == [20, 20, 5]
        assert await scene.count("completed") == 45


async def test_a_submit_job_sees_to_its_successor(scene: Scene, valkey: ValkeyServer) -> None:
    await scene.pipeline.start(2)
    scene.pipeline.provider.tell(Answer.RATE_LIMITED)
    await submit_job(scene.ctx, PAYLOAD)
    await start_sending(scene.context)  # the one that the job began
    assert await scene.count("submitted") == 1
    with valkey.client() as client:
        [(_, score)] = client.zrange(QUEUE_NAME, 0, -1, withscores=True)
    assert score > time.time() * 1000, "when the one is due that was refused"
    scene.pipeline.clock.advance(10_000)
    await submit_job(scene.ctx, PAYLOAD)
    await start_sending(scene.context)
    assert await scene.count("submitted") == 2
    with valkey.client() as client:
        assert client.zcard(QUEUE_NAME) == 1, "nothing is left to send"


async def test_f17_a_sender_that_hangs_is_begun_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    await scene.pipeline.start(3)
    claim, hung = SubmissionWrites.claim_pending, 0
    monkeypatch.setattr(sending, "hung_after_s", lambda _: 0.2 if hung < 2 else 60.0)

    async def hanging(store: Store, **which: Any) -> Any:
        nonlocal hung
        if hung < 2:
            hung += 1
            await asyncio.Event().wait()
        return await claim(store, **which)

    monkeypatch.setattr(SubmissionWrites, "claim_pending", hanging)
    await start_sending(scene.context)
    assert (hung, await scene.count("submitted")) == (2, 3)


async def test_f17_a_sender_that_takes_long_and_goes_on_is_let_alone(
    sqlite_store: Store, clock: SteppedClock, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene_on(sqlite_store, clock, valkey_url, claim_size=1) as scene:
        await scene.pipeline.start(5)
        monkeypatch.setattr(sending, "hung_after_s", lambda _: 2.0)
        claim = SubmissionWrites.claim_pending

        async def slow(store: Store, **which: Any) -> Any:
            await asyncio.sleep(0.45)
            return await claim(store, **which)

        monkeypatch.setattr(SubmissionWrites, "claim_pending", slow)
        with capture_logs() as logs:
            await start_sending(scene.context)
        assert await scene.count("submitted") == 5
        assert not [line for line in logs if line["event"] == "sender_hung"]


# arq, supervised.


@pytest.mark.parametrize(
    ("memory", "refused"),
    [
        ({"maxmemory": 10**6, "maxmemory_policy": "allkeys-lru"}, True),
        ({"maxmemory": 10**6, "maxmemory_policy": "volatile-ttl"}, True),
        ({"maxmemory": 10**6, "maxmemory_policy": "noeviction"}, False),
        ({"maxmemory": 0, "maxmemory_policy": "allkeys-lru"}, False),
        ({}, False),
    ],
)
def test_a15_a_redis_that_may_evict_is_refused(memory: dict[str, object], refused: bool) -> None:
    with pytest.raises(ConfigError, match="noeviction") if refused else contextlib.nullcontext():
        arq_loop.refuse_evicting(memory)


async def test_a15_a_worker_ends_at_such_a_redis(
    sqlite_store: Store, clock: SteppedClock, start_valkey: StartValkey
) -> None:
    server = start_valkey(appendonly=False, maxmemory="100mb", **{"maxmemory-policy": "allkeys-lru"})
    async with scene_on(sqlite_store, clock, server.url) as scene:
        with pytest.raises(ConfigError, match="allkeys-lru"):
            await worker.run_until_stopped(scene.context, server.url)
        assert scene.context.stopping.is_set(), "the sweep ends with it"


async def test_jobs_are_worked_off(scene: Scene) -> None:
    ids = await scene.delivered()
    async with running(arq_loop.run_arq(scene.context, scene.url), scene.context):
        assert await scene.context.queue.wake_settle(ids)
        await eventually(lambda: _all_completed(scene))


async def _all_completed(scene: Scene) -> bool:
    states = (await scene.pipeline.books()).states()
    return set(states) == {"completed"}


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a11_arq_is_started_again_when_redis_comes_back(
    sqlite_store: Store,
    clock: SteppedClock,
    start_valkey: StartValkey,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    monkeypatch.setattr(arq_loop, "RESTART_FIRST_S", 0.05)
    monkeypatch.setattr(arq_loop, "RESTART_MAX_S", 0.2)
    lives: list[None] = []
    connect_and_work = arq_loop.connect_and_work

    async def counted(context: Context, url: str) -> None:
        lives.append(None)
        await connect_and_work(context, url)

    monkeypatch.setattr(arq_loop, "connect_and_work", counted)
    server = start_valkey(appendonly=True)
    async with scene_on(sqlite_store, clock, server.url) as scene:
        ids = await scene.delivered()
        async with running(arq_loop.run_arq(scene.context, server.url), scene.context):
            assert await scene.context.queue.wake_settle(ids[:1])
            await eventually(lambda: _completed_at_least(scene, 1))
            server.stop() if how == "stop" else server.kill()
            await eventually(lambda: _more_than(lives, 2))
            server.start()
            await eventually(lambda: scene.context.queue.wake_settle(ids[1:]))
            await eventually(lambda: _all_completed(scene))


async def _completed_at_least(scene: Scene, n: int) -> bool:
    return await scene.count("completed") >= n


async def _more_than(lives: list[None], n: int) -> bool:
    return len(lives) > n


async def test_a12_a_hanging_redis_takes_nothing_down_and_stopping_still_ends_it(
    sqlite_store: Store, clock: SteppedClock, start_valkey: StartValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arq_loop, "RESTART_FIRST_S", 0.05)
    server = start_valkey(appendonly=False)
    async with scene_on(sqlite_store, clock, server.url, redis_timeout_s=0.5) as scene:
        ids = await scene.delivered()
        async with running(arq_loop.run_arq(scene.context, server.url), scene.context) as task:
            await eventually(lambda: scene.context.queue.wake_settle(ids))
            await eventually(lambda: _all_completed(scene))
            server.pause()
            assert not await scene.context.queue.wake_submit()
            assert not task.done()
        # Stopped while Redis still hangs.
        server.resume()


async def test_a17_a_job_that_cannot_be_read_harms_no_other(scene: Scene, valkey: ValkeyServer) -> None:
    ids = await scene.delivered()
    with valkey.client() as client:
        for number, raw in enumerate((pickle.dumps({"t": 1}), b"{", b"[]", b'{"f":"nobody","a":[]}', b"")):
            client.set(f"arq:job:bad-{number}", raw)
            client.zadd(QUEUE_NAME, {f"bad-{number}": 1})
        client.zadd(QUEUE_NAME, {"no-body": 1})
    async with running(arq_loop.run_arq(scene.context, scene.url), scene.context) as task:
        await scene.context.queue.wake_settle(ids)
        await eventually(lambda: _all_completed(scene))
        assert not task.done()


async def test_a9_stopping_lets_a_running_job_finish(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = await scene.delivered()
    started, go_on = asyncio.Event(), asyncio.Event()
    settle = SettlementWrites.apply

    async def slowly(*args: Any, **when: Any) -> Any:
        started.set()
        await go_on.wait()
        return await settle(*args, **when)

    monkeypatch.setattr(SettlementWrites, "apply", slowly)
    async with running(arq_loop.run_arq(scene.context, scene.url), scene.context) as task:
        await scene.context.queue.wake_settle(ids)
        await started.wait()
        scene.context.stopping.set()
        await asyncio.sleep(0)
        assert not task.done()
        go_on.set()
    assert await _all_completed(scene)


async def test_r18_the_sweep_settles_and_submits_while_redis_is_down(
    sqlite_store: Store, clock: SteppedClock, start_valkey: StartValkey
) -> None:
    server = start_valkey(appendonly=False)
    async with scene_on(sqlite_store, clock, server.url) as scene:
        await scene.delivered()
        server.stop()
        async with running(worker.run_until_stopped(scene.context, server.url), scene.context):
            clock.advance(10_000)
            await eventually(lambda: _all_completed(scene))
            first_run = scene.pipeline.task_ids
            await scene.pipeline.start(5)
            await eventually(lambda: _submitted(scene, 5))
        assert set(first_run).isdisjoint(scene.pipeline.task_ids)


async def _submitted(scene: Scene, n: int) -> bool:
    return await scene.count("submitted") == n


async def test_a_sweep_that_fails_is_tried_again(
    sqlite_store: Store, clock: SteppedClock, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[Exception] = [StoreUnavailable("away"), KeyError("bug")]
    sweep = services.sweep

    async def failing(*args: Any, **kwargs: Any) -> Any:
        if failures:
            raise failures.pop()
        return await sweep(*args, **kwargs)

    monkeypatch.setattr(sweep_duty, "sweep", failing)
    async with scene_on(sqlite_store, clock, valkey_url) as scene:
        await scene.delivered()
        clock.advance(10_000)
        async with running(sweep_duty.run_sweep(scene.context), scene.context):
            await eventually(lambda: _all_completed(scene))
    assert failures == []


async def test_a27_one_worker_sweeps_at_a_time(scene: Scene) -> None:
    await scene.delivered()
    scene.pipeline.clock.advance(10_000)
    now = scene.pipeline.clock()
    assert await scene.context.store.runs.acquire_lease("sweep", "other", until_ms=now + 10, now_ms=now)
    swept: list[None] = []

    async def looked() -> bool:
        swept.append(None)
        return len(swept) > 20

    async with running(sweep_duty.run_sweep(scene.context), scene.context):
        await eventually(looked)
        assert await scene.count("completed") == 0
        scene.pipeline.clock.advance(10)
        await eventually(lambda: _all_completed(scene))


@pytest.mark.parametrize(
    "duty", ["run_sweep", "run_schedules", "run_audits", "run_lost_webhook_search", "run_notices"]
)
@pytest.mark.parametrize("times", [2, 10**6])
async def test_f14_a_duty_that_dies_is_started_again_or_ends_the_worker(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, duty: str, times: int
) -> None:
    monkeypatch.setattr("app.background_tasks.RESTART_DELAY_S", 0.0)
    lives: list[None] = []
    live = getattr(worker, duty)

    async def dies(context: Context) -> None:
        lives.append(None)
        if len(lives) <= times:
            raise RuntimeError("a bug")
        await live(context)

    monkeypatch.setattr(worker, duty, dies)
    if times == 2:
        async with running(worker.run_until_stopped(scene.context, scene.url), scene.context):
            await eventually(lambda: _more_than(lives, 2))
        return
    with pytest.raises(WorkFailed, match=f"{duty} failed 5 times in a row: RuntimeError: a bug"):
        await worker.run_until_stopped(scene.context, scene.url)
    assert scene.context.stopping.is_set(), "the others end with it"
