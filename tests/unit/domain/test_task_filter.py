"""Filters in words: read and written again alike, and never partly understood."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.bulk_change import Verb, refuse_unfit
from app.domain.task_filter import WORDS, FilterError, TaskFilter, filter_text, parse_filter, words_of

VALUES = st.text(min_size=1, max_size=30).filter(lambda v: v == v.encode("utf-8", "replace").decode())


def test_words_are_read_in_any_order_and_written_in_one() -> None:
    wanted = parse_filter(' engine:chatgpt  STATE:Failed country:gb custom_id:"a \\"b\\" \\\\" ')
    assert wanted == TaskFilter("failed", "CHATGPT", "GB", custom_id='a "b" \\')
    assert filter_text(wanted) == 'state:failed engine:CHATGPT country:GB custom_id:"a \\"b\\" \\\\"'
    assert words_of(wanted) == ["state", "engine", "country", "custom_id"]
    assert parse_filter("  ") == TaskFilter()
    assert filter_text(TaskFilter()) == ""


@given(run=VALUES, text=VALUES)
def test_what_is_written_is_read_again(run: str, text: str) -> None:
    wanted = TaskFilter(run=run.replace("\x00", ""), text=text.replace("\x00", ""))
    if wanted.run and wanted.text:
        assert parse_filter(filter_text(wanted)) == wanted


@pytest.mark.parametrize(
    ("text", "word", "says"),
    [
        ("failed", "", "failed is no part"),
        ("state:failed or engine:GROK", "", "or is no part"),
        ("stat:failed", "stat", "stat: is unknown"),
        ("state:lost", "state", "state:lost is unknown"),
        ("engine:bing", "engine", "engine:bing is unknown"),
        ("country:GBR", "country", "country:GBR is no country"),
        ("country:UK", "country", "country:UK is no country"),
        ("verdict:double_charged", "verdict", "is unknown"),
        ("state:failed state:expired", "state", "is there twice"),
        ('run:""', "run", "run: is empty"),
        ("run:", "", "run: is no part"),
        ('text:"open', "", "no part"),
        ('text:"a"b', "", "no part"),
        ("text:" + "x" * 501, "text", "too long"),
        ("text:" + "x" * 5_000, "", "too long"),
    ],
)
def test_what_is_not_known_is_an_error_that_says_what_is(text: str, word: str, says: str) -> None:
    with pytest.raises(FilterError, match=says) as caught:
        parse_filter(text)
    assert caught.value.word == word
    assert caught.value.remedy
    assert len(str(caught.value)) < 120


def test_a_nul_is_looked_for_as_it_is_stored() -> None:
    assert parse_filter("text:a\x00b").text == "a\\0b"


@pytest.mark.parametrize(
    ("verb", "text", "word"),
    [
        (Verb.RETRY, "state:completed", "state"),
        (Verb.CANCEL, "state:failed", "state"),
        (Verb.RETRY, "text:x", "text"),
        (Verb.PAUSE, "country:GB", "country"),
        (Verb.RESUME, "run:x text:y", "text"),
    ],
)
def test_a_verb_refuses_what_it_can_do_nothing_with(verb: Verb, text: str, word: str) -> None:
    with pytest.raises(FilterError) as caught:
        refuse_unfit(verb, parse_filter(text))
    assert caught.value.word == word


def test_every_word_says_what_it_is_for() -> None:
    assert all(about for _, _, about in WORDS.values())
    refuse_unfit(Verb.RETRY, parse_filter("run:x text:y state:failed"))
    refuse_unfit(Verb.PAUSE, parse_filter("state:pending engine:GROK"))
