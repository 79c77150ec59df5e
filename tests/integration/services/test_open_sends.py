"""A refusal after a send of the same key that nobody answered for: it closes nothing and buys no second."""

from decimal import Decimal

import pytest
import sqlalchemy as sa

from app.domain.send_outcome import Answer
from app.domain.task import TaskState
from app.ports import CreateAnswer
from app.services.certify import certify
from app.store.read.verification import open_snapshot
from app.store.tables import submissions, tasks
from app.store.write.retries import RetriedChunk
from tests.integration.services.pipeline import HOUR_MS, Pipeline
from tests.integration.verify.scene import verified
from tests.scripted_provider import LOSE

REFUSED = CreateAnswer(Answer.REJECTED, 400, "VALIDATION_ERROR", "no such country")
NO_CONNECTION = CreateAnswer(Answer.UNAVAILABLE, message="cannot connect")
OWN_500 = CreateAnswer(Answer.UNAVAILABLE, 500, "INTERNAL_SERVER_ERROR", "boom")
OWN_502 = CreateAnswer(Answer.UNAVAILABLE, 502, "EXTERNAL_SERVICE_ERROR", "upstream")
OWN_503 = CreateAnswer(Answer.UNAVAILABLE, 503, "SERVICE_UNAVAILABLE", "later")
CANCELED = CreateAnswer(Answer.UNAVAILABLE, 499, "REQUEST_CANCELED", "gone")
OLD_5XX = CreateAnswer(Answer.UNAVAILABLE, 503, None, "Maximum retries exceeded")
PAGE = CreateAnswer(Answer.GATEWAY, 504, message="HTTP 504, text/html")


async def send_and_record(pipeline: Pipeline, *answers: object) -> None:
    """One task, sent as often as there are answers."""
    await pipeline.start(1)
    for answer in answers:
        pipeline.provider.tell(answer)  # type: ignore[arg-type]
        await pipeline.submit()
        pipeline.clock.advance(61_000)


async def state_and_money(pipeline: Pipeline) -> tuple[str, str]:
    (task,) = (await pipeline.books()).tasks
    return task["state"], task["money"]


async def retry(pipeline: Pipeline, *, even_if_held: bool = False) -> RetriedChunk:
    states = [TaskState.REJECTED, TaskState.EXPIRED, TaskState.FAILED]
    return await pipeline.store.retries.retry_chunk(
        pipeline.run_id, states, after=0, limit=100, even_if_held=even_if_held, now_ms=pipeline.clock()
    )


async def agreed(pipeline: Pipeline, *, complete: bool) -> None:
    """The books are derived again alike, and the certificate says the same of them."""
    async with open_snapshot(pipeline.store.db) as snapshot:
        totals = await verified(snapshot)
    assert not totals.differences, "\n".join(map(str, totals.differences))
    document = await certify(pipeline.store, pipeline.run_id, clock=pipeline.clock)
    assert document["complete"] is complete, document["statement"]


@pytest.mark.parametrize(
    "first",
    [LOSE, Answer.LOST, PAGE, OWN_500, OWN_502, CANCELED, OLD_5XX],
    ids=["accepted", "lost", "gateway", "500", "502", "499", "old"],
)
async def test_f2_a_refusal_closes_nothing_while_an_earlier_send_is_open(
    pipeline: Pipeline, first: object
) -> None:
    await send_and_record(pipeline, first, REFUSED)
    assert await state_and_money(pipeline) == ("submitted", "held")
    await agreed(pipeline, complete=False)
    assert (await retry(pipeline)).retried == 0
    # It is not sent again either: the provider has refused it.
    sends = len(pipeline.provider.sends)
    await pipeline.submit()
    assert len(pipeline.provider.sends) == sends


async def test_f2_the_report_of_what_was_refused_settles_it(pipeline: Pipeline) -> None:
    await pipeline.start(20)
    pipeline.provider.tell(*[LOSE] * 20)
    await pipeline.submit()
    pipeline.clock.advance(61_000)
    pipeline.provider.tell(*[REFUSED] * 20)
    await pipeline.submit()
    assert (await retry(pipeline)).retried == 0
    await pipeline.deliver(*(pipeline.provider.finish(key) for key in list(pipeline.provider.accepted)))
    books = await pipeline.books()
    assert {(task["state"], task["money"], task["error_code"]) for task in books.tasks} == {
        ("completed", "posted", None)
    }
    assert books.posted() == pipeline.provider.bill()
    assert all(len(bought) == 1 for bought in pipeline.provider.accepted.values()), "none was bought twice"
    await agreed(pipeline, complete=True)


