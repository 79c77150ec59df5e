"""Submission, named after the rows of the failure catalogue (table S), on both stores."""

import asyncio
import random
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from app.domain.send_outcome import Answer
from app.domain.submission import ClaimedTask, Submission
from app.domain.task import idempotency_key
from app.limits import to_ms
from app.ports import CreateAnswer, StoreUnavailable
from app.services.sender import FLUSH_EVERY_S
from app.services.submit import LEASE as LEASES
from tests.integration.services.pipeline import HOUR_MS, LIMITS, Pipeline, until
from tests.scripted_provider import LOSE, ScriptedProvider

SWEEP_MS = 5_000
LEASE = LEASES + "default"
CLAIM_MS = to_ms(LIMITS.claim_lease_s)


async def claim(pipeline: Pipeline, limit: int = 50, token: str = "killed") -> list[ClaimedTask]:
    """What a process has done just before it is killed: its claims, and nothing recorded."""
    now = pipeline.clock()
    return await pipeline.store.submissions.claim_pending(
        account="default", limit=limit, claim=token, now_ms=now, lease_until_ms=now + CLAIM_MS
    )


async def test_every_task_is_sent_once_and_held(pipeline: Pipeline) -> None:
    task_ids = await pipeline.start(120)
    summary = await pipeline.submit()
    assert summary.answers == Counter({Answer.ACCEPTED: 120})
    assert summary.again_in_ms is None
    assert pipeline.provider.sends == [idempotency_key(i, 1) for i in task_ids], "in the order of the source"
    books = await pipeline.books()
    assert books.states() == {"submitted": 120}
    assert len(books.entries("hold")) == 120
    assert (await pipeline.submit()).answers == {}, "nothing is left to send"


async def test_s1_a_crash_before_the_call_sends_the_same_key_later(pipeline: Pipeline) -> None:
    [task_id] = await pipeline.start(1)
    await claim(pipeline)
    assert (await pipeline.submit()).answers == {}, "the claim is somebody's until its lease is over"
    pipeline.clock.advance(CLAIM_MS)
    assert (await pipeline.sweep()).claims_released == 1
    await pipeline.submit()
    assert pipeline.provider.sends == [idempotency_key(task_id, 1)]
    assert (await pipeline.books()).states() == {"submitted": 1}


async def test_s2_a_crash_after_acceptance_makes_no_second_task(pipeline: Pipeline) -> None:
    [task_id] = await pipeline.start(1)
    [claimed] = await claim(pipeline)
    await pipeline.provider.create(claimed)
    pipeline.clock.advance(CLAIM_MS)
    await pipeline.sweep()
    summary = await pipeline.submit()
    assert summary.answers == {Answer.EXISTS: 1}
    key = idempotency_key(task_id, 1)
    assert pipeline.provider.sends == [key, key]
    books = await pipeline.books()
    assert books.task(task_id)["state"] == "submitted"
    assert books.task(task_id)["provider_task_id"] is None, "the 409 does not say it"
    # Its delivery finds it by our key, and tells its id.
    await pipeline.deliver(pipeline.provider.finish(key))
    row = (await pipeline.books()).task(task_id)
    assert (row["state"], row["provider_task_id"]) == ("completed", "pt-1-0")


async def test_s3_a_lost_response_and_then_409_is_success(pipeline: Pipeline) -> None:
    [task_id] = await pipeline.start(1)
    pipeline.provider.tell(LOSE)
    summary = await pipeline.submit()
    assert summary.answers == {Answer.LOST: 1}
    assert summary.again_in_ms is not None
    row = (await pipeline.books()).task(task_id)
    assert (row["state"], row["money"]) == ("pending", "none")
    assert (await pipeline.submit()).answers == {}, "not before its time"
    pipeline.clock.advance(summary.again_in_ms)
    assert (await pipeline.submit()).answers == {Answer.EXISTS: 1}
    books = await pipeline.books()
    assert books.states() == {"submitted": 1}
    assert books.entries("hold") == {idempotency_key(task_id, 1): Decimal(5)}
    assert {len(tasks) for tasks in pipeline.provider.accepted.values()} == {1}


