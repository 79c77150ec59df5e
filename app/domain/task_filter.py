"""Which tasks are meant, in words, as people write it and a bulk change keeps it. Pure.

A word that is not known is an error, never passed over: what was meant to be a few tasks would be all.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

from app.domain.engines.places import COUNTRIES, country_remedy
from app.domain.engines.table import TASK_TYPES
from app.domain.task import TaskState
from app.domain.text import storable
from app.domain.verdicts import ALONGSIDE_VERDICTS, Verdict

VALUE_CHARS_MAX = 500
FILTER_CHARS_MAX = 4_000
STATES = tuple(TaskState)
VERDICTS = tuple(v for v in Verdict if v not in ALONGSIDE_VERDICTS and v != Verdict.UNMATCHED)
"""Of a task; the others are of findings alongside it."""


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks; None: whatever it is."""

    state: str | None = None
    task_type: str | None = None
    country: str | None = None
    """In capitals."""
    verdict: str | None = None
    custom_id: str | None = None
    run: str | None = None
    """Its id, or as a person names it."""
    text: str | None = None
    """Stands in the prompt, in capitals or not."""


class FilterError(ValueError):
    """A filter that says nothing that can be looked for. `word`: of which word; empty: of none."""

    def __init__(self, word: str, what: str, remedy: str) -> None:
        super().__init__(what)
        self.word, self.remedy = word, remedy


def _one_of(known: tuple[str, ...], turned: Callable[[str], str]) -> Callable[[str, str], str]:
    def read(word: str, value: str) -> str:
        if turned(value) not in known:
            raise FilterError(word, f"{word}:{_short(value)} is unknown", f"use one of {', '.join(known)}")
        return turned(value)

    return read


def _country(word: str, value: str) -> str:
    if (code := value.upper()) not in COUNTRIES:
        raise FilterError(word, f"{word}:{_short(value)} is no country", country_remedy(value))
    return code


def _text(word: str, value: str) -> str:
    if len(value) > VALUE_CHARS_MAX:
        raise FilterError(word, f"{word}: is too long", f"use up to {VALUE_CHARS_MAX} characters")
    return storable(value)


WORDS: Mapping[str, tuple[str, Callable[[str, str], str], str]] = {
    "state": ("state", _one_of(STATES, str.lower), "where a task stands, such as failed"),
    "engine": ("task_type", _one_of(tuple(TASK_TYPES), str.upper), "which one it asks, such as CHATGPT"),
    "country": ("country", _country, "where it asks from, such as GB"),
    "verdict": ("verdict", _one_of(VERDICTS, str.lower), "what its charge was found to be"),
    "run": ("run", _text, "name or id of its run"),
    "custom_id": ("custom_id", _text, "as its record names it"),
    "text": ("text", _text, "what stands in its prompt; only of one run"),
}
"""Word -> field of TaskFilter, what reads a value of it, and what it is for people."""
_NAMES = {field: word for word, (field, _, _) in WORDS.items()}
_VALUE = r'"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s"]\S*)'
_PART = re.compile(rf"(?P<word>[A-Za-z_]+):(?:{_VALUE})(?=\s|$)")


def parse_filter(text: str) -> TaskFilter:
    """A filter as it is written, such as `state:failed custom_id:"a b"`. Raises FilterError."""
    if len(text) > FILTER_CHARS_MAX:
        raise FilterError("", "the filter is too long", f"use up to {FILTER_CHARS_MAX} characters")
    values: dict[str, str] = {}
    rest = text.strip()
    while rest:
        found = _PART.match(rest)
        if found is None:
            raise FilterError("", f"{_short(rest.split()[0])} is no part of a filter", _remedy())
        word, quoted = found["word"].lower(), found["quoted"]
        value = found["plain"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)
        if word not in WORDS:
            raise FilterError(word, f"{_short(word)}: is unknown", _remedy())
        if not value:
            raise FilterError(word, f"{word}: is empty", "give a value, or leave it out")
        field, read, _ = WORDS[word]
        if field in values:
            raise FilterError(word, f"{word}: is there twice", "give each word once")
        values[field] = read(word, value)
        rest = rest[found.end() :].lstrip()
    return TaskFilter(**values)


def filter_text(wanted: TaskFilter) -> str:
    """A filter as it is written, its words in one order: equal filters are equal texts."""
    values = {word: getattr(wanted, field) for word, (field, _, _) in WORDS.items()}
    return " ".join(f"{word}:{_quoted(value)}" for word, value in values.items() if value is not None)


def words_of(wanted: TaskFilter) -> list[str]:
    """The words that a filter has."""
    return [_NAMES[f.name] for f in fields(wanted) if getattr(wanted, f.name) is not None]


def _quoted(value: str) -> str:
    if re.fullmatch(r'[^\s"\\]+', value):
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}…"


def _remedy() -> str:
    return f'use {", ".join(f"{word}:" for word in WORDS)} and a value, such as state:failed text:"two words"'
