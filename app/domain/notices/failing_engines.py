"""Engines whose answers fail: when it is worth a notice. Pure: may not do I/O, read a clock or log."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from app.domain.notices.notice import Notice, NoticeKind
from app.domain.text import USABLE_CHARS_MIN
from app.domain.time_format import iso_day


class EngineResult(NamedTuple):
    """How one task of an engine ended at the provider."""

    account: str
    task_type: str
    completed: bool
    chars: int | None
    """Of the answer's text, or its bytes where that is not known; None: neither is."""


@dataclass(frozen=True, slots=True)
class EngineBounds:
    """When an engine fails."""

    success_min: float = 0.5
    """Share of usable answers below which it does; 0: never."""
    tasks: int = 50
    """Over so many of its newest results; with fewer nothing is said."""
    usable_chars_min: int = USABLE_CHARS_MIN


@dataclass(slots=True)
class _Tally:
    tasks: int = 0
    failed: int = 0
    short: int = 0

    def add(self, result: EngineResult, usable_chars_min: int) -> None:
        self.tasks += 1
        self.failed += not result.completed
        self.short += result.completed and result.chars is not None and result.chars < usable_chars_min


def failing_engines(
    newest_first: Iterable[EngineResult], bounds: EngineBounds, now_ms: int
) -> Iterator[Notice]:
    """A notice for each account and engine that fails: once a day."""
    tallies: dict[tuple[str, str], _Tally] = {}
    for result in newest_first:
        tally = tallies.setdefault((result.account, result.task_type), _Tally())
        if tally.tasks < bounds.tasks:
            tally.add(result, bounds.usable_chars_min)
    for (account, engine), tally in tallies.items():
        usable = tally.tasks - tally.failed - tally.short
        if tally.tasks == bounds.tasks and usable < bounds.success_min * bounds.tasks:
            yield _notice(account, engine, tally, usable, now_ms)


def _notice(account: str, engine: str, tally: _Tally, usable: int, now_ms: int) -> Notice:
    message = (
        f"Engine {engine} fails at account {account}: of its last {tally.tasks} tasks {tally.failed} failed, "
        f"{tally.short} were answered with nothing or too little to use, and {usable} with something usable."
    )
    dedupe_key = f"engine:{account}:{engine}:{iso_day(now_ms)}"
    figures = {
        "engine": engine,
        "tasks": tally.tasks,
        "usable": usable,
        "failed": tally.failed,
        "short": tally.short,
    }
    return Notice(NoticeKind.ENGINE_FAILING, account, dedupe_key, message, now_ms, data=figures)