async def test_s4_a_task_nobody_can_name_ends_expired_with_its_exposure_open(pipeline: Pipeline) -> None:
    [task_id] = await pipeline.start(1)
    pipeline.provider.tell(LOSE)
    pipeline.clock.advance((await pipeline.submit()).again_in_ms or 0)
    await pipeline.submit()
    key = idempotency_key(task_id, 1)
    pipeline.provider.finish(key)
    pipeline.clock.advance(HOUR_MS)
    await pipeline.sweep()
    assert pipeline.provider.polls == [key], "by our key, since no id is known"
    assert (await pipeline.books()).states() == {"submitted": 1}, "a 404 to a key says nothing"
    pipeline.clock.advance(24 * HOUR_MS)
    assert (await pipeline.sweep()).expired == 1
    row = (await pipeline.books()).task(task_id)
    assert (row["state"], row["error_code"]) == ("expired", "retention_over")
    assert (row["money"], row["credits_charged"]) == ("held", None), "unknown, not 0"


async def test_s4_a_late_report_after_expiry_still_posts(pipeline: Pipeline) -> None:
    [task_id] = await pipeline.start(1)
    pipeline.provider.tell(LOSE)
    await pipeline.submit()
    key = idempotency_key(task_id, 1)
    pipeline.clock.advance(25 * HOUR_MS)
    assert (await pipeline.sweep()).unidentified == 1
    row = (await pipeline.books()).task(task_id)
    assert (row["state"], row["error_code"], row["money"]) == ("expired", "unidentified", "none")
    await pipeline.deliver(pipeline.provider.finish(key))
    books = await pipeline.books()
    row = books.task(task_id)
    assert (row["state"], row["money"], row["credits_charged"]) == ("expired", "posted", Decimal(5))
    assert books.posted() == pipeline.provider.bill()


async def test_s5_a_key_that_may_be_forgotten_is_not_sent_again(pipeline: Pipeline) -> None:
    [task_id] = await pipeline.start(1)
    pipeline.provider.tell(LOSE)
    await pipeline.submit()
    pipeline.clock.advance(25 * HOUR_MS)
    pipeline.provider.forget([idempotency_key(task_id, 1)])
    # The worker was down all the time; its first job may run before its first sweep.
    for _ in range(3):
        await pipeline.submit()
        pipeline.clock.advance(1_000)
    assert len(pipeline.provider.sends) == 1
    assert {len(tasks) for tasks in pipeline.provider.accepted.values()} == {1}
    assert (await pipeline.sweep()).unidentified == 1
    assert (await pipeline.books()).states() == {"expired": 1}


async def test_s5_a_claim_of_a_dead_process_is_not_sent_again_after_a_day(pipeline: Pipeline) -> None:
    await pipeline.start(1)
    [claimed] = await claim(pipeline)
    await pipeline.provider.create(claimed)
    pipeline.clock.advance(25 * HOUR_MS)
    pipeline.provider.forget(list(pipeline.provider.bound))
    await pipeline.store.submissions.release_overdue_claims(pipeline.clock())
    # A submit job may run between the two statements of a sweep.
    await pipeline.submit()
    assert len(pipeline.provider.sends) == 1


async def test_s8_a_409_to_a_key_never_sent_stops_the_run(pipeline: Pipeline) -> None:
    task_ids = await pipeline.start(30)
    key_of_others = idempotency_key(task_ids[3], 1)
    pipeline.provider.bound.add(key_of_others)
    summary = await pipeline.submit(submit_in_flight=1)
    assert summary.answers[Answer.KEY_COLLISION] == 1
    assert summary.again_in_ms is None
    assert len(pipeline.provider.sends) == 4, "nothing more is sent"
    books = await pipeline.books()
    assert books.runs[0]["state"] == "stopped"
    assert key_of_others in books.runs[0]["reason"]
    row = books.task(task_ids[3])
    assert (row["state"], row["money"]) == ("pending", "none"), "not ours to settle"
    assert books.states() == {"submitted": 3, "pending": 27}


