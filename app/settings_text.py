"""How a setting is read: what stands around it, in a file of settings, and what is said where it is wrong.

Nothing here quotes a value: a key may have been pasted into the wrong variable.
"""

import difflib
import io
import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from dotenv.parser import parse_stream
from pydantic import ValidationError

from app.quoting import in_quotes

QUOTES = "\"'“”‘’`"
OF_TESTS = "TALLYHOOK_TEST_"
TOLD = "TALLYHOOK_TEST_UNKNOWN_TOLD"
"""Whoever starts this process has said already which settings are unknown."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One setting that cannot be used."""

    setting: str
    text: str
    """What is wrong, and behind the colon the remedy."""

    def parted(self) -> tuple[str, str]:
        """(what is wrong with which setting, the remedy)."""
        wrong, _, remedy = self.text.partition(": ")
        return f"{self.setting} {wrong}", remedy


class ConfigError(Exception):
    """A setting is missing or wrong; the text names it and the remedy."""

    def __init__(self, text: str, problems: Iterable[Problem] = ()) -> None:
        super().__init__(text)
        self.problems = tuple(problems)

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> Self:
        """One error for all of them."""
        found = tuple(problems)
        return cls("; ".join(f"{problem.setting} {problem.text}" for problem in found), found)


def cleaned(text: str, *, lines: bool = False) -> str:
    """The text without blanks and line breaks around it, as files of secrets and of variables leave them
    there. Raises ValueError for what stands inside and cannot belong there; `lines`: line breaks can."""
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("is not UTF-8: write it again in UTF-8")
    text = text.strip().removeprefix("\ufeff").strip()
    if lines:
        return text
    if any(char < " " or char == "\x7f" for char in text):
        raise ValueError("has a line break or another control character in it: write it on one line")
    if len(text) > 1 and text[0] in QUOTES and text[-1] in QUOTES:
        raise ValueError("stands in quotes, which are taken as part of it here: remove them")
    return text


def from_home(path: str) -> str:
    """A path whose ~ is a home, as a shell would have it; in a file of settings nobody else reads it so.
    Raises ValueError."""
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        raise ValueError("begins with a ~ that is nobody's home: write the whole path") from None


def refuse_folder(path: Path, setting: str) -> None:
    """Raises ValueError for what is no directory that can be written to, or be made: before anything is begun
    there, and by all commands alike."""
    there = path.absolute()
    try:
        while not _is_there(there):
            there = there.parent
        mode = there.stat().st_mode
    except OSError as error:
        raise ValueError(f"{setting} cannot be used ({error.strerror}): name another directory") from None
    if not stat.S_ISDIR(mode):
        raise ValueError(f"{setting} names a file, or lies in one: name a directory, which need not be there")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(
            f"{setting} may not be written to by this user: give it the directory, or name another one"
        )


