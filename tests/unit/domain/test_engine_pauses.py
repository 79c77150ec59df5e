"""When an engine is paused for its failing answers, and when its probes let it go on."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from app.domain.engine_pauses import EnginePause, after_results, new_pauses, pause_reason, probe_after_ms
from app.domain.notices.failing_engines import EngineBounds, EngineResult
from app.domain.run_reason import ReasonCode

BOUNDS = EngineBounds(success_min=0.5, tasks=4, usable_chars_min=20)
GOOD = EngineResult("default", "GROK", True, 500, sent_at_ms=100)
BAD = GOOD._replace(completed=False)
SHORT = GOOD._replace(chars=19)
PAUSE = EnginePause("default", "GROK", 100, 10, 4, 1, 160)


def numbered(results: Sequence[EngineResult], first: int = 11) -> list[EngineResult]:
    """Oldest first, with their places."""
    return [result._replace(seq=seq) for seq, result in enumerate(results, first)]


def paused(results: Sequence[EngineResult], *known: EnginePause, success_min: float = 0.5) -> list[str]:
    """Engines that are paused for these results, the oldest first."""
    newest_first = numbered(results)[::-1]
    bounds = replace(BOUNDS, success_min=success_min)
    return [p.task_type for p in new_pauses(newest_first, bounds, known, now_ms=100, probe_at_ms=160)]


def test_an_engine_that_fails_is_paused_and_no_other() -> None:
    other = GOOD._replace(task_type="CHATGPT")
    (pause,) = new_pauses(
        numbered([BAD, other, SHORT, other, BAD, other, GOOD, other])[::-1],
        BOUNDS,
        (),
        now_ms=100,
        probe_at_ms=160,
    )
    assert pause == EnginePause("default", "GROK", 100, 18, 4, 1, 160)
    assert paused([BAD] * 3) == paused([BAD] * 4, success_min=0) == paused([]) == []


def test_what_was_judged_before_it_went_on_does_not_count_again() -> None:
    assert paused([BAD] * 4, PAUSE) == [], "it is paused already"
    assert paused([BAD] * 4, replace(PAUSE, paused_at_ms=None)) == ["GROK"]
    assert paused([BAD] * 4, replace(PAUSE, paused_at_ms=None, judged_seq=11)) == []
    assert paused([BAD] * 4, replace(PAUSE, paused_at_ms=None, judged_seq=99, account="eu")) == ["GROK"]


@pytest.mark.parametrize(
    ("results", "in_row", "goes_on"),
    [
        ([GOOD] * 2, 2, False),
        ([GOOD] * 3, 3, True),
        ([GOOD, GOOD, BAD, GOOD], 1, False),
        ([GOOD, GOOD, SHORT], 0, False),
        ([BAD, GOOD, GOOD, GOOD, BAD], 3, True),
        ([GOOD._replace(sent_at_ms=99)] * 3, 0, False),
        ([GOOD._replace(task_type="CHATGPT")] * 3, 0, False),
        ([GOOD._replace(account="eu")] * 3, 0, False),
    ],
)
def test_three_usable_answers_in_a_row_of_what_was_sent_since_end_a_pause(
    results: Sequence[EngineResult], in_row: int, goes_on: bool
) -> None:
    after = after_results(PAUSE, numbered(results), BOUNDS.usable_chars_min)
    assert (after.usable_in_row, after.paused_at_ms is None) == (in_row, goes_on)
    assert after.judged_seq == 10 + len(results)
    one_by_one = PAUSE
    for result in numbered(results):
        one_by_one = after_results(one_by_one, [result], BOUNDS.usable_chars_min)
    assert (one_by_one.usable_in_row, one_by_one.paused_at_ms is None) == (in_row, goes_on)


def test_a_result_is_judged_once() -> None:
    seen = after_results(PAUSE, numbered([GOOD] * 2), 20)
    assert after_results(seen, numbered([GOOD] * 2), 20) == seen
    assert after_results(seen, [], 20) == seen


def test_probes_are_spread_and_the_reason_says_all() -> None:
    assert [probe_after_ms(60_000, jitter) for jitter in (0.0, 0.5)] == [60_000, 75_000]
    reason = pause_reason([PAUSE, replace(PAUSE, task_type="GEMINI", usable=0, probe_at_ms=3_600_000)])
    assert reason.code is ReasonCode.ENGINES_FAIL
    assert reason.text == (
        "waiting: GEMINI fails (0 of its last 4 results usable), next try at 01:00 UTC; "
        "GROK fails (1 of its last 4 results usable), next try at 00:00 UTC"
    )
