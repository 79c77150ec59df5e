"""Runs arq, and starts it again when Redis takes it down: arq ends its process when Redis is away for seconds
(A11). Refuses a Redis that drops jobs.
"""

import asyncio

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from app.config import ConfigError
from app.queue import open_pool
from app.waiting import set_within
from workers.arq_settings import Worker, hear, make_worker
from workers.context import Context
from workers.periodic import cancel_all

log = structlog.get_logger(__name__)

RESTART_FIRST_S = 0.5
RESTART_MAX_S = 10.0


async def run_arq(context: Context, redis_url: str) -> None:
    """Run arq until `context.stopping`; start it again whenever Redis takes it down."""
    wait_s = RESTART_FIRST_S
    while not context.stopping.is_set():
        started = asyncio.get_running_loop().time()
        try:
            await connect_and_work(context, redis_url)
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("queue_lost", error=type(error).__name__)
        if asyncio.get_running_loop().time() - started > RESTART_MAX_S:
            wait_s = RESTART_FIRST_S
        await set_within(context.stopping, wait_s * (0.5 + context.jitter() / 2))
        wait_s = min(wait_s * 2, RESTART_MAX_S)


async def connect_and_work(context: Context, redis_url: str) -> None:
    """One connection to Redis, until it is lost or `context.stopping`."""
    pool = open_pool(redis_url, timeout_s=context.settings.redis_timeout_s, watch=context.signals.note_redis)
    try:
        await _check_eviction(pool)
        await _work_until_stopped(
            context, make_worker(pool, context, job_timeout_s=context.settings.job_timeout_s)
        )
    finally:
        await pool.aclose(close_connection_pool=True)


async def _work_until_stopped(context: Context, worker: Worker) -> None:
    main = asyncio.create_task(worker.main(), name="arq")
    stop = asyncio.create_task(context.stopping.wait())
    try:
        await asyncio.wait({main, stop}, return_when=asyncio.FIRST_COMPLETED)
        if main.done():
            main.result()
            return
        worker.allow_pick_jobs = False
        await asyncio.gather(*worker.tasks.values(), return_exceptions=True)
    finally:
        # Not arq's close(): it calls Redis first, which may be away, and stops waiting at the first job that
        # was cancelled.
        jobs = list(worker.tasks.values())
        await cancel_all([main, stop, *jobs])
        # Redis took them all down; `queue_lost` says so once.
        for job in jobs:
            hear(job)


async def _check_eviction(pool: Redis) -> None:
    try:
        memory = await pool.info("memory")
    except ResponseError as error:
        # The user has no right to INFO, or the service has none. Should jobs be dropped, the rows remain.
        log.warning("eviction_policy_unknown", error=type(error).__name__)
        return
    refuse_evicting(memory)


def refuse_evicting(memory: dict[str, object]) -> None:
    """A Redis that may evict destroys jobs silently (A15). Raises ConfigError with the remedy. An
    unknown policy is accepted."""
    policy = memory.get("maxmemory_policy", "noeviction")
    if memory.get("maxmemory") and policy != "noeviction":
        raise ConfigError(
            f"REDIS_URL: maxmemory-policy is {policy}, which drops jobs; set it to noeviction, "
            "or use a Redis of Tallyhook's own"
        )
