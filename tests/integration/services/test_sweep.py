"""The sweep, named after the rows of the failure catalogue (tables S, R and W), on both stores."""

import asyncio
import itertools
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from app.domain.task import idempotency_key
from app.limits import to_ms
from app.ports import PollAnswer, StoreUnavailable
from app.provider.wire import read_answer
from app.services.sweep import BATCHES_MAX, VANISHED_POLLS
from app.store import Database, Store
from tests.integration.services.pipeline import HOUR_MS, LIMITS, Pipeline
from tests.scripted_provider import LOSE, ScriptedProvider

POLL_AFTER_MS = to_ms(LIMITS.poll_after_s)
POLL_EVERY_MS = to_ms(LIMITS.poll_every_s)
SWEEP_AFTER_MS = to_ms(LIMITS.sweep_after_s)


async def test_an_idle_sweep_does_nothing(pipeline: Pipeline) -> None:
    assert (await pipeline.sweep()).is_idle()
    await pipeline.start(2)
    await pipeline.submit()
    assert (await pipeline.sweep()).is_idle(), "nothing is overdue yet"


async def test_w3_a_delivery_whose_wake_was_lost_is_settled(pipeline: Pipeline) -> None:
    task_ids = await pipeline.start(45)
    await pipeline.submit()
    await pipeline.receive(*(pipeline.provider.finish(idempotency_key(i, 1)) for i in task_ids))
    assert (await pipeline.sweep()).deliveries == 0, "its job may still be on the way"
    pipeline.clock.advance(SWEEP_AFTER_MS)
    assert (await pipeline.sweep()).deliveries == 45
    assert (await pipeline.books()).states() == {"completed": 45}
    assert (await pipeline.sweep()).is_idle()


async def test_r17_a_delivery_that_never_came_is_fetched(pipeline: Pipeline) -> None:
    task_ids = await pipeline.start(30)
    await pipeline.submit()
    for i in task_ids[:25]:
        pipeline.provider.finish(idempotency_key(i, 1))
    pipeline.clock.advance(POLL_AFTER_MS)
    summary = await pipeline.sweep()
    assert (summary.polled, summary.found_finished, summary.expired) == (30, 25, 0)
    books = await pipeline.books()
    assert books.states() == {"completed": 25, "submitted": 5}
    assert Counter(row["settled_by"] for row in books.tasks) == {"poll": 25, None: 5}
    assert Counter(row["source"] for row in books.deliveries) == {"poll": 25}
    # The webhook that comes after all is a duplicate.
    await pipeline.deliver(*(tasks[0] for tasks in list(pipeline.provider.accepted.values())[:25]))
    assert (await pipeline.books()).posted() == {
        key: charged for key, charged in pipeline.provider.bill().items() if charged
    }


