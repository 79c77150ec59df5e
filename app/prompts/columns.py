"""Whose a column is: one of ours, by any spelling; a misspelt one of ours; or its author's own."""

import functools
import re
from collections.abc import Iterable, Mapping

from app.domain.engines.rules import FIELDS, EngineProblem, display
from app.domain.own_columns import NAME_CHARS_MAX, PREFIX
from app.domain.text import sanitize

COLUMNS = (
    "prompt",
    "query",
    "task_type",
    "priority",
    "custom_id",
    "repeats",
    *sorted(frozenset().union(*FIELDS.values()) - {"prompt", "query"}),
)
"""Every name of ours that a record may use."""
TYPO_LETTERS_MIN = 5
"""Shorter names of ours are one letter from too many words: `hl`, `gl`, `url`, `uule`."""

_MEANT = {
    "text": "prompt",
    "question": "prompt",
    "keyword": "query",
    "provider": "task_type",
    "model": "task_type",
    "type": "task_type",
    "language": "hl",
    "lang": "hl",
    "options": "include",
    "region": "country",
    "market": "country",
    "countrycode": "country",
    "repetitions": "repeats",
    "samples": "repeats",
}
_UNKNOWN = "unknown column"
"""Other words for columns of ours. Where nothing else says what they may mean, they are asked about."""
_INSTEAD = {"prompt": ("prompt", "query", "url"), "query": ("prompt", "query", "url")}


def find_column(name: str) -> str | EngineProblem:
    """The column meant by a name: one of COLUMNS, or PREFIX and the name of its author's own column. A
    problem for a name that cannot be kept, and for one that is a single letter off one of ours: one too many,
    missing, wrong, or swapped with its neighbour. Letter case, blanks, `_` and `-` do not count.
    """
    if name in _COLUMNS:
        return name
    if len(name) > len(PREFIX) + NAME_CHARS_MAX:
        return _unusable(name, f"longer than {NAME_CHARS_MAX} characters", "shorten it")
    return _find_column(name)


@functools.lru_cache(1024)
def _find_column(name: str) -> str | EngineProblem:
    letters = _letters(name)
    if (column := _BY_LETTERS.get(letters)) is not None:
        return column
    own = name.strip()
    if own.lower().startswith(PREFIX):
        return _own(name, own[len(PREFIX) :].strip())
    for known, column in _BY_LETTERS.items():
        if len(known) >= TYPO_LETTERS_MIN and _is_one_letter_off(letters, known):
            return _unsure(name, column)
    return _own(name, own)


def find_own_column(name: str) -> str | EngineProblem:
    """The same for a name of which its author has said that it is an own column's."""
    return _own(name, name.strip())


def _own(name: str, own: str) -> str | EngineProblem:
    if not own:
        return _unusable(name, "a column without a name", "name it")
    if own.lower().startswith(PREFIX):
        return _unusable(name, f"begins with {PREFIX}", f"give it another name: {PREFIX} says whose it is")
    if len(own) > NAME_CHARS_MAX:
        return _unusable(name, f"longer than {NAME_CHARS_MAX} characters", "shorten it")
    if sanitize(own) != own or "\n" in own or "\t" in own:
        return _unusable(name, "contains characters that cannot be seen", "remove them")
    return PREFIX + own


def unsure_columns(
    names: Iterable[str], columns: Iterable[object], given: Iterable[str]
) -> list[EngineProblem]:
    """Own columns whose names are other words for a column of ours that nothing names: neither the record,
    nor one of the options `given`. Silently kept, each might cost a run that asks something else."""
    known = {*columns, *given}
    found = []
    for name in names:
        meant = _MEANT.get(_letters(name)) if len(name) <= NAME_CHARS_MAX else None
        if meant is not None and known.isdisjoint(_INSTEAD.get(meant, (meant,))):
            found.append(_unsure(name, meant))
    return found


def is_taken_as_own(name: str, columns: Iterable[str]) -> bool:
    """Whether a column of this name is kept under it, without PREFIX, in a record that has `columns` too."""
    is_own = find_column(name) == PREFIX + name and name != "metadata"
    return is_own and not unsure_columns([name], columns, ())


def given_twice(columns: Iterable[str], verb: str) -> list[EngineProblem]:
    """What to say of columns that are there more than once."""
    counts: dict[str, int] = {}
    for column in columns:
        counts[column] = counts.get(column, 0) + 1
    return [
        EngineProblem(_shown(column.removeprefix(PREFIX)), f"{verb} twice", "keep one of them")
        for column, count in sorted(counts.items())
        if count > 1
    ]


def is_asked(problem: EngineProblem) -> bool:
    """Whether it is about a name that may be meant for one of ours."""
    return problem.problem == _UNKNOWN


def _unsure(name: str, meant: str) -> EngineProblem:
    own = _shown(name.strip())
    remedy = f"did you mean {meant}? To keep it as a column of your own, name it {PREFIX}{own}"
    return EngineProblem(own, _UNKNOWN, remedy)


def _unusable(name: str, problem: str, remedy: str) -> EngineProblem:
    return EngineProblem(_shown(name) or "column", problem, remedy)


def _shown(name: str) -> str:
    return display(name)[1:-1]


def _letters(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()


def _is_one_letter_off(name: str, known: str) -> bool:
    if abs(len(name) - len(known)) > 1:
        return False
    while name and known and name[0] == known[0]:
        name, known = name[1:], known[1:]
    while name and known and name[-1] == known[-1]:
        name, known = name[:-1], known[:-1]
    is_swapped = len(name) == 2 and name == known[::-1]
    return is_swapped or (len(name) <= 1 and len(known) <= 1)


_COLUMNS = frozenset(COLUMNS)
_BY_LETTERS: Mapping[str, str] = {_letters(name): name for name in COLUMNS} | {"engine": "task_type"}