@pytest.mark.parametrize("end", [Answer.ACCEPTED, Answer.LOST, None])
async def test_s8_a_key_that_another_process_sent_meanwhile_is_ours(
    pipeline: Pipeline, end: Answer | None
) -> None:
    """The first process stood still before it sent, and its claim ran out: it comes second."""
    await pipeline.start(1)

    async def other_was_quicker(task: ClaimedTask) -> None:
        pipeline.provider.before_answer = None
        pipeline.clock.advance(CLAIM_MS)
        await pipeline.store.submissions.release_overdue_claims(pipeline.clock())
        for again in await claim(pipeline, token="other"):
            pipeline.provider.bound.add(again.idempotency_key)
            if end is not None:
                ended = Submission(again, end, pipeline.clock(), next_poll_at_ms=pipeline.clock() + 60_000)
                await pipeline.store.submissions.record_submissions([ended])

    pipeline.provider.before_answer = other_was_quicker
    pipeline.provider.tell(Answer.EXISTS)
    summary = await pipeline.submit(submit_in_flight=1, submit_job_s=CLAIM_MS / 500)
    assert summary.answers == {Answer.EXISTS: 1}
    assert (await pipeline.books()).runs[0]["state"] == "running"
    assert (await pipeline.books()).states() == {"submitted": 1}


async def test_s8_that_there_is_no_other_copy_may_be_stated_while_it_sends(pipeline: Pipeline) -> None:
    task_ids = await pipeline.start(10)
    pipeline.provider.bound.add(idempotency_key(task_ids[5], 1))

    async def say(task: ClaimedTask) -> None:
        if task.id == task_ids[2]:
            assert await pipeline.store.runs.resume_restored_run(pipeline.run_id)

    pipeline.provider.before_answer = say
    assert (await pipeline.submit(submit_in_flight=1)).answers == {Answer.ACCEPTED: 9, Answer.EXISTS: 1}


async def test_s9_a_delivery_may_overtake_the_submit_response(pipeline: Pipeline) -> None:
    task_ids = await pipeline.start(3)

    async def deliver_first(task: ClaimedTask) -> None:
        await pipeline.deliver(pipeline.provider.finish(task.idempotency_key))

    pipeline.provider.before_answer = deliver_first
    assert (await pipeline.submit()).answers == {Answer.ACCEPTED: 3}
    books = await pipeline.books()
    assert books.states() == {"completed": 3}
    assert books.posted() == pipeline.provider.bill()
    for task_id in task_ids:
        row = books.task(task_id)
        assert (row["provider_task_id"], row["credits_to_charge"]) != (None, None), "blanks are filled"
        assert row["claim"] is None


async def test_s10_without_credits_the_run_pauses_and_goes_on_later(pipeline: Pipeline) -> None:
    await pipeline.start(40)
    pipeline.provider.tell(*[None] * 10, *[Answer.NO_CREDITS] * 30)
    summary = await pipeline.submit(submit_in_flight=4)
    assert summary.again_in_ms is None
    assert len(pipeline.provider.sends) <= 10 + 4, "those in flight, and no more"
    books = await pipeline.books()
    assert books.states() == {"submitted": 10, "pending": 30}, "no failed rows"
    assert (books.runs[0]["state"], bool(books.runs[0]["reason"])) == ("paused", True)
    assert (await pipeline.submit()).answers == {}, "a paused run is not claimed"

    # The cycle may reset only days later; what was refused is not unidentified then.
    pipeline.clock.advance(72 * HOUR_MS)
    assert (await pipeline.sweep()).unidentified == 0
    pipeline.provider.script.clear()
    assert await pipeline.store.runs.resume_run_if_halted(pipeline.run_id)
    assert (await pipeline.submit()).answers == {Answer.ACCEPTED: 30}
    assert {len(tasks) for tasks in pipeline.provider.accepted.values()} == {1}


@pytest.mark.parametrize("seed", range(3))
async def test_s12_storms_of_429_lose_nothing_and_double_nothing(pipeline: Pipeline, seed: int) -> None:
    rng = random.Random(seed)
    await pipeline.start(60)
    storm = [Answer.RATE_LIMITED, Answer.RATE_LIMITED, Answer.QUEUE_FULL, Answer.UNAVAILABLE, None]
    pipeline.provider.tell(*(rng.choice(storm) for _ in range(400)))
    await submit_to_the_end(pipeline)
    assert (await pipeline.books()).states() == {"submitted": 60}
    assert {len(tasks) for tasks in pipeline.provider.accepted.values()} == {1}
    assert len(pipeline.provider.accepted) == 60