async def test_an_unfinished_task_is_asked_less_and_less_often(pipeline: Pipeline) -> None:
    await pipeline.start(1)
    await pipeline.submit()
    pipeline.clock.advance(POLL_AFTER_MS)
    asked_at = []
    for _ in range(20):
        if (await pipeline.sweep()).polled:
            asked_at.append(pipeline.clock())
        pipeline.clock.advance(POLL_EVERY_MS)
    waits = [(b - a) // POLL_EVERY_MS for a, b in itertools.pairwise(asked_at)]
    assert waits == sorted(waits) and waits[0] <= 2 and waits[-1] >= 4


async def test_a_charge_that_never_came_is_asked_for(pipeline: Pipeline) -> None:
    [task_id] = await pipeline.start(1)
    await pipeline.submit()
    done = pipeline.provider.finish(idempotency_key(task_id, 1))
    await pipeline.deliver(done.body(creditsCharged=None))
    pipeline.clock.advance(POLL_EVERY_MS)
    assert (await pipeline.sweep()).found_finished == 1
    books = await pipeline.books()
    assert books.posted() == {done.key: Decimal(5)}
    assert books.tasks[0]["next_poll_at_ms"] is None, "nothing is left to ask"


async def test_a_charge_the_provider_forgot_stays_unknown_and_is_asked_no_more(pipeline: Pipeline) -> None:
    [task_id] = await pipeline.start(1)
    await pipeline.submit()
    key = idempotency_key(task_id, 1)
    await pipeline.deliver(pipeline.provider.finish(key).body(creditsCharged=None))
    pipeline.provider.forget([key])
    pipeline.clock.advance(25 * HOUR_MS)
    await pipeline.sweep()
    [row] = (await pipeline.books()).tasks
    assert (row["state"], row["money"], row["credits_charged"]) == ("completed", "held", None)
    assert row["next_poll_at_ms"] is None


class Moody(ScriptedProvider):
    """One id always fails; the rest is answered."""

    async def poll(self, task_id_or_key: str) -> PollAnswer:
        if task_id_or_key == "pt-1-0":
            self.polls.append(task_id_or_key)
            return PollAnswer(found=None)
        return await ScriptedProvider.poll(self, task_id_or_key)


async def test_w12_one_that_always_fails_does_not_hold_up_the_rest(pipeline: Pipeline) -> None:
    pipeline.provider = Moody()
    task_ids = await pipeline.start(6)
    await pipeline.submit(submit_in_flight=1)
    for i in task_ids:
        pipeline.provider.finish(idempotency_key(i, 1))
    pipeline.clock.advance(POLL_AFTER_MS)
    for _ in range(6):
        await pipeline.sweep(poll_size=1)
    assert (await pipeline.books()).states() == {"completed": 5, "submitted": 1}
    assert pipeline.provider.polls.count("pt-1-0") == 1, "it waits for its next turn"


async def test_w13_a_404_past_retention_expires_and_leaves_the_money_open(pipeline: Pipeline) -> None:
    [task_id] = await pipeline.start(1)
    await pipeline.submit()
    key = idempotency_key(task_id, 1)
    pipeline.provider.finish(key)
    pipeline.provider.forget([key])
    pipeline.clock.advance(24 * HOUR_MS)
    assert (await pipeline.sweep()).expired == 1
    [row] = (await pipeline.books()).tasks
    assert (row["state"], row["error_code"], row["money"]) == ("expired", "retention_over", "held")
    await pipeline.deliver(pipeline.provider.accepted[key][0])
    books = await pipeline.books()
    assert (books.tasks[0]["state"], books.posted()) == ("expired", {key: Decimal(5)})


async def test_w13_a_404_before_retention_counts_only_when_it_is_repeated(pipeline: Pipeline) -> None:
    await pipeline.start(1)
    await pipeline.submit()
    pipeline.provider.unknown = True
    pipeline.clock.advance(POLL_AFTER_MS)
    expired = []
    for _ in range(VANISHED_POLLS):
        assert (await pipeline.books()).states() == {"submitted": 1}
        expired.append((await pipeline.sweep()).expired)
        pipeline.clock.advance(POLL_EVERY_MS * VANISHED_POLLS)
    assert expired == [0] * (VANISHED_POLLS - 1) + [1]
    assert (await pipeline.books()).tasks[0]["error_code"] == "vanished"


async def test_w13_an_id_that_was_never_known_expires_only_with_its_retention(pipeline: Pipeline) -> None:
    await pipeline.start(1)
    pipeline.provider.tell(LOSE)
    pipeline.clock.advance((await pipeline.submit()).again_in_ms or 0)
    await pipeline.submit()
    pipeline.clock.advance(POLL_AFTER_MS)
    for _ in range(2 * VANISHED_POLLS):
        await pipeline.sweep()
        pipeline.clock.advance(POLL_EVERY_MS * 8)
    assert len(pipeline.provider.polls) > VANISHED_POLLS
    assert (await pipeline.books()).states() == {"submitted": 1}


async def test_w13_an_unusable_answer_expires_nothing(pipeline: Pipeline) -> None:
    pipeline.provider = Moody()
    await pipeline.start(1)
    await pipeline.submit()
    pipeline.clock.advance(30 * HOUR_MS)
    assert (await pipeline.sweep()).expired == 0
    assert (await pipeline.books()).states() == {"submitted": 1}


@pytest.mark.parametrize("lost", [True, False])
async def test_r17_a_report_in_the_inbox_is_read_before_its_task_is_given_up(
    pipeline: Pipeline, lost: bool
) -> None:
    """The receiver was up, every worker was down for more than a day."""
    [task_id] = await pipeline.start(1)
    if lost:
        pipeline.provider.tell(LOSE)
    await pipeline.submit()
    key = idempotency_key(task_id, 1)
    await pipeline.receive(pipeline.provider.finish(key))
    pipeline.provider.forget([key])
    pipeline.clock.advance(25 * HOUR_MS)
    summary = await pipeline.sweep()
    assert (summary.unidentified, summary.expired) == (0, 0)
    books = await pipeline.books()
    assert books.states() == {"completed": 1}
    assert books.posted() == pipeline.provider.bill()


async def test_r17_nothing_is_given_up_while_the_inbox_is_not_read_to_its_end(pipeline: Pipeline) -> None:
    tasks = BATCHES_MAX + 10
    task_ids = await pipeline.start(tasks)
    pipeline.provider.tell(*[LOSE] * tasks)
    await pipeline.submit()
    await pipeline.receive(*(pipeline.provider.finish(idempotency_key(i, 1)) for i in task_ids))
    pipeline.clock.advance(25 * HOUR_MS)
    first = await pipeline.sweep(settle_size=1)
    assert (first.deliveries, first.unidentified) == (BATCHES_MAX, 0)
    second = await pipeline.sweep(settle_size=1)
    assert (second.deliveries, second.unidentified) == (10, 0)
    assert (await pipeline.books()).states() == {"completed": tasks}


async def test_w11_eight_sweeps_at_once_settle_once(pipeline: Pipeline, store_url: str) -> None:
    task_ids = await pipeline.start(40)
    await pipeline.submit()
    done = [pipeline.provider.finish(idempotency_key(i, 1)) for i in task_ids]
    await pipeline.receive(*done[:20])
    pipeline.clock.advance(POLL_AFTER_MS)
    others = [Store(Database(store_url, pool_size=1), read_answer) for _ in range(8)]
    try:
        sweeps = [Pipeline(store, pipeline.clock, pipeline.provider) for store in others]
        await asyncio.gather(*(each.sweep() for each in sweeps))
    finally:
        for store in others:
            await store.close()
    pipeline.clock.advance(SWEEP_AFTER_MS)
    await pipeline.sweep()
    books = await pipeline.books()
    assert books.states() == {"completed": 40}
    assert books.posted() == pipeline.provider.bill()
    assert max(Counter(pipeline.provider.polls).values()) == 1, "each task was asked for by one of them"


class Killed(BaseException):
    """Nothing that a worker could catch."""


async def test_r23_one_that_kills_its_worker_is_quarantined_in_the_end(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    [task_id] = await pipeline.start(1)
    await pipeline.submit()
    await pipeline.receive(pipeline.provider.finish(idempotency_key(task_id, 1)))

    async def dies(_: Any) -> Any:
        raise Killed

    monkeypatch.setattr(pipeline, "settle", dies)
    for _ in range(LIMITS.deliveries_tries_max):
        pipeline.clock.advance(SWEEP_AFTER_MS)
        with pytest.raises(Killed):
            await pipeline.sweep()
    pipeline.clock.advance(SWEEP_AFTER_MS)
    await pipeline.sweep()
    [row] = (await pipeline.books()).deliveries
    assert (row["state"], row["tries"]) == ("quarantined", LIMITS.deliveries_tries_max)


async def test_one_that_kills_its_workers_takes_no_neighbour_along(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_ids = await pipeline.start(10)
    await pipeline.submit()
    ids = await pipeline.receive(*(pipeline.provider.finish(idempotency_key(i, 1)) for i in task_ids))
    settle = pipeline.settle

    async def dies(chosen: list[str]) -> Any:
        if ids[3] in chosen:
            raise Killed
        return await settle(chosen)

    monkeypatch.setattr(pipeline, "settle", dies)
    kills = 0
    for _ in range(3 * LIMITS.deliveries_tries_max):
        pipeline.clock.advance(SWEEP_AFTER_MS)
        try:
            summary = await pipeline.sweep()
        except Killed:
            kills += 1
        else:
            if summary.set_aside:
                break
    assert (kills, list(summary.set_aside)) == (LIMITS.deliveries_tries_max, [ids[3]])
    assert (await pipeline.books()).states() == {"completed": 10}, "its task was late, and asked for"


async def test_a_store_that_goes_away_in_the_middle_loses_nothing(pipeline: Pipeline) -> None:
    task_ids = await pipeline.start(3)
    await pipeline.submit()
    for i in task_ids:
        pipeline.provider.finish(idempotency_key(i, 1))
    pipeline.clock.advance(POLL_AFTER_MS)
    store = pipeline.store
    keep = store.inbox.store_deliveries

    async def away(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("stopped")

    store.inbox.store_deliveries = away  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        await pipeline.sweep()
    store.inbox.store_deliveries = keep  # type: ignore[method-assign]
    pipeline.clock.advance(POLL_EVERY_MS)
    assert (await pipeline.sweep()).found_finished == 3
    assert (await pipeline.books()).states() == {"completed": 3}
