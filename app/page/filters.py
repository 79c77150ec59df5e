"""The filter bar: words with values, in the address, such as `state:failed engine:GEMINI custom_id:"a b"`.

Each list says which words it knows: those that an index of it serves. Any other word, and text without one,
is an error that says what is known; nothing of a filter is ever passed over.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from htpy import Element, Node, button, div, form, input, label, p

from app.page.parts.notice import notice

QUERY = "q"
"""What the address calls it."""
TEXT_MAX = 1_000
_PART = re.compile(r'\s*(?:([A-Za-z_]+):(?:"((?:[^"\\]|\\.)*)"|([^\s"]*))(?=\s|$)|(\S+))')


@dataclass(frozen=True, slots=True)
class Word:
    """One that a list knows. `values`: all that it may have, as they are written; empty: any."""

    name: str
    what: str
    values: tuple[str, ...] = ()

    def read(self, given: str) -> str | None:
        """The value as it is written; None: it is not one of them."""
        if not self.values:
            return given
        return next((value for value in self.values if value.lower() == given.lower()), None)


@dataclass(frozen=True, slots=True)
class Filter:
    """What was asked for. With a `problem` nothing is shown of the list."""

    text: str
    values: Mapping[str, str] = field(default_factory=dict)
    problem: str | None = None


def read_filter(text: str, words: Sequence[Word]) -> Filter:
    """What a filter says, or what is wrong with it."""
    known = {word.name: word for word in words}
    found: dict[str, str] = {}
    if len(text) > TEXT_MAX:
        return Filter(
            text[:TEXT_MAX], problem=f"This is too long: a filter has {TEXT_MAX} characters at most."
        )
    for name, quoted, plain, other in _PART.findall(text.strip()):
        if problem := _wrong(name.lower(), other, found, known):
            return Filter(text, problem=problem)
        word = known[name.lower()]
        value = word.read(re.sub(r"\\(.)", r"\1", quoted) if quoted else plain)
        if not value:
            return Filter(text, problem=_wrong_value(word))
        found[word.name] = value
    return Filter(text, found)


def _wrong(name: str, other: str, found: Mapping[str, str], known: Mapping[str, Word]) -> str | None:
    words = ", ".join(f"{word}:" for word in known)
    if other:
        return f"Each part of a filter is a word, a colon and a value; the words are {words}"
    if name not in known:
        return f"There is no word {name[:40]}: here; the words are {words}"
    return f"{name}: is given twice; write it once." if name in found else None


def _wrong_value(word: Word) -> str:
    values = ", ".join(word.values)
    return f"{word.name}: is one of {values}." if values else f"{word.name}: has no value; write {word.what}."


def write_filter(values: Mapping[str, str]) -> str:
    """The text of a filter, for a link; read_filter reads it back."""
    return " ".join(f"{name}:{_quoted(value)}" for name, value in values.items())


def _quoted(value: str) -> str:
    if value and not re.search(r'[\s"\\]', value):
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def filter_bar(path: str, asked: Filter, words: Sequence[Word]) -> Element:
    """The bar above a list, with what is wrong in it, and what it knows."""
    wrong: Node = notice(p[asked.problem], tone="loud") if asked.problem else None
    hint = "; ".join(f"{word.name}: {' | '.join(word.values) or word.what}" for word in words)
    return div[
        form(".filter", method="get", action=path, role="search")[
            label(".unseen", for_=QUERY)["Filter"],
            input(
                id=QUERY,
                type="search",
                name=QUERY,
                value=asked.text,
                placeholder=" ".join(f"{word.name}:" for word in words),
                autocomplete="off",
                spellcheck="false",
                aria_describedby="filter-words",
                aria_invalid="true" if asked.problem else None,
            ),
            button(type="submit")["Filter"],
        ],
        p("#filter-words.more")[hint],
        wrong,
    ]
