"""The markup of schedules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from htpy import Element, Node, a, code, div, span
from markupsafe import Markup

from app.api.native.schedules import Schedule
from app.charts.figures import share
from app.charts.svg import sparkline
from app.domain.task import RunState, TaskState
from app.domain.text import counted
from app.domain.time_format import iso_utc, parse_duration
from app.page.parts.badge import badge
from app.page.parts.notice import empty
from app.page.parts.table import Column, table
from app.page.parts.times import at
from app.page.parts.words import nothing, others
from app.store.read.progress import RunProgress
from app.store.read.runs import RunRow

NONE = empty(
    "There are no schedules yet.", ["A first one: ", code["tallyhook schedule add prompts.csv --every 6h"]]
)
WELL_FROM = 0.9
"""A run of which less was completed is drawn as one of trouble."""
GOING, DONE, WRONG = 0, 2, 3
"""Colours of a chart."""
_UNITS = (("day", 86_400_000), ("hour", 3_600_000), ("minute", 60_000), ("second", 1_000))


@dataclass(frozen=True, slots=True)
class LastRun:
    """One of a schedule's newest."""

    run: RunRow
    state: RunState
    progress: RunProgress

    @property
    def completed(self) -> int:
        return self.progress.states.get(TaskState.COMPLETED, 0)


def schedule_table(rows: Sequence[Schedule], last: Mapping[str, Sequence[LastRun]], places: int) -> Element:
    """Schedules, a line each."""
    columns: tuple[Column[Schedule], ...] = (
        Column("Schedule", lambda row: [others(row.name), span(".more")[others(row.source)]]),
        Column("Runs", _when),
        Column("State", _state),
        Column(f"Last {places} runs", lambda row: _spark(last[row.id], places)),
        Column("Last run", lambda row: _newest(last[row.id])),
    )
    return table("Schedules, by name", columns, rows, empty=NONE)


def every_in_words(every_ms: int) -> str:
    """A step of time: "every day", "every 2 hours 30 minutes"."""
    if every_ms in (single := {ms: name for name, ms in _UNITS}):
        return f"every {single[every_ms]}"
    parts = []
    for name, unit_ms in _UNITS:
        count, every_ms = divmod(every_ms, unit_ms)
        if count:
            parts.append(counted(count, name))
    return "every " + " ".join(parts)


def _when(row: Schedule) -> Node:
    words = every_in_words(parse_duration(row.every))
    if row.state == "paused":
        return [words, span(".more")["does not run while it is paused"]]
    next_ms = round(datetime.fromisoformat(row.next_at).timestamp() * 1000)
    return [words, span(".more")["next at ", at(next_ms)]]


def _state(row: Schedule) -> Node:
    return [badge(row.state), span(".more")[others(row.last_error)] if row.last_error else None]


def _spark(last: Sequence[LastRun], places: int) -> Node:
    if not last:
        return nothing("it has not run yet")
    columns = [(_colour(one), _share(one), _words(one)) for one in last]
    well = sum(one.completed for one in last)
    tasks = sum(one.progress.tasks for one in last)
    label = f"{counted(len(last), 'run')}: {well:,} of {tasks:,} tasks completed"
    drawn = Markup(sparkline(columns, places))  # noqa: S704 - sparkline escapes
    return div[div(".spark-of", role="img", aria_label=label)[drawn], span(".more")[label]]


def _share(one: LastRun) -> float:
    return one.completed / one.progress.tasks if one.progress.tasks else 0.0


def _colour(one: LastRun) -> int:
    if one.state not in (RunState.FINISHED, RunState.CANCELLED):
        return GOING
    return DONE if _share(one) >= WELL_FROM else WRONG


def _words(one: LastRun) -> str:
    when = (iso_utc(one.run.created_at_ms) or "")[:16].replace("T", " ")
    return f"{when}: {one.state}, {one.completed:,} of {one.progress.tasks:,} completed"


def _newest(last: Sequence[LastRun]) -> Node:
    if not last:
        return nothing("it has not run yet")
    one = last[-1]
    return [
        a(href=f"/runs/{one.run.id}")[others(one.run.name)],
        span(".more")[badge(one.state), " ", share(one.completed, one.progress.tasks), " completed"],
    ]
