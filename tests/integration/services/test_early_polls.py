"""A run whose last webhooks were lost ends when its answers are late, not with the regular poll."""

import itertools
from collections import defaultdict

from app.domain.early_polls import EARLY_POLLS_MAX, LATE_MIN_MS, LATE_UNKNOWN_MS
from app.domain.task import idempotency_key
from app.limits import to_ms
from app.services.sweep import VANISHED_POLLS
from tests.integration.services.pipeline import LIMITS, Pipeline

TASKS = 200
STEP_MS = 2_500
SWEEP_MS = to_ms(LIMITS.sweep_every_s)
ALL_EARLY_MS = 40_000


def takes_ms(n: int) -> int:
    """How long the provider takes for the n-th task: 20 to 40 s."""
    return 20_000 + n * 7_919 % 20_000


class Polled:
    """When each task was asked for."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.times: dict[str, list[int]] = defaultdict(list)

    async def sweep(self) -> None:
        before = len(self._pipeline.provider.polls)
        await self._pipeline.sweep()
        for task in self._pipeline.provider.polls[before:]:
            self.times[task].append(self._pipeline.clock())


async def run_to_the_end(pipeline: Pipeline, lost: set[int], *, steps: int = 100) -> tuple[int, Polled]:
    """Seconds from the first send to the last answer, and who was asked for when."""
    task_ids = await pipeline.start(TASKS)
    began, polled = pipeline.clock(), Polled(pipeline)
    await pipeline.submit()
    waiting = {n: idempotency_key(i, 1) for n, i in enumerate(task_ids)}
    for _ in range(steps):
        age = pipeline.clock.advance(STEP_MS) - began
        done = [n for n in waiting if takes_ms(n) <= age]
        finished = {n: pipeline.provider.finish(waiting.pop(n)) for n in done}
        if came := [task for n, task in finished.items() if n not in lost]:
            await pipeline.deliver(*came)
        if age % SWEEP_MS == 0:
            await polled.sweep()
        if (await pipeline.store.queries.progress(pipeline.run_id)).open == 0:
            break
    return (pipeline.clock() - began) // 1_000, polled


async def test_r17_a_run_of_which_one_webhook_in_fifty_is_lost_takes_no_twice_as_long(
    pipeline: Pipeline,
) -> None:
    alone_s, none = await run_to_the_end(pipeline, set())
    assert not none.times, "nothing was late"
    lost_s, polled = await run_to_the_end(pipeline, set(range(0, TASKS, 50)))
    assert alone_s <= 40
    assert lost_s < 1.5 * alone_s
    assert len(polled.times) == TASKS // 50
    assert (await pipeline.books()).states() == {"completed": 2 * TASKS}


async def test_r17_a_task_that_takes_long_is_asked_for_a_few_times_only(pipeline: Pipeline) -> None:
    task_ids = await pipeline.start(30)
    began, polled = pipeline.clock(), Polled(pipeline)
    await pipeline.submit()
    pipeline.clock.advance(2_000)
    await pipeline.deliver(*(pipeline.provider.finish(idempotency_key(i, 1)) for i in task_ids[1:]))
    while pipeline.clock() - began < 4 * ALL_EARLY_MS:
        pipeline.clock.advance(SWEEP_MS - pipeline.clock() % SWEEP_MS)
        await polled.sweep()
    ((_, times),) = polled.times.items()
    ages = [time - began for time in times]
    assert ages[:EARLY_POLLS_MAX] == [5_000, 10_000, 20_000, 40_000]
    assert all(b - a >= LATE_MIN_MS for a, b in itertools.pairwise(times))
    assert len(times) <= EARLY_POLLS_MAX + 1, "from there on as ever"


async def test_r17_nobody_is_asked_for_early_while_most_of_a_run_is_under_way(pipeline: Pipeline) -> None:
    task_ids = await pipeline.start(100)
    await pipeline.submit()
    pipeline.clock.advance(1_000)
    await pipeline.deliver(*(pipeline.provider.finish(idempotency_key(i, 1)) for i in task_ids[:79]))
    pipeline.clock.advance(LATE_UNKNOWN_MS)
    assert (await pipeline.sweep()).polled == 0
    await pipeline.deliver(*(pipeline.provider.finish(idempotency_key(i, 1)) for i in task_ids[79:80]))
    assert (await pipeline.sweep()).polled == 20


async def test_r17_a_small_run_without_any_webhook_is_asked_for_after_two_minutes(pipeline: Pipeline) -> None:
    task_ids = await pipeline.start(5)
    await pipeline.submit()
    for i in task_ids:
        pipeline.provider.finish(idempotency_key(i, 1))
    pipeline.clock.advance(LATE_UNKNOWN_MS - 1)
    assert (await pipeline.sweep()).polled == 0
    pipeline.clock.advance(1)
    assert (await pipeline.sweep()).found_finished == 5


async def test_w13_early_polls_give_no_task_up(pipeline: Pipeline) -> None:
    task_ids = await pipeline.start(30)
    await pipeline.submit()
    await pipeline.deliver(*(pipeline.provider.finish(idempotency_key(i, 1)) for i in task_ids[1:]))
    pipeline.provider.unknown = True
    for _ in range(VANISHED_POLLS + 1):
        pipeline.clock.advance(LATE_MIN_MS * 2**EARLY_POLLS_MAX)
        await pipeline.sweep()
    assert (await pipeline.books()).states() == {"completed": 29, "submitted": 1}
