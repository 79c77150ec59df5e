"""Events of the log are ids, so that one can alert on them; docs/operations.md lists those that matter."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

TOP = Path(__file__).parents[2]
PAGE = (TOP / "docs" / "operations.md").read_text()
LEVELS = {
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "exception": "error",
    "critical": "critical",
}
OTHER_METHODS = {"log", "warn", "fatal", "msg"}
"""They log too, and the level would not be seen: not for us."""
LOST_LINES = ("log_lines_lost", "warning")
"""Written by app/log.py itself, through no logger."""
ID = re.compile(r"[a-z][a-z0-9_]*")


class LogCall(NamedTuple):
    """One call of a logger."""

    place: str
    event: str | None
    """None: no literal."""
    level: str


def is_logger(node: ast.expr) -> bool:
    """Whether an expression is a logger, by its name: log, self._log, http_log, log.bind(...)."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr in ("get_logger", "getLogger") or is_logger(node.func.value)
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return name in ("log", "logger") or name.endswith("_log")


def levels_in(node: ast.AST) -> set[str]:
    """Levels of the log methods that an expression names."""
    return {
        LEVELS.get(part.attr, part.attr)
        for part in ast.walk(node)
        if isinstance(part, ast.Attribute)
        and part.attr in {*LEVELS, *OTHER_METHODS}
        and is_logger(part.value)
    }


def log_calls(source: str, place: str) -> Iterator[LogCall]:
    """Every log call of a file, those by a name that stands for `log.info` or another method included."""
    tree = ast.parse(source)
    names = {
        target.id: levels
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and not isinstance(node.value, ast.Call)
        for target in node.targets
        if isinstance(target, ast.Name) and (levels := levels_in(node.value))
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        by_name = names.get(node.func.id, set()) if isinstance(node.func, ast.Name) else set()
        direct = levels_in(node.func) if isinstance(node.func, ast.Attribute) else set()
        event = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        for level in by_name | direct:
            yield LogCall(f"{place}:{node.lineno}", event if isinstance(event, str) else None, level)


@cache
def every_log_call() -> list[LogCall]:
    """Of all processes."""
    return [
        call
        for folder in ("app", "workers")
        for path in sorted((TOP / folder).rglob("*.py"))
        if "log" in (source := path.read_text()).lower()
        for call in log_calls(source, str(path.relative_to(TOP)))
    ]


def table() -> dict[str, set[str]]:
    """Events of the page's table, with their levels."""
    section = PAGE.split("### Log events to alert on\n")[1].split("\n### ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([a-z, ]+) \|", section, re.MULTILINE)
    return {event: set(levels.split(", ")) for event, levels in rows}


def test_every_event_is_an_id() -> None:
    calls = every_log_call()
    assert len(calls) > 40
    wrong = [call for call in calls if call.event is None or not ID.fullmatch(call.event)]
    assert wrong == []
    assert [call for call in calls if call.level in OTHER_METHODS] == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('log.info("a_b")', [("a_b", "info")]),
        ('self._log.exception("no id")', [("no id", "error")]),
        ('log.warning(f"x {y}")', [(None, "warning")]),
        ("log.error(text)", [(None, "error")]),
        ('log.bind(x=1).info("a")', [("a", "info")]),
        ('structlog.get_logger().info("a")', [("a", "info")]),
        ('tell = log.info if x else log.warning\ntell("a b", y=1)', [("a b", "info"), ("a b", "warning")]),
        ('log.log(20, "a")', [(None, "log")]),
        ('math.log("a")', []),
    ],
)
def test_a_call_is_found(line: str, found: list[tuple[str | None, str]]) -> None:
    assert sorted((call.event, call.level) for call in log_calls(line, "x.py")) == found


def test_the_page_lists_every_warning_and_error_and_nothing_else() -> None:
    logged: dict[str, set[str]] = {}
    for event, level in [*((call.event, call.level) for call in every_log_call()), LOST_LINES]:
        logged.setdefault(str(event), set()).add(level)
    listed = table()
    grave = {event for event, levels in logged.items() if levels & {"warning", "error", "critical"}}
    assert grave - listed.keys() == set(), "missing in docs/operations.md"
    assert {event: listed[event] for event in listed if listed[event] != logged.get(event)} == {}


def test_events_that_the_pages_name_exist() -> None:
    logged = {call.event for call in every_log_call()} | {LOST_LINES[0]}
    for sentence in re.findall(r"[^.]*\b(?:log|logged|logs|line)\b[^.]*", PAGE.split("### Log events")[0]):
        for name in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", sentence):
            assert name in logged or name.startswith("tallyhook_"), f"docs/operations.md: {name}"
