"""What each engine takes: the check of a request against the rules of its engine (C-K).

The provider has the last word; this only saves a round trip and says what to do. It is never laxer where the
contract is clear, and where the contract leaves something open it lets the provider decide.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import NamedTuple

from app.domain.engines.google_url import owned_values, problem_of_url
from app.domain.engines.places import COUNTRIES, STATES, country_remedy
from app.domain.engines.table import ENGINES, FIELDS, INCLUDE_NAMES, PAGES_MAX, TASK_TYPES, Engine
from app.domain.text import printable

__all__ = [
    "ENGINES",
    "FIELDS",
    "INCLUDE_NAMES",
    "TASK_TYPES",
    "EngineProblem",
    "check",
    "display",
    "find_task_type",
]

TEXT_CHARS_MAX = 10_000
PRIORITY_MAX = 10
SHOWN_CHARS_MAX = 40
UNKNOWN_NAMED = 10
"""Names that an engine does not take; who sends thousands is told how many more there are."""


class EngineProblem(NamedTuple):
    """One thing wrong with a request, and what to do about it."""

    field: str
    problem: str
    remedy: str


_BY_LETTERS = {task_type.replace("_", ""): task_type for task_type in TASK_TYPES}


def find_task_type(text: str) -> str | None:
    """The task type meant by any spelling of it, sync paths like `google/news` included; None if none is."""
    return text if text in ENGINES else _BY_LETTERS.get(re.sub(r"[\s_/-]", "", text).upper())


def task_type_problem(text: str) -> EngineProblem:
    """What to say about a text that names no engine."""
    near = get_close_matches(re.sub(r"[\s_/-]", "", text).upper(), _BY_LETTERS, n=1)
    remedy = f"use {_BY_LETTERS[near[0]]}" if near else f"use one of {', '.join(TASK_TYPES)}"
    return EngineProblem("task_type", f"{display(text)} is not an engine", remedy)


def check(task_type: str, payload: Mapping[str, object], priority: int = 1) -> list[EngineProblem]:
    """Everything wrong with a request to one engine, most important first; empty when it may be sent.

    `task_type` is a key of ENGINES. No text of a prompt is ever part of a problem.
    """
    engine = ENGINES[task_type]
    problems = [*_check_subject(engine, payload), *_check_country(task_type, engine, payload)]
    if not payload.keys() <= FIELDS[task_type]:
        problems += _check_unknown(task_type, payload)
    for field, checker in _CHECKS.items():
        if field in payload and field in FIELDS[task_type]:
            problems += checker(task_type, engine, payload)
    if isinstance(priority, bool) or not isinstance(priority, int) or not 1 <= priority <= PRIORITY_MAX:
        remedy = f"use a whole number from 1 to {PRIORITY_MAX}; higher is served first"
        problems.append(EngineProblem("priority", f"{display(priority)} is not a priority", remedy))
    return problems


def display(value: object) -> str:
    """A value as it may be shown in a problem: quoted, printable and short."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)
    text = printable(text[: SHOWN_CHARS_MAX + 1])
    return f"'{text[:SHOWN_CHARS_MAX]}…'" if len(text) > SHOWN_CHARS_MAX else f"'{text}'"


def _check_subject(engine: Engine, payload: Mapping[str, object]) -> Iterator[EngineProblem]:
    name = engine.subject
    if engine.by_url and "url" in payload:
        if name in payload:
            yield EngineProblem(name, "given together with url", "leave one of the two out")
        return
    text = payload.get(name)
    remedy = f"write a text of 1 to {TEXT_CHARS_MAX:,} characters"
    if not isinstance(text, str):
        yield EngineProblem(name, "missing" if text is None else "not a text", remedy)
    elif not text.strip():
        yield EngineProblem(name, "blank", remedy)
    elif len(text) > TEXT_CHARS_MAX:
        yield EngineProblem(
            name, f"{len(text):,} characters long", f"shorten it to {TEXT_CHARS_MAX:,} characters"
        )
    else:
        yield from _check_characters(name, text)


def _check_characters(field: str, text: str) -> Iterator[EngineProblem]:
    # Neither can be stored by every database, and no engine can be asked for them.
    if "\x00" in text:
        yield EngineProblem(field, "contains a NUL character", "remove it")
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        yield EngineProblem(
            field, "contains half of a character (a lone surrogate)", "write the text as UTF-8"
        )


def _check_country(task_type: str, engine: Engine, payload: Mapping[str, object]) -> Iterator[EngineProblem]:
    named = [(name, payload[name]) for name in ("country", "gl") if name in payload]
    if not engine.google:
        named = [pair for pair in named if pair[0] == "country"]
    url = payload.get("url")
    if engine.by_url and isinstance(url, str) and (in_url := owned_values(url).get("gl")):
        named.append(("url", in_url))
    if not named:
        yield EngineProblem("country", "missing", "add a country code, such as US")
        return
    codes: dict[str, str] = {}
    for field, value in named:
        code = value.upper() if isinstance(value, str) and field != "country" else value
        if not isinstance(code, str) or code not in COUNTRIES:
            yield EngineProblem(field, f"{display(value)} is not a country code", country_remedy(str(value)))
        elif code in engine.blocked:
            remedy = "use another country or another engine"
            yield EngineProblem(field, f"{task_type} is not offered in {code}", remedy)
        else:
            codes[field] = code
    if len(set(codes.values())) > 1:
        values = ", ".join(f"{field} says {code}" for field, code in codes.items())
        yield EngineProblem(
            "gl" if "gl" in codes else "country", f"two countries: {values}", "keep one of them"
        )