async def test_f2_a_claim_whose_end_nobody_wrote_down_is_such_a_send(pipeline: Pipeline) -> None:
    await pipeline.start(1)
    now = pipeline.clock()
    await pipeline.store.submissions.claim_pending(
        limit=1, claim="killed", now_ms=now, lease_until_ms=now + 1_000
    )
    pipeline.clock.advance(1_001)
    await pipeline.store.submissions.release_overdue_claims(pipeline.clock())
    pipeline.provider.tell(REFUSED)
    await pipeline.submit()
    assert await state_and_money(pipeline) == ("submitted", "held")
    await agreed(pipeline, complete=False)


@pytest.mark.parametrize(
    "before",
    [(), (Answer.RATE_LIMITED, Answer.QUEUE_FULL), (NO_CONNECTION,), (OWN_503,), (Answer.NO_CREDITS,)],
    ids=["first", "limits", "no connection", "503", "credits"],
)
async def test_f2_a_refusal_closes_what_nobody_can_have_taken(
    pipeline: Pipeline, before: tuple[object, ...]
) -> None:
    await pipeline.start(1)
    for answer in (*before, REFUSED):
        pipeline.provider.tell(answer)  # type: ignore[arg-type]
        await pipeline.submit()
        pipeline.clock.advance(200_000)
        await pipeline.store.runs.resume_run_if_halted(pipeline.run_id)
    assert await state_and_money(pipeline) == ("rejected", "none")
    await agreed(pipeline, complete=True)
    assert (await retry(pipeline)).retried == 1


async def test_f2_without_a_report_it_expires_and_its_money_stays_open(pipeline: Pipeline) -> None:
    await send_and_record(pipeline, LOSE, REFUSED)
    pipeline.provider.unknown = True  # an edition that is not asked by key
    pipeline.clock.advance(25 * HOUR_MS)
    await pipeline.sweep()
    assert await state_and_money(pipeline) == ("expired", "held")
    await agreed(pipeline, complete=False)
    left = await retry(pipeline)
    assert (left.retried, left.held) == (0, 1)
    assert (await retry(pipeline, even_if_held=True)).retried == 1, "said so on purpose"


async def test_f2_what_a_version_before_closed_is_not_bought_again_in_silence(pipeline: Pipeline) -> None:
    await send_and_record(pipeline, LOSE)
    (key,) = pipeline.provider.accepted
    async with pipeline.store.db.engine.begin() as connection:
        row = {"answer": "rejected", "http_status": 404, "at_ms": pipeline.clock(), "attempt": 1}
        await connection.execute(sa.insert(submissions).values(task_id=pipeline.task_ids[0], **row))
        await connection.execute(
            sa.update(tasks).values(state="rejected", sends=2, error_code=None, error_message=None)
        )
    await agreed(pipeline, complete=False)
    left = await retry(pipeline)
    assert (left.retried, left.held) == (0, 1)
    await pipeline.deliver(pipeline.provider.finish(key, charged=Decimal(5)))
    assert await state_and_money(pipeline) == ("completed", "posted")
    await agreed(pipeline, complete=True)


async def test_f2_a_late_refusal_after_the_report_changes_nothing(pipeline: Pipeline) -> None:
    await send_and_record(pipeline, LOSE)

    async def first_reported(task: object) -> None:
        (key,) = pipeline.provider.accepted
        await pipeline.deliver(pipeline.provider.finish(key))

    pipeline.provider.before_answer = first_reported
    pipeline.provider.tell(REFUSED)
    await pipeline.submit()
    assert await state_and_money(pipeline) == ("completed", "posted")
    await agreed(pipeline, complete=True)


async def test_f2_a_retry_on_purpose_keeps_what_a_version_before_closed_in_the_certificate(
    pipeline: Pipeline,
) -> None:
    await send_and_record(pipeline, LOSE)
    async with pipeline.store.db.engine.begin() as connection:
        row = {"answer": "rejected", "http_status": 404, "at_ms": pipeline.clock(), "attempt": 1}
        await connection.execute(sa.insert(submissions).values(task_id=pipeline.task_ids[0], **row))
        await connection.execute(sa.update(tasks).values(state="rejected", sends=2))
    assert (await retry(pipeline, even_if_held=True)).retried == 1
    await pipeline.submit()
    keys = list(pipeline.provider.accepted)
    await pipeline.deliver(pipeline.provider.finish(keys[-1]))
    document = await certify(pipeline.store, pipeline.run_id, clock=pipeline.clock)
    assert [q["question"] for q in document["open_questions"]] == [
        "1 task that the provider may have charged without our knowing, up to 5 credits"
    ]
    await pipeline.deliver(pipeline.provider.finish(keys[0]))
    assert (await certify(pipeline.store, pipeline.run_id, clock=pipeline.clock))["complete"]
