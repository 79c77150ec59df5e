"""`python -m workers`: the entry point of a worker process. Wires its parts and keeps arq and the duties
running; decides nothing of what they do.

No duty needs Redis: while it is away, the sweep goes on settling and submitting from the database alone.
"""

from app.stop_signals import ending_signals, exit_on_signals

if __name__ == "__main__":
    # Before all else: what follows takes a second to import.
    exit_on_signals()

import asyncio
import contextlib
import functools
import gc
import os
import sys
from collections.abc import Awaitable, Callable

import structlog
import uvloop

from app import log as logging
from app.background_tasks import WorkFailed, keep_running
from app.bootstrap import CLOCK, jitter, now_ms, open_provider, open_queue, open_store
from app.config import ConfigError, Settings, load_settings
from app.descriptors import allowed_descriptors
from app.errors import UserError
from app.local.embedded import embedded_valkey
from app.log_sink import guard_standard_streams
from app.notice_client import open_notice_client
from app.signals.scrape import scraped, traced
from workers.arq_loop import run_arq
from workers.context import Context
from workers.duties.archive import run_archive
from workers.duties.audits import run_audits
from workers.duties.bulk_changes import run_bulk_changes
from workers.duties.engine_days import run_engine_days
from workers.duties.heartbeat import read_time, run_alive
from workers.duties.idempotency import run_key_cleaning
from workers.duties.lost_webhooks import run_lost_webhook_search
from workers.duties.notices import run_notices
from workers.duties.partitions import run_partitions
from workers.duties.pruning import run_pruning
from workers.duties.relay import run_relay
from workers.duties.schedules import run_schedules
from workers.duties.state import run_state
from workers.duties.sweep import run_sweep
from workers.duties.wakes import run_wakes
from workers.periodic import cancel_all
from workers.probes import Probes, heartbeat_file
from workers.signals import WorkerSignals
from workers.webhook_address import WebhookAddress

log = structlog.get_logger(__name__)

DRAIN_S = 20.0
"""After SIGTERM, running work may finish for this long. Below the usual grace of 30 s (A9)."""

GARBAGE_AFTER = 50_000
"""Objects made and not yet let go, before garbage is looked for. A group of deliveries makes some thousands
that live until its commit; with Python's 700 they were gone through again and again."""

Duty = Callable[[Context], Awaitable[None]]


async def serve(settings: Settings) -> None:
    """Run one worker process until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    open_notice_client(settings)  # refuses, before anything is started, settings of notices that cannot work
    with embedded_valkey(settings) as redis_url:
        async with contextlib.AsyncExitStack() as clients:
            store, signals = await open_store(settings), WorkerSignals()
            clients.push_async_callback(store.close)
            queue = open_queue(redis_url, settings, watch=signals.note_redis)
            clients.push_async_callback(queue.close)
            signals.watch_database("database", store.db)
            signals.watch_clock(CLOCK.machine_ahead_s)
            signals.watch_pool("redis", queue.connections)
            clients.enter_context(traced("worker", is_wanted=settings.traces))
            providers = {
                name: await clients.enter_async_context(
                    open_provider(
                        settings,
                        name,
                        redis_url=redis_url,
                        watch=signals.of_account(name),
                        watch_redis=signals.note_redis,
                    )
                )
                for name in settings.all_accounts()
            }
            address = WebhookAddress(settings, store, providers, monotonic=loop.time)
            context = Context(
                settings, store, providers, queue, now_ms, jitter, address=address, signals=signals
            )
            probes = Probes(context)
            await clients.enter_async_context(
                scraped(signals, probes, host=settings.metrics_host, port=settings.metrics_port)
            )
            await clients.enter_async_context(heartbeat_file(context, probes))
            for signum in ending_signals():
                loop.add_signal_handler(signum, context.stopping.set)
            await read_time(context, CLOCK)
            # Objects that live as long as the process are not collected again: 5 % of the time of settling.
            gc.collect()
            gc.freeze()
            gc.set_threshold(GARBAGE_AFTER)
            allowed_descriptors()
            log.info("worker_started", accounts=sorted(providers))
            await run_until_stopped(context, redis_url)
    log.info("worker_stopped")


async def run_until_stopped(context: Context, redis_url: str) -> None:
    """Run arq and the duties until `context.stopping`. A fault that needs a person (ConfigError), and a task
    that cannot be kept running (WorkFailed), end all."""
    work = context.work = _start_duties(context, redis_url)
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


def _start_duties(context: Context, redis_url: str) -> list[asyncio.Task[None]]:
    """A task for each, which is begun again when it fails."""
    duties: dict[str, Duty] = {
        "run_arq": lambda context: run_arq(context, redis_url),
        "run_alive": lambda context: run_alive(context, CLOCK if context.clock is now_ms else None),
        "run_sweep": run_sweep,
        "run_wakes": run_wakes,
        "run_schedules": run_schedules,
        "run_audits": run_audits,
        "run_lost_webhook_search": run_lost_webhook_search,
        "run_notices": run_notices,
        "run_relay": run_relay,
        "run_bulk_changes": run_bulk_changes,
        "run_pruning": run_pruning,
        "run_partitions": run_partitions,
        "run_key_cleaning": run_key_cleaning,
        "run_archive": run_archive,
        "run_state": run_state,
        "run_engine_days": run_engine_days,
    }
    return [
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
    except UserError as error:
        sys.stderr.write(f"worker: {error.message}: {error.remedy}\n")
        return 2
    except WorkFailed as error:
        sys.stderr.write(f"worker: had to end: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
