"""How much text an answer has, whatever engine it is of, and whatever else it is."""

import json

import pytest

from app.domain.answer_text import answer_chars


@pytest.mark.parametrize(
    ("answer", "chars"),
    [
        (None, 0),
        ([], 0),
        ("text", 0),
        ({}, 0),
        ({"text": None}, 0),
        ({"text": 5}, 0),
        ({"text": ""}, 0),
        ({"text": " \n\t "}, 0),
        ({"text": " yes ", "html": "x" * 100}, 3),
        ({"text": "はい😀"}, 3),
        ({"organicResults": [], "aioverview": None}, 0),
        ({"organicResults": [{"title": "ab", "snippet": " c ", "link": "d"}, None, {"title": 1}]}, 3),
        ({"newsResults": [{"title": "ab", "snippet": "cd"}]}, 4),
        ({"aioverview": {"text": "ab", "markdown": "**ab**"}, "organicResults": "none"}, 2),
    ],
)
def test_blanks_and_all_that_is_no_text_count_for_nothing(answer: object, chars: int) -> None:
    assert answer_chars(json.dumps(answer).encode()) == chars


@pytest.mark.parametrize(
    "response", [b"", b"no json", b"\xff", b'{"text":"a', b"[" * 100_000, b'{"text":' + b"[" * 100_000]
)
def test_what_cannot_be_read_has_no_text(response: bytes) -> None:
    assert answer_chars(response) == 0


def test_numbers_without_end_beside_the_text_do_no_harm() -> None:
    assert answer_chars(b'{"n": 1' + b"0" * 10_000 + b', "text": "abc"}') == 3
