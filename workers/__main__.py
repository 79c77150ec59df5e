"""`python -m workers`: supervises arq, and sweeps on a timer that needs no Redis.

arq ends its process when Redis is away for seconds (A11). Here it is started again with backoff, and
meanwhile the sweep goes on settling and submitting from the database alone.
"""

from app.stop_signals import end_at_once_when_told, ending_signals

if __name__ == "__main__":
    # Before all else: what follows takes a second to import.
    end_at_once_when_told()

import asyncio
import contextlib
import functools
import gc
import os
import sys
import uuid
from collections.abc import Awaitable, Callable

import structlog
import uvloop
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from app import log as logging
from app.background_tasks import WorkFailed, keep_running
from app.bootstrap import (
    CLOCK,
    jitter,
    now_ms,
    open_provider,
    open_queue,
    open_store,
    submit_limits,
    sweep_limits,
)
from app.config import ConfigError, Settings, load_settings
from app.local.embedded import embedded_valkey
from app.log_sink import guard_standard_streams
from app.notice_client import open_poster
from app.queue import open_pool
from app.services.funding import Funding
from app.services.isolated import Isolated
from app.services.sweep import SweepLimits, SweepSummary, sweep
from workers.arq_settings import Worker, make_worker
from workers.duties.audits import run_audits
from workers.duties.heartbeat import longest_moments, read_time, run_alive
from workers.duties.lost_webhooks import run_lost_webhook_search
from workers.duties.notices import run_notices
from workers.duties.schedules import run_schedules
from workers.jobs import Context, begin_sending, reach_of, settle_now, tell_set_aside
from workers.periodic import cancel_all, run_every, sleep_until

log = structlog.get_logger(__name__)

RESTART_FIRST_S = 0.5
RESTART_MAX_S = 10.0
DRAIN_S = 20.0
"""After SIGTERM: what runs may finish for this long. Below the usual grace of 30 s (A9)."""

Duty = Callable[[Context], Awaitable[None]]


async def run_arq(context: Context, redis_url: str) -> None:
    """Run arq until told to stop; again from the start whenever Redis takes it down."""
    wait_s = RESTART_FIRST_S
    while not context.stopping.is_set():
        started = asyncio.get_running_loop().time()
        try:
            await _one_life(context, redis_url)
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("queue_lost", error=type(error).__name__)
        if asyncio.get_running_loop().time() - started > RESTART_MAX_S:
            wait_s = RESTART_FIRST_S
        await sleep_until(wait_s * (0.5 + context.jitter() / 2), context.stopping)
        wait_s = min(wait_s * 2, RESTART_MAX_S)


async def _one_life(context: Context, redis_url: str) -> None:
    pool = open_pool(redis_url, timeout_s=context.settings.redis_timeout_s)
    try:
        await _look_at_eviction(pool)
        await _work(context, make_worker(pool, context, job_timeout_s=context.settings.job_timeout_s))
    finally:
        await pool.aclose(close_connection_pool=True)


async def _work(context: Context, worker: Worker) -> None:
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
        # Not arq's close(): it asks Redis first, which may be away, and stops waiting at the first job that
        # was cancelled.
        await cancel_all([main, stop, *worker.tasks.values()])


async def _look_at_eviction(pool: Redis) -> None:
    try:
        memory = await pool.info("memory")
    except ResponseError as error:
        # The user may not ask, or the service knows no INFO. Should jobs be dropped, the rows still stand.
        log.warning("eviction_policy_unknown", error=type(error).__name__)
        return
    refuse_evicting(memory)


def refuse_evicting(memory: dict[str, object]) -> None:
    """A Redis that may evict destroys jobs silently (A15). Raises ConfigError with the remedy. A policy that
    is not told is not known to be harmful."""
    policy = memory.get("maxmemory_policy", "noeviction")
    if memory.get("maxmemory") and policy != "noeviction":
        raise ConfigError(
            f"REDIS_URL: maxmemory-policy is {policy}, which drops jobs; set it to noeviction, "
            "or use a Redis of Tallyhook's own"
        )


async def run_sweep(context: Context) -> None:
    """Sweep every few seconds, in whichever worker holds the lease."""
    owner = uuid.uuid4().hex
    limits = sweep_limits(context.settings)
    unreleased: set[str] = set()
    funding = Funding(
        context.store,
        context.providers,
        clock=context.clock,
        probe_ms=round(context.settings.credits_probe_s * 1000),
    )
    await run_every(
        lambda: _sweep_once(context, owner, limits, funding, unreleased),
        name="sweep",
        every_s=context.settings.sweep_every_s,
        stopping=context.stopping,
    )


