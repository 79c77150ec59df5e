"""One record of an input file as a task, or what is wrong with it: names and spellings are made uniform here,
the rules themselves are the domain's.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.domain.engines.google_url import owned_values
from app.domain.engines.places import COUNTRIES, country_remedy
from app.domain.engines.rules import (
    ENGINES,
    INCLUDE_NAMES,
    EngineProblem,
    check,
    display,
    find_task_type,
    task_type_problem,
)
from app.domain.own_columns import PREFIX
from app.domain.task import REPEATS_MAX, TaskSpec
from app.prompts.own import read_own

_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for every record whose own cells are blank."""

    task_type: str | None = None
    country: str | None = None
    priority: int = 1
    include: Sequence[str] = ()
    """Names of extras. One that a record's engine does not know is left out there, since one file may be for
    several engines; a record's own include is taken at its word."""
    repeats: int = 1
    """Samples of each record."""

    def named(self) -> list[str]:
        """The columns that have one."""
        given = {
            "task_type": self.task_type,
            "country": self.country,
            "include": self.include,
            "repeats": self.repeats > 1,
        }
        return [column for column, value in given.items() if value]


def check_defaults(defaults: Defaults) -> list[EngineProblem]:
    """What is wrong with the defaults; with a wrong one, no record would be what its author meant."""
    problems = []
    found = find_task_type(defaults.task_type) if defaults.task_type else None
    if defaults.task_type and found is None:
        problems.append(task_type_problem(defaults.task_type))
    country = defaults.country
    if country and country.strip().upper() not in COUNTRIES:
        problems.append(
            EngineProblem("country", f"{display(country)} is not a country code", country_remedy(country))
        )
    if not 1 <= defaults.priority <= 10:
        problems.append(
            EngineProblem("priority", f"{display(defaults.priority)} is not a priority", "use 1 to 10")
        )
    problems += _check_repeats(defaults.repeats)
    known = ENGINES[found].include if found else INCLUDE_NAMES
    for name in defaults.include:
        if _include_name(name) not in known:
            whose = found or "any engine"
            remedy = f"use {', '.join(sorted(known))}"
            problems.append(EngineProblem("include", f"{display(name)} is not taken by {whose}", remedy))
    return problems


def split_include(text: str) -> tuple[str, ...]:
    """Names of extras out of one text: separated by bars, commas or spaces."""
    return tuple(re.findall(r"[^|,;\s]+", text))


def read_record(
    ordinal: int, cells: Mapping[str, object], defaults: Defaults, *, line: int = 0
) -> TaskSpec | list[EngineProblem]:
    """The task of one record, or everything that is wrong with it.

    `cells` are keyed as find_column says. Values are texts (CSV) or of any JSON type, those of own columns
    the JSON text that their author wrote (msgspec.Raw). Blank means absent, but in an own column. `line`: on
    which the record begins.
    """
    own = {name: value for name, value in cells.items() if name.startswith(PREFIX)}
    given = {name: value for name, value in cells.items() if name not in own and not _is_blank(value)}
    custom_id = given.pop("custom_id", None)
    named = given.pop("task_type", defaults.task_type)
    if named is None:
        return [
            EngineProblem(
                "task_type", "missing", "add a task_type column, or give a default with --task-type"
            )
        ]
    task_type = find_task_type(named) if isinstance(named, str) else None
    if task_type is None:
        return [task_type_problem(str(named))]
    priority = _whole(given.pop("priority", defaults.priority))
    repeats = _whole(given.pop("repeats", defaults.repeats))
    include = given.pop("include", None)
    if twice := _extra_given_twice(include):
        return [EngineProblem("include", f"{display(twice)} is given twice", "keep one of them")]
    payload = _payload(task_type, given, defaults)
    extras = _extras(task_type, include, defaults)
    if extras or not isinstance(extras, Mapping):
        payload["include"] = extras
    problems = check(task_type, payload, priority)  # type: ignore[arg-type]
    if "prompt" in given and "query" in given:
        problems.insert(0, EngineProblem("query", "given together with prompt", "leave one of the two blank"))
    problems += _check_repeats(repeats)
    kept = read_own(line, custom_id, own) if own or custom_id is not None else None
    if isinstance(kept, list):
        problems += kept
        kept = None
    return problems or TaskSpec(ordinal, task_type, payload, priority, kept, repeats)  # type: ignore[arg-type]


def _check_repeats(value: object) -> list[EngineProblem]:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= REPEATS_MAX:
        return []
    remedy = f"use a whole number of samples from 1 to {REPEATS_MAX:,}"
    return [EngineProblem("repeats", f"{display(value)} is not a number of samples", remedy)]


def _payload(task_type: str, given: Mapping[str, object], defaults: Defaults) -> dict[str, object]:
    engine = ENGINES[task_type]
    payload: dict[str, object] = {}
    for name in ("prompt", "query"):
        # Kept as its author wrote it, blanks included.
        if name in given:
            payload[engine.subject] = given[name]
    if defaults.country and not _names_place(given, google=engine.google):
        payload["country"] = defaults.country.strip().upper()
    for name, value in given.items():
        if name not in ("prompt", "query"):
            payload[name] = _READ[name](value) if name in _READ else _strip(value)
    return payload


def _names_place(given: Mapping[str, object], *, google: bool) -> bool:
    """Whether a record says its country itself; a Google record may do so by gl or in its address."""
    if "country" in given:
        return True
    url = given.get("url")
    return google and ("gl" in given or (isinstance(url, str) and bool(owned_values(url).get("gl"))))


def _extras(task_type: str, include: object, defaults: Defaults) -> object:
    if include is None:
        names = [_include_name(name) for name in defaults.include]
        return _switched_on([name for name in names if name in ENGINES[task_type].include])
    if isinstance(include, str):
        return _switched_on([_include_name(name) for name in split_include(include)])
    if isinstance(include, list) and all(isinstance(name, str) for name in include):
        return _switched_on([_include_name(name) for name in include])
    if not isinstance(include, dict):
        return include
    extras = {_include_name(name): value for name, value in include.items()}
    # A plain true or false is an older spelling, of which nobody says whether false is charged (C-L36).
    overview = extras.get("aioverview")
    if overview is True:
        extras |= _switched_on(["aioverview"])
    elif overview is False:
        del extras["aioverview"]
    return extras


def _extra_given_twice(include: object) -> str | None:
    """Of an object: the second spelling of one extra, whose value would silently replace the first one's."""
    names: set[str] = set()
    for name in include if isinstance(include, dict) else ():
        if _include_name(name) in names:
            return str(name)
        names.add(_include_name(name))
    return None


def _switched_on(names: Sequence[str]) -> dict[str, object]:
    return {name: {"markdown": True} if name == "aioverview" else True for name in names}


def _include_name(name: str) -> str:
    return _INCLUDE_BY_LETTERS.get(_letters(name), name)


def _letters(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()


def _is_blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _strip(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


def _upper(value: object) -> object:
    return value.strip().upper() if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _whole(value: object) -> object:
    """A whole number where there is one (spreadsheets write 2.0); else the value, for the check to name."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,9}(\.0+)?\s*", value, re.ASCII):
        return int(float(value))
    return value


def _flag(value: object) -> object:
    return _FLAGS.get(value.strip().lower(), value) if isinstance(value, str) else value


_READ = {
    "country": _upper,
    "state": _upper,
    "device": _lower,
    "pages": _whole,
    "legacy": _flag,
    "disableWebSearch": _flag,
}
_INCLUDE_BY_LETTERS = {_letters(name): name for name in INCLUDE_NAMES}