def _is_there(path: Path) -> bool:
    """A link that leads nowhere is. Raises OSError for what cannot be, as a name too long."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def plain_text(text: str, what: str) -> str:
    """A key or a secret, which has no blanks and is ASCII. Raises ValueError."""
    if any(not "!" <= char <= "~" for char in text):
        raise ValueError(f"has a blank or a letter in it that no {what} has: copy the {what} again, alone")
    if any(char in QUOTES for char in text):
        raise ValueError(f"has a quote in it that no {what} has: remove it")
    return text


def accounts_of(text: str) -> dict[str, Any]:
    """TALLYHOOK_ACCOUNTS as an object. Raises ValueError that says where it is none."""
    example = 'write {"NAME": {"api_key": "…", "webhook_secret": "…"}}'
    try:
        found = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise ValueError(f"is not JSON, {error.msg} at {place}: {example}") from None
    except RecursionError:
        raise ValueError(f"is nested too deep: {example}") from None
    if not isinstance(found, dict):
        kind = "a list" if isinstance(found, list) else "no object"
        raise ValueError(f"is {kind}: {example}")
    return found


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"names {in_quotes(name)} twice: remove one of the two")
        found[name] = value
    return found


def _no_constant(_name: str) -> None:
    raise ValueError("has a number that is none (NaN or Infinity): write a number")


def problems_of(
    error: ValidationError, name_of: Callable[[str], str], account_fields: Iterable[str]
) -> list[Problem]:
    """What pydantic found, in our words. `name_of` gives the variable of a field."""
    fields = list(account_fields)
    return [
        _problem(problem, name_of, fields) for problem in error.errors(include_url=False, include_input=False)
    ]


def _problem(error: Mapping[str, Any], name_of: Callable[[str], str], account_fields: list[str]) -> Problem:
    where, context = [str(part) for part in error["loc"] if part != "[key]"], error.get("ctx", {})
    text = _words(error["type"], context, str(error["msg"]))
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(where[-1], account_fields, n=1)
        text = f"is no field of an account{f'; did you mean {near[0]}?' if near else ': remove it'}"
    if not where:
        # Of several settings: it names them itself.
        setting, _, text = text.partition(" ")
        return Problem(setting, text)
    inside = f"{in_quotes('.'.join(where[1:]))} " if where[1:] else ""
    return Problem(name_of(where[0]), inside + text)


def _words(kind: str, context: Mapping[str, Any], message: str) -> str:
    if kind == "value_error":
        return str(context.get("error", message))
    if kind == "string_pattern_mismatch":
        choice = str(context.get("pattern", "")).strip("^$()").split("|")
        if len(choice) > 1:
            return f"is none of the words it may be: write one of {', '.join(choice)}"
        return "is no name of an account: write small letters, digits, - and _, at most 32"
    if kind == "missing":
        return "is missing: add it"
    bounds = {
        "greater_than": "is not above {gt}: write a larger number",
        "greater_than_equal": "is below {ge}: write a larger number",
        "less_than": "is not below {lt}: write a smaller number",
        "less_than_equal": "is above {le}: write a smaller number",
        "decimal_max_places": "has more than {decimal_places} digits after the point: write fewer",
    }
    if kind in bounds:
        return bounds[kind].format(
            **{name: f"{limit:,}".removesuffix(".0") for name, limit in context.items()}
        )
    wrong = {
        "int": "is not a whole number: write digits only",
        "float": "is not a number: write digits, with a point if need be",
        "finite": "is not a number: write digits, with a point if need be",
        "decimal": "is not a number: write digits, with a point if need be",
        "bool": "is neither true nor false: write true or false",
        "string": "is not text: write it in quotes",
        "model": 'is not an object: write {"api_key": "…", "webhook_secret": "…"}',
        "dict": 'is not an object: write {"NAME": {"api_key": "…"}}',
    }
    return wrong.get(kind.partition("_")[0], f"cannot be used: {message}")


def read_dotenv(path: Path) -> list[str]:
    """The names that a file of settings sets; none where there is no file. Raises ConfigError for one that
    cannot be read, with the line."""
    if not path.is_file():
        return []
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = f"cannot be read ({error.strerror}): let this user read it, or remove it"
        raise ConfigError.of([Problem(str(path), reason)]) from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        reason = f"is not UTF-8 in line {line}: save it as UTF-8"
        raise ConfigError.of([Problem(str(path), reason)]) from None
    names = []
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or "\0" in binding.original.string:
            reason = f"cannot be understood in line {binding.original.line}: write NAME=value"
            raise ConfigError.of([Problem(str(path), reason)])
        if binding.key is not None:
            names.append(binding.key)
    return names


def unknown_variables(names: Iterable[str], known: Iterable[str]) -> list[tuple[str, str | None]]:
    """Of the names, those that look like ours and are none, each with the one that was meant if that can be
    guessed."""
    variables = list(known)
    return [
        (name, _meant(name.upper(), variables))
        for name in sorted(set(names))
        if name.upper().startswith(("TALLYHOOK_", "CLORO_"))
        and not name.upper().startswith(OF_TESTS)
        and name.upper() not in variables
    ]


def _meant(name: str, variables: list[str]) -> str | None:
    bare = name.removeprefix("TALLYHOOK_")
    near = [bare] if bare in variables else difflib.get_close_matches(name, variables, n=1, cutoff=0.7)
    return near[0] if near else None
