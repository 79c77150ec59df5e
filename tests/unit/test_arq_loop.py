"""What a fail-over of Redis leaves behind in arq: errors that nobody waits for any more."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as RedisGone

from app.queue import open_pool
from tests.servers.processes import free_port
from workers.arq_loop import _work_until_stopped
from workers.arq_settings import Worker, make_worker


async def finish_of_a_job_that_is_gone(worker: Worker) -> None:
    """As arq calls it; the job is cancelled, and the shielded end of it goes on alone."""
    ended = asyncio.ensure_future(worker.finish_job("a job", True, None, None, False, None, None))
    await asyncio.wait({ended})


async def jobs_beside_the_first_that_failed(worker: Worker) -> None:
    """All jobs meet the same fail-over; arq raises the error of one."""

    async def fails() -> None:
        raise RedisGone("fail-over")

    worker.tasks.update({str(n): asyncio.create_task(fails()) for n in range(3)})
    with pytest.raises(RedisGone):
        await _work_until_stopped(cast(Any, SimpleNamespace(stopping=asyncio.Event())), worker)
    worker.tasks.clear()


@pytest.mark.parametrize(
    "failing", [finish_of_a_job_that_is_gone, jobs_beside_the_first_that_failed], ids=lambda one: one.__name__
)
async def test_f16_no_traceback_of_a_fail_over_is_printed(
    failing: Callable[[Worker], Awaitable[None]],
) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    pool = open_pool(f"redis://127.0.0.1:{free_port()}/0", timeout_s=20)
    try:
        await failing(make_worker(pool, cast(Any, None), job_timeout_s=10))
        gc.collect()
        assert not told
    finally:
        await pool.aclose(close_connection_pool=True)
