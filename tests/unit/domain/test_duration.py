"""Durations as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.time_format import DURATION_MS_MAX, DurationError, display_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("90m", 5_400_000),
        ("6h", 21_600_000),
        ("1d", 86_400_000),
        ("2h30m", 9_000_000),
        ("45s", 45_000),
        ("1w", 604_800_000),
        (" 1D ", 86_400_000),
        ("1d12h", 129_600_000),
        ("0h5m", 300_000),
    ],
)
def test_durations(text: str, ms: int) -> None:
    assert parse_duration(text) == ms


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not a duration"),
        ("6", "no unit"),
        ("6 h", "not a duration"),
        ("h", "not a duration"),
        ("-1h", "not a duration"),
        ("1.5h", "not a duration"),
        ("30m2h", "not a duration"),
        ("1h1h", "not a duration"),
        ("5 minutes", "not a duration"),
        ("0m", "no time at all"),
        ("٣h", "not a duration"),
        ("1" * 10 + "s", "not a duration"),
    ],
)
def test_what_is_no_duration_is_refused_with_the_way_to_write_one(text: str, why: str) -> None:
    with pytest.raises(DurationError, match=f"{why}; write it like 90m"):
        parse_duration(text)


@given(st.integers(1, DURATION_MS_MAX // 1_000))
def test_what_is_shown_reads_back(seconds: int) -> None:
    assert parse_duration(display_duration(seconds * 1_000)) == seconds * 1_000


@pytest.mark.parametrize("text", ["3661d", "999999999w", "523w1s"])
def test_f26_what_is_longer_than_ten_years_is_refused(text: str) -> None:
    with pytest.raises(DurationError, match="longer than ten years; write it like 90m"):
        parse_duration(text)
