"""When a task is late by its run's own measure."""

import itertools

from app.domain.early_polls import (
    EARLY_POLLS_MAX,
    FEW_MAX,
    LATE_MIN_MS,
    LATE_UNKNOWN_MS,
    SAMPLE,
    few_of,
    late_after_ms,
    sampled_ordinals,
    waits_ms,
)


def test_all_but_a_few_are_in_when_one_in_twenty_is_open() -> None:
    assert [few_of(tasks) for tasks in (1, 100, 5_000, 1_000_000)] == [20, 20, 250, FEW_MAX]


def test_a_sample_reads_as_much_of_every_run_and_from_all_of_it() -> None:
    assert sampled_ordinals(5) == [1, 2, 3, 4, 5]
    for tasks in (SAMPLE, 301, 5_000, 1_000_000):
        sample = sampled_ordinals(tasks)
        assert 0.6 * SAMPLE < len(sample) <= SAMPLE
        assert 1 <= sample[0] < sample[-1] <= tasks
        assert max(b - a for a, b in itertools.pairwise(sample)) <= 4 * tasks / SAMPLE + 1


def test_an_engine_is_judged_by_its_own_times_while_there_are_some() -> None:
    slow, fast = [60_000] * 20, [4_000] * 200
    assert late_after_ms(slow, fast + slow) == 75_000
    assert late_after_ms(fast, fast + slow) == LATE_MIN_MS
    assert late_after_ms([60_000], [*fast, 60_000]) == LATE_MIN_MS
    assert late_after_ms([], []) == LATE_UNKNOWN_MS


def test_one_answer_that_took_long_does_not_make_the_others_late() -> None:
    assert late_after_ms([10_000] * 99 + [600_000], []) == 12_500


def test_a_task_is_asked_for_further_and_further_apart_and_not_for_ever() -> None:
    assert waits_ms(10_000) == [10_000, 10_000, 20_000, 40_000]
    assert len(waits_ms(10_000)) == EARLY_POLLS_MAX
