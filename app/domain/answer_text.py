"""How much text an answer has: whether anybody can use it. Pure: may not do I/O, read a clock or log."""

from collections.abc import Iterator
from typing import Any

import msgspec

NOTHING = msgspec.Raw(b"null")


class _Answer(msgspec.Struct):
    text: msgspec.Raw = NOTHING
    aioverview: msgspec.Raw = NOTHING
    organicResults: msgspec.Raw = NOTHING  # noqa: N815
    newsResults: msgspec.Raw = NOTHING  # noqa: N815


_answer = msgspec.json.Decoder(_Answer)
_READ_ERRORS = (ValueError, RecursionError, msgspec.MsgspecError)


def answer_chars(response: bytes) -> int:
    """Characters of an answer's text, blanks around it left out. An engine that lists what it found answers
    with the titles and snippets of its results, and its overview (C-K.7). 0 for what has neither. Of the rest
    of the answer nothing is made, which may be megabytes."""
    try:
        answer = _answer.decode(response)
    except _READ_ERRORS:
        return 0
    text = _value(answer.text)
    if isinstance(text, str):
        return len(text.strip())
    listed = (_value(answer.organicResults), _value(answer.newsResults))
    return sum(len(words.strip()) for words in (*_overview(_value(answer.aioverview)), *_words(listed)))


def _overview(overview: Any) -> Iterator[str]:
    if isinstance(overview, dict) and isinstance(text := overview.get("text"), str):
        yield text


def _words(listed: tuple[Any, ...]) -> Iterator[str]:
    for found in listed:
        for one in found if isinstance(found, list) else ():
            if isinstance(one, dict):
                yield from (words for name in ("title", "snippet") if isinstance(words := one.get(name), str))


def _value(raw: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(raw)
    except _READ_ERRORS:
        return None
