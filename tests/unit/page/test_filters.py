"""The filter bar: what is asked for is kept as it was written; whatever it does not know is said."""

import pytest

from app.domain.task_filter import TaskFilter
from app.page.filters import filter_bar, read_filter

WRONG = {
    "color:red": "color: is unknown: use state:, engine:",
    "failed": "is no part of a filter",
    "state:lost": "use one of pending",
    "country:Britain": "use a code of two letters",
    'text:"open': "is no part of a filter",
    "state:failed state:pending": "there twice",
    "x" * 5_000: "too long",
}


def test_words_with_values() -> None:
    asked = read_filter(' STATE:Failed  custom_id:"a \\"b\\" c" ')
    assert (asked.problem, asked.is_empty) == (None, False)
    assert asked.wanted == TaskFilter(state="failed", custom_id='a "b" c')
    assert read_filter("  ").is_empty


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:20])
def test_what_is_not_known_is_said(text: str) -> None:
    asked = read_filter(text)
    assert asked.problem is not None and WRONG[text] in asked.problem
    assert asked.is_empty


def test_the_bar_keeps_what_was_written_as_text() -> None:
    drawn = str(filter_bar("/x", read_filter('"><script>')))
    assert "<script>" not in drawn and "&lt;script&gt;" in drawn
    assert 'aria-invalid="true"' in drawn