async def submit_to_the_end(pipeline: Pipeline, jobs_max: int = 500) -> None:
    """Jobs one after the other, each when the last one or a sweep says so."""
    for _ in range(jobs_max):
        summary = await pipeline.submit()
        if not (await pipeline.books()).states()["pending"]:
            return
        # What an earlier job left waiting is the sweep's to notice.
        pipeline.clock.advance(SWEEP_MS if summary.again_in_ms is None else max(summary.again_in_ms, 1))
    raise AssertionError("never at an end")


async def test_s12_a_full_queue_is_asked_again_after_minutes(pipeline: Pipeline) -> None:
    await pipeline.start(2)
    pipeline.provider.tell(Answer.QUEUE_FULL, CreateAnswer(Answer.RATE_LIMITED, 429, wait_s=7.0))
    summary = await pipeline.submit(submit_in_flight=1)
    now = pipeline.clock()
    waits = sorted(row["not_before_ms"] - now for row in (await pipeline.books()).tasks)
    assert summary.again_in_ms == waits[0]
    assert 7_000 <= waits[0] < 9_000, "what the provider asked for is the least"
    assert 60_000 <= waits[1] < 70_000


async def test_s12_a_pause_of_the_account_ends_the_job_and_sends_nothing(pipeline: Pipeline) -> None:
    await pipeline.start(100)
    pipeline.provider.tell(None, *[CreateAnswer(Answer.DEFERRED, wait_s=900.0)] * 8)
    summary = await pipeline.submit(submit_in_flight=2)
    assert summary.again_in_ms == 900_000
    assert len(pipeline.provider.sends) <= 3
    rows = (await pipeline.books()).tasks
    unsent = [row for row in rows if row["state"] == "pending"]
    assert len(unsent) == 99
    assert {(row["sends"], row["first_sent_at_ms"]) for row in unsent} == {(0, None)}
    assert (await pipeline.store.runs.cancel_run(pipeline.run_id, "enough")) == 99, "they never left us"


@pytest.mark.parametrize("seed", range(3))
async def test_s13_unknown_results_are_resent_under_the_same_key(pipeline: Pipeline, seed: int) -> None:
    rng = random.Random(seed)
    task_ids = await pipeline.start(40)
    faults = [LOSE, Answer.LOST, Answer.UNAVAILABLE, None]
    pipeline.provider.tell(*(rng.choice(faults) for _ in range(300)))
    await submit_to_the_end(pipeline)
    assert set(pipeline.provider.sends) == {idempotency_key(i, 1) for i in task_ids}
    assert {len(tasks) for tasks in pipeline.provider.accepted.values()} == {1}
    books = await pipeline.books()
    assert books.states() == {"submitted": 40}
    for key in pipeline.provider.accepted:
        pipeline.provider.finish(key)
    await pipeline.deliver(*(tasks[0] for tasks in pipeline.provider.accepted.values()))
    assert (await pipeline.books()).posted() == pipeline.provider.bill()


async def test_s14_a_revoked_key_stops_the_run(pipeline: Pipeline) -> None:
    await pipeline.start(100)
    pipeline.provider.tell(
        None, None, *[CreateAnswer(Answer.BAD_KEY, 401, "INVALID_OR_EXPIRED_API_KEY")] * 98
    )
    summary = await pipeline.submit(submit_in_flight=4)
    assert len(pipeline.provider.sends) <= 2 + 4
    assert summary.answers[Answer.ACCEPTED] == 2
    books = await pipeline.books()
    assert books.states() == {"submitted": 2, "pending": 98}
    assert books.runs[0]["state"] == "stopped"
    assert "INVALID_OR_EXPIRED_API_KEY" in books.runs[0]["reason"]
    assert (await pipeline.submit()).answers == {}


async def test_s15_a_rejected_task_is_final_and_the_others_go_on(pipeline: Pipeline) -> None:
    task_ids = await pipeline.start(5)
    refused = CreateAnswer(Answer.REJECTED, 400, "VALIDATION_ERROR", "bad (country: unknown)")
    pipeline.provider.tell(None, refused)
    await pipeline.submit(submit_in_flight=1)
    books = await pipeline.books()
    assert books.states() == {"submitted": 4, "rejected": 1}
    row = books.task(task_ids[1])
    assert row["error_code"] == "VALIDATION_ERROR"
    assert row["error_message"].startswith("bad (country: unknown")
    assert row["money"] == "none"


