"""What the failure drill says of its figures."""

from typing import Any

import pytest

from benchmarks.drill.figures import Fault, failings, longest_gap_s, missed_rate

FINE: dict[str, Any] = {
    "lost": 0,
    "doubled": 0,
    "unexplained": 0,
    "verified": True,
    "differences": 0,
    "mean_share": 0.983,
    "refused_429": 0,
}


@pytest.mark.parametrize(
    ("from_ms", "to_ms", "gap_s"), [(0, 900, 0.4), (1_500, 1_600, 4.0), (5_500, 6_000, 0.5)]
)
def test_a_gap_belongs_to_each_fault_that_it_touches(from_ms: int, to_ms: int, gap_s: float) -> None:
    times = [100, 500, 600, 1_000, 5_000, 5_400, 5_900]
    assert longest_gap_s(times, Fault("one", from_ms, to_ms)) == gap_s


def test_without_two_events_there_is_no_gap() -> None:
    assert longest_gap_s([100], Fault("one", 0, 900)) is None


@pytest.mark.parametrize("name", ["lost", "doubled", "unexplained"])
def test_each_is_a_failure(name: str) -> None:
    assert failings(FINE) == []
    assert failings(FINE | {name: 2}) == [f"2 {name}"]


def test_a_difference_is_a_failure() -> None:
    assert failings(FINE | {"verified": False, "differences": 3}) == ["verify --all found 3 differences"]


def test_a_missed_rate_is_said() -> None:
    assert missed_rate(FINE) == []
    assert missed_rate(FINE | {"mean_share": 0.979}) == ["97.9% of the provider's limit, not 98%"]
    assert missed_rate(FINE | {"refused_429": 1}) == ["1 calls refused with 429 while nothing happened"]