async def _sweep_once(
    context: Context, owner: str, limits: SweepLimits, funding: Funding, unreleased: set[str]
) -> None:
    now = context.clock()
    until_ms = now + round(context.settings.sweep_lease_s * 1000)
    if not await context.store.runs.acquire_lease("sweep", owner, until_ms=until_ms, now_ms=now):
        return
    alone, each, summary = asyncio.Semaphore(), Isolated(), SweepSummary()
    try:
        with each.alone():
            if moved := await context.store.future_times.bring_back_moments(
                now, longest_moments(context.settings)
            ):
                log.warning("future_times_reset", count=moved)
        with each.alone():
            summary = await sweep(
                context.store,
                context.providers,
                # Not behind the jobs: they may all hang.
                lambda ids: settle_now(context, ids, slots=alone),
                limits=limits,
                clock=context.clock,
                unreleased=unreleased,
                reach=functools.partial(reach_of, context),
                each=each,
            )
        with each.alone():
            if resumed := await funding.resume_due():
                log.info("resumed", runs=resumed)
    finally:
        await context.store.runs.release_lease("sweep", owner)
    if not summary.is_idle():
        tell_set_aside(summary.set_aside)
        figures = {name: getattr(summary, name) for name in summary.__slots__}
        log.info("swept", **figures | {"set_aside": len(summary.set_aside)})
    each.finish()


async def run_wakes(context: Context) -> None:
    """See to it that what is due is sent, by the rows alone and in every worker: that the queue took a wake
    is no sign that anybody works it off."""
    before: set[str] = set()

    async def look() -> None:
        nonlocal before
        before = await wake_senders(context, before)

    await run_every(look, name="wakes", every_s=context.settings.sweep_every_s, stopping=context.stopping)


async def wake_senders(context: Context, before: set[str]) -> set[str]:
    """Wake whoever sends for the accounts that have something due, which are returned. Where the queue does
    not take it, or an account was due `before` already, this process begins: a lease keeps out who is not
    needed."""
    due = set(await context.store.queries.accounts_with_due(context.clock())) & context.providers.keys()
    if due and (not await context.queue.wake_submit() or due & before):
        begin_sending(context)
    return due


async def serve(settings: Settings) -> None:
    """Run one worker process until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    open_poster(settings)  # refuses, before anything is started, settings of notices that cannot work
    with embedded_valkey(settings) as redis_url:
        store = await open_store(settings)
        queue = open_queue(redis_url, settings)
        async with contextlib.AsyncExitStack() as clients:
            providers = {
                name: await clients.enter_async_context(open_provider(settings, name, redis_url=redis_url))
                for name in settings.all_accounts()
            }
            context = Context(
                settings, store, providers, queue, submit_limits(settings), clock=now_ms, jitter=jitter
            )
            for signum in ending_signals():
                loop.add_signal_handler(signum, context.stopping.set)
            await read_time(context, CLOCK)
            # What lives as long as the process is not looked through again: 5 % of the time of settling.
            gc.collect()
            gc.freeze()
            log.info("worker_started", accounts=sorted(providers), webhook_url=settings.webhook_url)
            try:
                await run_until_stopped(context, redis_url)
            finally:
                await queue.close()
                await store.close()
    log.info("worker_stopped")


async def run_until_stopped(context: Context, redis_url: str) -> None:
    """arq and the work beside it until told to stop. A fault that needs a person (ConfigError), and work that
    cannot be kept running (WorkFailed), end all."""
    duties: dict[str, Duty] = {
        "run_arq": lambda one: run_arq(one, redis_url),
        "run_alive": lambda one: run_alive(one, CLOCK if one.clock is now_ms else None),
        "run_sweep": run_sweep,
        "run_wakes": run_wakes,
        "run_schedules": run_schedules,
        "run_audits": run_audits,
        "run_lost_webhook_search": run_lost_webhook_search,
        "run_notices": run_notices,
    }
    work = [
        asyncio.create_task(
            keep_running(
                functools.partial(duty, context),
                name=name,
                is_over=context.stopping.is_set,
                fatal=(ConfigError,),
            ),
            name=name,
        )
        for name, duty in duties.items()
    ]
    stop = asyncio.create_task(context.stopping.wait())
    try:
        await asyncio.wait([*work, stop], return_when=asyncio.FIRST_COMPLETED)
    finally:
        context.stopping.set()
        monotonic_s = asyncio.get_running_loop().time
        until_s = monotonic_s() + DRAIN_S
        await cancel_all([*work, stop], within_s=DRAIN_S)
        if context.sending is not None:
            # It sees `stopping`, records what it sent and gives back the rest.
            await cancel_all([context.sending], within_s=max(until_s - monotonic_s(), 1.0))
    for task in work:
        if not task.cancelled():
            task.result()


def main() -> int:
    """The process's entry; 2 for a setting that is wrong, 1 for work that could not be kept running."""
    guard_standard_streams()
    os.umask(0o077)  # logs and databases hold what is nobody else's to read
    try:
        settings = load_settings()
        logging.configure(settings.log_format, settings.log_level)
        uvloop.run(serve(settings))
    except ConfigError as error:
        sys.stderr.write(f"worker: {error}\n")
        return 2
    except WorkFailed as error:
        sys.stderr.write(f"worker: had to end: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