async def test_one_process_sends_at_a_time(pipeline: Pipeline) -> None:
    await pipeline.start(4)
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def hold(_: ClaimedTask) -> None:
        entered.set()
        await go_on.wait()

    pipeline.provider.before_answer = hold
    first = asyncio.create_task(pipeline.submit())
    await entered.wait()
    second = await pipeline.submit()
    assert second.busy and second.answers == {}
    go_on.set()
    assert (await first).answers == {Answer.ACCEPTED: 4}
    assert not (await pipeline.submit()).busy, "the lease was given back"


async def test_a_killed_sender_is_replaced_when_its_lease_is_over(pipeline: Pipeline) -> None:
    await pipeline.start(3)
    now = pipeline.clock()
    await pipeline.store.runs.acquire_lease(
        LEASE, "killed", until_ms=now + to_ms(LIMITS.submit_lease_s), now_ms=now
    )
    assert (await pipeline.submit()).busy
    pipeline.clock.advance(to_ms(LIMITS.submit_lease_s))
    assert (await pipeline.submit()).answers == {Answer.ACCEPTED: 3}


async def test_w2_a_sender_that_stood_still_stops_when_it_was_replaced(pipeline: Pipeline) -> None:
    await pipeline.start(50)
    store, provider = pipeline.store, pipeline.provider
    flushed = asyncio.Event()
    prolong = store.runs.acquire_lease

    async def tell(name: str, owner: str, **when: int) -> bool:
        got = await prolong(name, owner, **when)
        if not got:
            flushed.set()
        return got

    async def stand_still(_: ClaimedTask) -> None:
        if len(provider.sends) == 1:
            pipeline.clock.advance(to_ms(LIMITS.submit_lease_s))
            now = pipeline.clock()
            assert await prolong(LEASE, "other", until_ms=now + to_ms(LIMITS.submit_lease_s), now_ms=now)
        else:
            await flushed.wait()

    store.runs.acquire_lease = tell  # type: ignore[method-assign]
    provider.before_answer = stand_still
    summary = await pipeline.submit(token="slow", submit_in_flight=2, submit_job_s=86_400)
    assert len(provider.sends) <= 4, "those in flight when it noticed"
    assert summary.answers[Answer.DEFERRED] >= 46
    assert (await pipeline.submit()).busy, "the other's lease is left alone"
    assert (await pipeline.books()).states()["pending"] >= 46


async def test_the_lease_is_prolonged_in_time_and_not_at_each_record(pipeline: Pipeline) -> None:
    await pipeline.start(24)
    store, prolong = pipeline.store, pipeline.store.runs.acquire_lease
    ends_ms: list[int] = []
    left_ms: list[int] = []

    async def note(name: str, owner: str, *, until_ms: int, now_ms: int) -> bool:
        ends_ms.append(until_ms)
        return await prolong(name, owner, until_ms=until_ms, now_ms=now_ms)

    async def go_on(_: ClaimedTask) -> None:
        left_ms.append(ends_ms[-1] - pipeline.clock.advance(to_ms(LIMITS.submit_lease_s) / 80))
        await asyncio.sleep(FLUSH_EVERY_S * 1.1)

    store.runs.acquire_lease = note  # type: ignore[method-assign]
    pipeline.provider.before_answer = go_on
    await pipeline.submit(submit_in_flight=2, submit_job_s=86_400)
    assert 1 < len(ends_ms) < 6, "of twelve records"
    assert min(left_ms) > to_ms(LIMITS.submit_lease_s) / 2


async def test_w2_claims_kept_past_the_time_of_the_job_are_given_back(pipeline: Pipeline) -> None:
    task_ids = await pipeline.start(20)

    async def stand_still(_: ClaimedTask) -> None:
        pipeline.clock.advance(CLAIM_MS + 1)

    pipeline.provider.before_answer = stand_still
    summary = await pipeline.submit(submit_in_flight=1)
    assert summary.answers == {Answer.ACCEPTED: 1, Answer.DEFERRED: 19}
    assert summary.again_in_ms == 0
    rows = (await pipeline.books()).tasks
    assert {row["sends"] for row in rows if row["id"] in task_ids[1:]} == {0}, "they never left us"