def _check_unknown(task_type: str, payload: Mapping[str, object]) -> Iterator[EngineProblem]:
    names = [name for name in payload if name not in FIELDS[task_type]]
    for name in names[:UNKNOWN_NAMED]:
        takers = [other for other, fields in FIELDS.items() if name in fields]
        remedy = f"leave it out; only {', '.join(takers)} take it" if takers else "leave it out"
        yield EngineProblem(display(name)[1:-1], f"{task_type} does not take it", remedy)
    if others := names[UNKNOWN_NAMED:]:
        yield _others(display(others[0])[1:-1], len(others), task_type)


def _others(field: str, count: int, task_type: str) -> EngineProblem:
    names = "more names" if count > 1 else "more name"
    return EngineProblem(field, f"{count:,} {names} that {task_type} does not take", "leave them out")


def _check_state(task_type: str, engine: Engine, payload: Mapping[str, object]) -> Iterator[EngineProblem]:
    state, country = payload["state"], payload.get("country")
    if country != "US":
        yield EngineProblem(
            "state", f"not possible with country {display(country)}", "leave it out, or use country US"
        )
    elif not isinstance(state, str) or state not in STATES:
        yield EngineProblem(
            "state", f"{display(state)} is not a US state", "use a postal code, such as CA, NY or DC"
        )


def _check_pages(task_type: str, engine: Engine, payload: Mapping[str, object]) -> Iterator[EngineProblem]:
    pages = payload["pages"]
    if isinstance(pages, bool) or not isinstance(pages, int) or not 1 <= pages <= PAGES_MAX:
        remedy = f"use a whole number from 1 to {PAGES_MAX}"
        yield EngineProblem("pages", f"{display(pages)} is not a number of pages", remedy)


def _check_device(task_type: str, engine: Engine, payload: Mapping[str, object]) -> Iterator[EngineProblem]:
    if payload["device"] not in engine.devices:
        problem = f"{display(payload['device'])} is no device of {task_type}"
        yield EngineProblem("device", problem, f"use one of {', '.join(engine.devices)}")


def _check_text(field: str) -> "_Checker":
    def checker(task_type: str, engine: Engine, payload: Mapping[str, object]) -> Iterator[EngineProblem]:
        text = payload[field]
        if not isinstance(text, str) or not text.strip():
            yield EngineProblem(field, "not a text", "write a text, or leave it out")
        elif len(text) > TEXT_CHARS_MAX:
            yield EngineProblem(field, f"{len(text):,} characters long", "shorten it")
        else:
            yield from _check_characters(field, text)

    return checker


def _check_flag(field: str) -> "_Checker":
    def checker(task_type: str, engine: Engine, payload: Mapping[str, object]) -> Iterator[EngineProblem]:
        if not isinstance(payload[field], bool):
            yield EngineProblem(
                field, f"{display(payload[field])} is neither true nor false", "use true or false"
            )

    return checker


def _check_uule(task_type: str, engine: Engine, payload: Mapping[str, object]) -> Iterator[EngineProblem]:
    yield from _check_text("uule")(task_type, engine, payload)
    if "location" in payload:
        yield EngineProblem("uule", "given together with location", "leave one of the two out")


def _check_url(task_type: str, engine: Engine, payload: Mapping[str, object]) -> Iterator[EngineProblem]:
    url = payload["url"]
    wrong = problem_of_url(url) if isinstance(url, str) else ("not a text", "write a Google search address")
    if wrong is not None:
        yield EngineProblem("url", *wrong)
        return
    yield from _check_text("url")(task_type, engine, payload)
    owned = owned_values(str(url))
    for name in ("location", "uule", "pages"):
        if name in payload:
            yield EngineProblem(name, "given together with url", "leave it out; the address says it")
    hl = payload.get("hl")
    if "hl" in owned and isinstance(hl, str) and hl.lower() != owned["hl"].lower():
        yield EngineProblem("hl", "not the language that the url says", "leave it out")


def _check_include(task_type: str, engine: Engine, payload: Mapping[str, object]) -> Iterator[EngineProblem]:
    include = payload["include"]
    if not isinstance(include, Mapping):
        yield EngineProblem("include", "not an object", 'use an object of names, such as {"markdown": true}')
        return
    unknown = [str(name) for name in include if name not in engine.include]
    for name in unknown[:UNKNOWN_NAMED]:
        yield _unknown_include(task_type, engine, name)
    if others := unknown[UNKNOWN_NAMED:]:
        yield _others("include", len(others), task_type)
    for name, value in include.items():
        if name not in engine.include:
            continue
        if name == "aioverview" and isinstance(value, Mapping):
            if not value.keys() <= {"markdown"} or not all(isinstance(v, bool) for v in value.values()):
                yield EngineProblem(
                    "include", "aioverview takes only markdown", 'use {"markdown": true} or {}'
                )
        elif not isinstance(value, bool):
            yield EngineProblem("include", f"{name} is neither true nor false", "use true or false")


def _unknown_include(task_type: str, engine: Engine, name: str) -> EngineProblem:
    near = get_close_matches(name[:SHOWN_CHARS_MAX], sorted(engine.include), n=1)
    remedy = f"use {near[0]}" if near else f"use {', '.join(sorted(engine.include))}"
    return EngineProblem("include", f"{task_type} does not take {display(name)}", remedy)


_Checker = Callable[[str, Engine, Mapping[str, object]], Iterator[EngineProblem]]
_CHECKS: Mapping[str, _Checker] = {
    "state": _check_state,
    "pages": _check_pages,
    "device": _check_device,
    "hl": _check_text("hl"),
    "location": _check_text("location"),
    "uule": _check_uule,
    "url": _check_url,
    "legacy": _check_flag("legacy"),
    "disableWebSearch": _check_flag("disableWebSearch"),
    "include": _check_include,
}
