"""arq's settings, each with the failure of the catalogue's table A that it meets."""

import asyncio
from typing import Any

import msgspec
from arq.connections import ArqRedis
from arq.utils import poll
from arq.worker import Worker as ArqWorker
from arq.worker import func

from app.queue import QUEUE_NAME, SETTLE_JOB, SUBMIT_JOB, serialize
from workers.context import Context
from workers.jobs import settle_job, submit_job

__all__ = ["Worker", "hear", "make_worker"]

MAX_JOBS = 8
"""Few fat jobs at once: each is one transaction of some hundreds of rows (A21, A22)."""
POLL_DELAY_S = 0.1
QUEUE_READ_LIMIT = 1_000
"""Above what the whole fleet runs at once, or jobs behind running ones would starve (A23)."""
MAX_TRIES = 1_000
"""arq counts each start, a deploy's too (A9); real failures are counted in the database."""


class Worker(ArqWorker):
    """arq's, without its first question: it logs what INFO says, and ends where the user may not ask it."""

    async def main(self) -> None:
        self.ctx["redis"] = self.pool
        async for _ in poll(self.poll_delay_s):
            await self._poll_iteration()

    async def finish_job(self, *args: Any, **kwargs: Any) -> None:
        """arq's, which it shields: when a fail-over ends the job meanwhile, nobody is left to hear how this
        ended, and asyncio would print a traceback of it."""
        if (task := asyncio.current_task()) is not None:
            task.add_done_callback(hear)
        await super().finish_job(*args, **kwargs)


def hear(task: "asyncio.Task[Any]") -> None:
    """Take notice of how a task ended, so that asyncio does not print what nobody asked for."""
    if not task.cancelled():
        task.exception()


def make_worker(pool: ArqRedis, context: Context, *, job_timeout_s: int) -> Worker:
    """An arq worker on our pool, with no signal handlers, results or hooks of arq's own (A3, A13, A19)."""
    if QUEUE_READ_LIMIT <= MAX_JOBS:
        raise ValueError("QUEUE_READ_LIMIT must exceed MAX_JOBS")
    ctx: dict[Any, Any] = {"tallyhook": context}
    return Worker(
        functions=[
            func(settle_job, name=SETTLE_JOB, keep_result=0),
            func(submit_job, name=SUBMIT_JOB, keep_result=0),
        ],
        redis_pool=pool,
        queue_name=QUEUE_NAME,
        ctx=ctx,
        handle_signals=False,
        max_jobs=MAX_JOBS,
        job_timeout=job_timeout_s,
        keep_result=0,
        poll_delay=POLL_DELAY_S,
        queue_read_limit=QUEUE_READ_LIMIT,
        max_tries=MAX_TRIES,
        allow_abort_jobs=False,
        log_results=False,
        job_serializer=serialize,
        job_deserializer=msgspec.json.decode,
    )
