"""The filter bar: what is asked for, exactly; whatever it does not know is said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.page.filters import TEXT_MAX, Word, filter_bar, read_filter, write_filter

WORDS = (Word("state", "", ("pending", "failed")), Word("custom_id", "an id"), Word("text", "a text"))
WRONG = {
    "color:red": "There is no word color: here",
    "failed": "a word, a colon and a value",
    "state:failed really": "a word, a colon and a value",
    "state:lost": "state: is one of pending, failed",
    "state:": "state: is one of",
    "custom_id:": "write an id",
    'custom_id:""': "write an id",
    "state:failed state:pending": "given twice",
    'text:"open': "a word, a colon and a value",
    'text:"a"b': "a word, a colon and a value",
    ":x": "a word, a colon and a value",
    "x" * (TEXT_MAX + 1): "too long",
}


def test_words_with_values() -> None:
    asked = read_filter(' STATE:Failed  custom_id:"a \\"b\\" c" text:x:y ', WORDS)
    assert asked.problem is None
    assert asked.values == {"state": "failed", "custom_id": 'a "b" c', "text": "x:y"}
    assert read_filter("  ", WORDS).values == {}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_not_known_is_said(text: str) -> None:
    asked = read_filter(text, WORDS)
    assert asked.problem is not None and WRONG[text] in asked.problem
    assert asked.values == {}
    if "one of" not in WRONG[text] and "word" in WRONG[text]:
        assert "state:, custom_id:, text:" in asked.problem


@given(st.dictionaries(st.sampled_from(["custom_id", "text"]), st.text(min_size=1, max_size=50)))
def test_what_is_written_is_read_back(values: dict[str, str]) -> None:
    asked = read_filter(write_filter(values), WORDS)
    assert (asked.problem, asked.values) == (None, values)


def test_the_bar_keeps_what_was_written_as_text() -> None:
    drawn = str(filter_bar("/x", read_filter('"><script>', WORDS), WORDS))
    assert "<script>" not in drawn and "&lt;script&gt;" in drawn
    assert 'aria-invalid="true"' in drawn