async def test_w2_what_is_claimed_is_sent_within_its_lease_however_small_the_rate(pipeline: Pipeline) -> None:
    await pipeline.start(50)
    pipeline.provider.share_per_s = 2.0
    claims: list[tuple[int, int]] = []
    claim_pending = pipeline.store.submissions.claim_pending

    async def note(**how: Any) -> list[ClaimedTask]:
        claimed = await claim_pending(**how)
        claims.append((how["now_ms"], len(claimed)))
        return claimed

    async def take_a_turn(_: ClaimedTask) -> None:
        pipeline.clock.advance(500)

    pipeline.store.submissions.claim_pending = note  # type: ignore[method-assign]
    pipeline.provider.before_answer = take_a_turn
    summary = await pipeline.submit(submit_job_s=86_400, claim_lease_s=16)
    assert summary.answers == {Answer.ACCEPTED: 50}, "none was kept for too long"
    assert max(count for _, count in claims) == 4, "two seconds' worth"
    assert len(pipeline.provider.accepted) == 50


async def test_w2_a_claim_that_waited_for_half_of_its_lease_goes_back(pipeline: Pipeline) -> None:
    """Nobody knew that the provider would take so long for each."""
    await pipeline.start(20)

    async def be_slow(_: ClaimedTask) -> None:
        pipeline.clock.advance(CLAIM_MS // 5)

    pipeline.provider.before_answer = be_slow
    summary = await pipeline.submit(submit_job_s=86_400, submit_in_flight=1)
    assert summary.answers == {Answer.ACCEPTED: 3, Answer.DEFERRED: 17}
    assert summary.again_in_ms == 0, "and are claimed again at once"
    assert sorted(row["sends"] for row in (await pipeline.books()).tasks) == [0] * 17 + [1] * 3


async def test_w2_a_late_record_does_not_take_a_claim_back(pipeline: Pipeline) -> None:
    [task_id] = await pipeline.start(1)
    [first] = await claim(pipeline, token="first")
    pipeline.clock.advance(CLAIM_MS)
    await pipeline.store.submissions.release_overdue_claims(pipeline.clock())
    await claim(pipeline, token="second")
    for answer in (Answer.RATE_LIMITED, Answer.DEFERRED):
        await pipeline.store.submissions.record_submissions([Submission(first, answer, pipeline.clock())])
        row = (await pipeline.books()).task(task_id)
        assert (row["state"], row["claim"], row["sends"]) == ("submitting", "second", 2)


async def test_stopping_ends_early_and_leaves_the_rest_sendable(pipeline: Pipeline) -> None:
    await pipeline.start(200)
    summary = await pipeline.submit(stopping=lambda: len(pipeline.provider.sends) >= 10, submit_in_flight=2)
    assert summary.answers[Answer.ACCEPTED] <= 12
    books = await pipeline.books()
    assert books.states()["submitting"] == 0
    unsent = [row for row in books.tasks if row["state"] == "pending"]
    assert {row["sends"] for row in unsent} == {0}
    assert (await pipeline.submit()).answers == {Answer.ACCEPTED: len(unsent)}


async def test_a_job_that_is_cut_off_keeps_what_it_knows(pipeline: Pipeline) -> None:
    await pipeline.start(30)
    hung = asyncio.Event()

    async def hang(_: ClaimedTask) -> None:
        if len(pipeline.provider.sends) > 10:
            hung.set()
            await asyncio.Event().wait()

    pipeline.provider.before_answer = hang
    job = asyncio.create_task(pipeline.submit(submit_in_flight=2))
    await hung.wait()
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    states = (await pipeline.books()).states()
    assert states["submitted"] == 10, "answered, so recorded"
    assert states["pending"] == 20
    held = await pipeline.store.queries.progress(pipeline.run_id)
    assert held.states["submitting"] <= 2, "those that hung: their lease will tell"
    assert held.states["pending"] >= 18, "never sent, so given back"
    assert not (await pipeline.submit(provider=Deaf())).busy, "and the lease"


class Deaf(ScriptedProvider):
    """Takes nothing."""

    async def create(self, task: ClaimedTask) -> CreateAnswer:
        return CreateAnswer(Answer.UNAVAILABLE, 503)


async def test_the_last_records_are_committed_before_the_job_ends(pipeline: Pipeline) -> None:
    """Also those that the recorder had in hand when the last send ended."""
    await pipeline.start(6)
    store = pipeline.store
    recording, go_on = asyncio.Event(), asyncio.Event()
    record = store.submissions.record_submissions

    async def slowly(ended: Any) -> None:
        recording.set()
        await go_on.wait()
        await record(ended)

    async def last(_: ClaimedTask) -> None:
        if len(pipeline.provider.sends) == 6:
            await recording.wait()

    store.submissions.record_submissions = slowly  # type: ignore[method-assign]
    pipeline.provider.before_answer = last
    job = asyncio.create_task(pipeline.submit(submit_in_flight=1))
    await until(lambda: len(pipeline.provider.sends) == 6 and recording.is_set())
    await asyncio.sleep(0)
    assert not job.done()
    go_on.set()
    await job
    assert (await pipeline.books()).states() == {"submitted": 6}
    assert not (await pipeline.submit()).busy, "and nothing prolongs the lease afterwards"


@pytest.mark.parametrize("committed", [False, True])
async def test_a_job_that_is_cut_off_while_it_records(pipeline: Pipeline, committed: bool) -> None:
    """`committed`: the records were, but their writer has not heard of it yet."""
    await pipeline.start(6)
    store = pipeline.store
    recording, go_on = asyncio.Event(), asyncio.Event()
    record = store.submissions.record_submissions

    async def slowly(ended: Any) -> None:
        if committed:
            await record(ended)
        recording.set()
        await go_on.wait()
        if not committed:
            await record(ended)

    async def last(_: ClaimedTask) -> None:
        if len(pipeline.provider.sends) == 6:
            await asyncio.Event().wait()

    store.submissions.record_submissions = slowly  # type: ignore[method-assign]
    pipeline.provider.before_answer = last
    job = asyncio.create_task(pipeline.submit(submit_in_flight=1))
    await recording.wait()
    job.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not job.done(), "what it has in hand is recorded first"
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await job
    books = await pipeline.books()
    assert books.states() == {"submitted": 5, "pending": 1}
    assert (await pipeline.submit()).answers == {}, "its claim lasts"
    assert len(books.submissions) == 5, "each send is logged once"
    pipeline.clock.advance(CLAIM_MS)
    pipeline.provider.before_answer = None
    await pipeline.sweep()
    assert (await pipeline.submit()).answers == {Answer.EXISTS: 1}


async def test_records_that_failed_once_are_tried_again_at_the_end(pipeline: Pipeline) -> None:
    await pipeline.start(6)
    store = pipeline.store
    record = store.submissions.record_submissions
    failed = asyncio.Event()

    async def fail_once(ended: Any) -> None:
        if not failed.is_set():
            failed.set()
            raise StoreUnavailable("restarting")
        await record(ended)

    async def last(_: ClaimedTask) -> None:
        if len(pipeline.provider.sends) == 6:
            await failed.wait()

    store.submissions.record_submissions = fail_once  # type: ignore[method-assign]
    pipeline.provider.before_answer = last
    with pytest.raises(StoreUnavailable):
        await pipeline.submit(submit_in_flight=1)
    states = (await pipeline.books()).states()
    assert states["submitted"] >= 5, "their answers were not forgotten"


@pytest.mark.parametrize("cut", [False, True])
async def test_an_absent_store_leaves_everything_waiting(pipeline: Pipeline, cut: bool) -> None:
    """`cut`: the records were committed, only the word of it was lost (W4)."""
    task_ids = await pipeline.start(5)
    store = pipeline.store
    record = store.submissions.record_submissions

    async def away(ended: Any) -> None:
        if cut:
            await record(ended)
        raise StoreUnavailable("stopped")

    store.submissions.record_submissions = away  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        await pipeline.submit()
    store.submissions.record_submissions = record  # type: ignore[method-assign]
    assert (await pipeline.books()).states() == ({"submitted": 5} if cut else {"pending": 5})
    assert (await pipeline.submit()).answers == {}, "claimed until the lease is over"
    pipeline.clock.advance(CLAIM_MS)
    await pipeline.sweep()
    assert (await pipeline.submit()).answers == ({} if cut else {Answer.EXISTS: 5})
    assert (await pipeline.books()).states() == {"submitted": 5}
    assert set(pipeline.provider.sends) == {idempotency_key(i, 1) for i in task_ids}


async def test_a_store_that_goes_away_at_the_claim_is_reported_as_such(pipeline: Pipeline) -> None:
    await pipeline.start(1)

    async def away(**_: Any) -> Any:
        raise StoreUnavailable("stopped")

    pipeline.store.submissions.claim_pending = away  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        await pipeline.submit()


async def test_a_bug_is_not_taken_for_an_absent_store(pipeline: Pipeline) -> None:
    await pipeline.start(3)

    async def bug(_: ClaimedTask) -> None:
        raise KeyError("bug")

    pipeline.provider.before_answer = bug
    with pytest.raises(ExceptionGroup) as caught:
        await pipeline.submit()
    assert caught.group_contains(KeyError)
    assert not (await pipeline.submit(provider=Deaf())).busy


async def test_a_run_pauses_at_its_budget(pipeline: Pipeline) -> None:
    await pipeline.start(10, budget=Decimal(22))
    assert (await pipeline.submit()).answers == {Answer.ACCEPTED: 4}
    books = await pipeline.books()
    assert books.states() == {"submitted": 4, "pending": 6}
    assert (books.runs[0]["state"], books.runs[0]["reason"]) == ("paused", "budget reached")
    assert {row["sends"] for row in books.tasks if row["state"] == "pending"} == {0}


async def test_a_lost_send_counts_against_the_budget_and_is_resent(pipeline: Pipeline) -> None:
    await pipeline.start(3, budget=Decimal(10))
    pipeline.provider.tell(LOSE)
    again = (await pipeline.submit(submit_in_flight=1)).again_in_ms
    assert len(pipeline.provider.accepted) == 2
    pipeline.clock.advance(again or 0)
    await pipeline.store.runs.resume_run_if_halted(pipeline.run_id)
    assert (await pipeline.submit()).answers == {Answer.EXISTS: 1}, "the same key cannot cost twice"
    assert sum((await pipeline.books()).entries("hold").values()) == 10


@pytest.mark.parametrize(
    "refused",
    [
        CreateAnswer(Answer.RATE_LIMITED, 429, "RATE_LIMIT_EXCEEDED"),
        CreateAnswer(Answer.QUEUE_FULL, 429, "QUEUE_LIMIT_EXCEEDED"),
        CreateAnswer(Answer.UNAVAILABLE, None, None, "cannot connect"),
        CreateAnswer(Answer.MISDIRECTED, 404, "RESOURCE_NOT_FOUND"),
    ],
    ids=["rate", "queue", "no connection", "no route"],
)
async def test_s5_what_was_only_ever_refused_is_sent_whatever_its_age(
    pipeline: Pipeline, refused: CreateAnswer
) -> None:
    await pipeline.start(3)
    for _ in range(26):
        pipeline.provider.tell(refused, refused, refused)
        await pipeline.submit()
        pipeline.provider.script.clear()
        await pipeline.sweep()
        pipeline.clock.advance(HOUR_MS)
    assert (await pipeline.books()).states() == {"pending": 3}, "neither given up nor taken"
    await pipeline.submit()
    assert (await pipeline.books()).states() == {"submitted": 3}
    await pipeline.deliver(*(pipeline.provider.finish(key) for key in list(pipeline.provider.accepted)))
    assert (await pipeline.books()).states() == {"completed": 3}


async def test_s5_a_lost_send_keeps_its_age_whatever_is_refused_after_it(pipeline: Pipeline) -> None:
    [task_id] = await pipeline.start(1)
    pipeline.provider.tell(LOSE)
    await pipeline.submit()
    for _ in range(22):
        pipeline.clock.advance(HOUR_MS)
        pipeline.provider.tell(CreateAnswer(Answer.RATE_LIMITED, 429, "RATE_LIMIT_EXCEEDED"))
        await pipeline.submit()
        pipeline.provider.script.clear()
    pipeline.provider.forget([idempotency_key(task_id, 1)])
    await pipeline.submit()
    assert {len(tasks) for tasks in pipeline.provider.accepted.values()} == {1}, "never bought twice"
    assert (await pipeline.sweep()).unidentified == 1
    assert (await pipeline.books()).states() == {"expired": 1}
