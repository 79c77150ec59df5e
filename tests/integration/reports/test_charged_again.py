"""What attempts cost that retries replaced, twice and three times: every command counts all of them."""

import asyncio
import time
from decimal import Decimal

from app.domain.task import idempotency_key
from app.provider.wire import read_answer
from app.store import Database, Store
from tests.clock import SteppedClock
from tests.integration.services.pipeline import HOUR_MS, Pipeline
from tests.integration.test_hostile_bodies import Agreement, RunCommand, balances_url, run_command

__all__ = ["balances_url", "run_command"]

FAILURES = (3, 2, 0)
"""Of each task, charged with 5 credits each; then the first and the last are answered, and one stays out."""


async def charged_again(url: str) -> str:
    """The run."""
    store = Store(Database(url), read_answer)
    try:
        pipeline = Pipeline(store, SteppedClock(time.time_ns() // 1_000_000 - HOUR_MS))
        ids = await pipeline.start(len(FAILURES))
        await pipeline.submit()
        for attempt in range(1, max(FAILURES) + 1):
            failed = [i for i, n in zip(ids, FAILURES, strict=True) if n >= attempt]
            for task_id in failed:
                key = idempotency_key(task_id, attempt)
                await pipeline.deliver(pipeline.provider.finish(key, "FAILED", charged=Decimal(5)))
            assert await store.retries.retry_tasks_if_closed(failed, pipeline.clock.advance(1_000)) == len(
                failed
            )
            await pipeline.submit()
        for place in (0, 2):
            key = idempotency_key(ids[place], FAILURES[place] + 1)
            await pipeline.deliver(pipeline.provider.finish(key))
        await pipeline.books()
        return pipeline.run_id
    finally:
        await store.close()


def test_f5_all_that_failed_at_a_price_is_counted_by_every_command(
    run_command: RunCommand, store_url: str
) -> None:
    run_id = asyncio.run(charged_again(store_url))
    agreement = Agreement(run_command)
    agreement.check([run_id])
    assert agreement.posted["default"] == 35
    status, report = agreement.asked("status", run_id), agreement.asked("report", run_id)
    assert status["credits"] == {"charged": 35, "held": 5, "estimate": 40}
    verdicts = {name: n for name, n in report["verdicts"].items() if n}
    assert verdicts == {"matched": 2, "charged_failure": 5, "double_charged": 4}
