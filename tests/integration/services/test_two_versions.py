"""Two processes that end the sends of one attempt, and rows as the version before wrote them: the books are
derived again as they stand, and the certificate says the same.
"""

import asyncio

import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from app.domain.send_outcome import Answer
from app.domain.submission import Submission
from app.provider.wire import read_answer
from app.store import Database, Store
from app.store.tables import submissions, tasks
from tests.clock import SteppedClock
from tests.integration.services.pipeline import Pipeline
from tests.integration.services.test_open_sends import agreed
from tests.integration.store.scenes import rows

BLOCKED = (
    "SELECT count(*) AS n FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


@pytest.mark.parametrize("is_first", [False, True])
async def test_f2_acceptances_that_a_version_before_recorded_together(
    pipeline: Pipeline, is_first: bool
) -> None:
    """It took any one of them, and of the others not even what was to be filled in."""
    await pipeline.start(1)
    await pipeline.submit()
    at_ms = pipeline.clock()
    late_ms = pipeline.clock.advance(75)
    blank = {"provider_task_id": None, "credits_to_charge": None}
    async with pipeline.store.db.engine.begin() as connection:
        row = {"answer": "exists", "http_status": 409, "at_ms": late_ms, "attempt": 1}
        await connection.execute(sa.insert(submissions).values(task_id=pipeline.task_ids[0], **row))
        taken = {"submitted_at_ms": at_ms} if is_first else {"submitted_at_ms": late_ms, **blank}
        await connection.execute(sa.update(tasks).values(sends=2, **taken))
    await agreed(pipeline, complete=False)
    (key,) = pipeline.provider.accepted
    await pipeline.deliver(pipeline.provider.finish(key))
    await agreed(pipeline, complete=True)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Answer.UNAVAILABLE, Answer.REJECTED),  # what the first tells decides what the refusal closes
        (Answer.ACCEPTED, Answer.EXISTS),
    ],
)
async def test_f2_two_that_end_one_attempt_log_it_in_the_order_of_what_they_did(
    postgres_url: str, clock: SteppedClock, first: Answer, second: Answer
) -> None:
    """The first is held up by the row of another task when the second comes."""
    stores = [Store(Database(postgres_url), read_answer) for _ in range(3)]
    try:
        pipeline = Pipeline(stores[0], clock)
        await pipeline.start(2)
        ends = await _sent_twice(pipeline, first, second)
        async with stores[2].db.engine.begin() as other:
            await other.execute(
                sa.select(tasks.c.id).where(tasks.c.id == pipeline.task_ids[1]).with_for_update()
            )
            one = asyncio.create_task(stores[0].submissions.record_submissions(ends[:2]))
            await _until_blocked(stores[2], 1, one)
            two = asyncio.create_task(stores[1].submissions.record_submissions(ends[2:]))
            await _until_blocked(stores[2], 2, two)
        await asyncio.gather(one, two)
        await agreed(pipeline, complete=False)
    finally:
        for store in stores:
            await store.close()


async def _sent_twice(pipeline: Pipeline, first: Answer, second: Answer) -> list[Submission]:
    """Ends of a claim of both tasks, which ran out for the first one, and of that one's next claim."""
    now, store = pipeline.clock(), pipeline.store
    one = await store.submissions.claim_pending(limit=1, claim="one", now_ms=now, lease_until_ms=now + 1)
    one += await store.submissions.claim_pending(
        limit=1, claim="one", now_ms=now, lease_until_ms=now + 60_000
    )
    now = pipeline.clock.advance(75)
    await store.submissions.release_overdue_claims(now)
    two = await store.submissions.claim_pending(limit=2, claim="two", now_ms=now, lease_until_ms=now + 60_000)
    ended = [
        Submission(
            task, answer, now, next_poll_at_ms=now + 600_000, http_status=503, code="SERVICE_UNAVAILABLE"
        )
        for task, answer in ((one[0], first), (one[1], Answer.LOST), (two[0], second))
    ]
    return [*ended[:2], replace(ended[2], at_ms=now + 75, http_status=400, code="VALIDATION_ERROR")]


async def _until_blocked(store: Store, count: int, recording: "asyncio.Task[None]") -> None:
    async with asyncio.timeout(30):
        while not recording.done():
            if (await rows(store, BLOCKED))[0]["n"] >= count:
                return
            await asyncio.sleep(0.01)
