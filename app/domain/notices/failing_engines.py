"""Engines whose answers fail: when it is worth a notice. Pure: may not do I/O, read a clock or log."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from app.domain.notices.notice import Notice, NoticeKind
from app.domain.text import USABLE_CHARS_MIN, agreeing, counted
from app.domain.time_format import iso_day


class EngineResult(NamedTuple):
    """How one task of an engine ended at the provider."""

    account: str
    task_type: str
    completed: bool
    chars: int | None
    """Of the answer's text, or its bytes where that is not known; None: neither is."""
    seq: int = 0
    """Its place in the order of settlement."""
    sent_at_ms: int = 0
    """When it was first sent."""

    def is_usable(self, chars_min: int) -> bool:
        """Whether it was answered with enough text, as far as is known."""
        return self.completed and (self.chars is None or self.chars >= chars_min)


@dataclass(frozen=True, slots=True)
class EngineBounds:
    """When an engine fails."""

    success_min: float = 0.5
    """Share of usable answers below which it does; 0: never."""
    tasks: int = 50
    """Over so many of its newest results; with fewer nothing is said."""
    usable_chars_min: int = USABLE_CHARS_MIN


@dataclass(slots=True)
class Tally:
    """How the newest results of an engine ended."""

    tasks: int = 0
    failed: int = 0
    short: int = 0

    @property
    def usable(self) -> int:
        return self.tasks - self.failed - self.short

    def add(self, result: EngineResult, usable_chars_min: int) -> None:
        """Count one more."""
        self.tasks += 1
        self.failed += not result.completed
        self.short += result.completed and not result.is_usable(usable_chars_min)


def failing_engines(
    newest_first: Iterable[EngineResult], bounds: EngineBounds, now_ms: int
) -> Iterator[Notice]:
    """A notice for each account and engine that fails: once a day."""
    for (account, engine), tally in failing_tallies(newest_first, bounds):
        yield _notice(account, engine, tally, now_ms)


def failing_tallies(
    newest_first: Iterable[EngineResult], bounds: EngineBounds
) -> Iterator[tuple[tuple[str, str], Tally]]:
    """(account, engine) of those that fail, with the newest of their results."""
    tallies: dict[tuple[str, str], Tally] = {}
    for result in newest_first:
        tally = tallies.setdefault((result.account, result.task_type), Tally())
        if tally.tasks < bounds.tasks:
            tally.add(result, bounds.usable_chars_min)
    for engine, tally in tallies.items():
        if tally.tasks == bounds.tasks and tally.usable < bounds.success_min * bounds.tasks:
            yield engine, tally


def _notice(account: str, engine: str, tally: Tally, now_ms: int) -> Notice:
    usable = tally.usable
    message = (
        f"Engine {engine} fails at account {account}: of its last "
        f"{counted(tally.tasks, 'task')} {tally.failed} failed, "
        f"{tally.short} {agreeing(tally.short, 'was', 'were')} answered with "
        f"nothing or too little to use, and {usable} with something usable."
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
