"""The charts of the page, each with the table of its figures. A bar stands in its row of the table; columns
by day have a table of their own. All text in them is escaped by `svg.text`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

from markupsafe import Markup

from app.charts.figures import NO_BREAK, Number, amount, duration, figure, share, span
from app.charts.states import STATE_COLOURS
from app.charts.svg import Chart, Segment, row_bar, stacked_columns
from app.cli.report.tables import Column, Row, Table
from app.domain.task import TaskState
from app.domain.text import counted
from app.domain.verdicts import QUIET_VERDICTS
from app.store.read.breakdown import BUCKETS_MS, PERCENTILES
from app.views.runs import Document

DAYS_FILLED_MAX = 366
"""A longer run is drawn without the days on which nothing was charged."""
QUIET, LOUD = 2, 1
"""Colours of verdicts that need no explaining, and that do."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns by day, the engines of their colours, and the table with the same figures."""

    chart: Chart
    svg: Markup
    legend: Sequence[str]
    table: Table


def progress_bar(document: Document) -> tuple[Markup, list[tuple[str, int, str]]]:
    """(one bar of all tasks by state; its legend, as (state, colour, share))."""
    order = (*(state for state in TaskState if state not in _OPEN), *_OPEN)
    shown = (state for state in order if document[state.value])
    parts = [(state.value, document[state.value], STATE_COLOURS[state]) for state in shown]
    whole = document["tasks"]
    bar = row_bar([(colour, count, name) for name, count, colour in parts], whole)
    return _markup(bar), [(name, colour, share(count, whole)) for name, count, colour in parts]


_OPEN = (TaskState.SUBMITTED, TaskState.SUBMITTING, TaskState.PENDING)


def credits_by_engine(document: Document, engines: Sequence[str]) -> Table | None:
    """Credits posted, a bar for each engine."""
    posted = {engine: Decimal(0) for engine in engines}
    for part in document["by_day"]:
        posted[part["task_type"]] += Decimal(part["posted"])
    if not any(posted.values()):
        return None
    bars = [(engine, [(n, posted[engine], engine)]) for n, engine in enumerate(engines)]
    return _bars("credits-engines", "Credits posted by engine", "engine", "credits", bars, with_total=True)


def credits_by_day(document: Document, engines: Sequence[str]) -> Columns | None:
    """The same by day, where there is more than one."""
    by_day = {(part["day"], part["task_type"]): Decimal(part["posted"]) for part in document["by_day"]}
    charged_on = sorted({day for day, _ in by_day})
    if len(charged_on) < 2:
        return None
    days = _days(charged_on)
    series = {engine: [by_day.get((day, engine), Decimal(0)) for day in days] for engine in engines}
    total = sum(by_day.values(), Decimal(0))
    chart = Chart(
        "credits-days",
        "Credits posted by day",
        f"{counted(figure(total), 'credit')} from {days[0]} to {days[-1]}, a column for each day, "
        "a colour for each engine.",
        "credits",
    )
    rows: list[Row] = [
        (part["day"], part["task_type"], amount(part["posted"])) for part in document["by_day"]
    ]
    table = Table(
        "credits-days-table",
        "Credits posted by day and engine",
        (Column("day"), Column("engine"), Column("credits", "figure")),
        [*rows, ("all", "", total)],
        last_is_total=True,
    )
    drawn = stacked_columns(chart, [_day_label(day) for day in days], series)
    return Columns(chart, _markup(drawn), engines, table)


def _days(days: Sequence[str]) -> list[str]:
    first, last = date.fromisoformat(days[0]), date.fromisoformat(days[-1])
    span = (last - first).days + 1
    if span > DAYS_FILLED_MAX:
        return list(days)
    return [(first + timedelta(days=n)).isoformat() for n in range(span)]


def _day_label(day: str) -> str:
    """Short, since ten of them stand side by side; the table has the year."""
    return f"{date.fromisoformat(day):%-d %b}"


def latency_bars(document: Document, engines: Sequence[str]) -> Table | None:
    """How many tasks took how long, a bar for each class, a colour for each engine."""
    counts = {
        (latency["task_type"], bucket["below_ms"]): bucket["tasks"]
        for latency in document["latency"]
        for bucket in latency["histogram"]
    }
    if not counts:
        return None
    bars = [
        (
            _bucket_label(below_ms),
            [(n, counts.get((engine, below_ms), 0), engine) for n, engine in enumerate(engines)],
        )
        for below_ms in _used_buckets({below_ms for _, below_ms in counts})
    ]
    return _bars("latency", "Tasks by time to answer", "took", "tasks", bars)


def latency_table(document: Document) -> Table:
    """Percentiles by engine."""
    names = [f"p{p}_ms" for p in PERCENTILES] + ["max_ms"]
    rows = [
        (latency["task_type"], latency["tasks"], *(duration(latency[name]) for name in names))
        for latency in document["latency"]
    ]
    times = [Column(f"p{p}", "figure", f"{p} of 100 tasks took no longer") for p in PERCENTILES]
    columns = (Column("engine"), Column("tasks", "figure"), *times, Column("longest", "figure"))
    return Table("percentiles", "Percentiles by engine", columns, rows, is_wide=True)


def _used_buckets(used: set[int | None]) -> list[int | None]:
    """From the first bucket with a task to the last; None: above the last boundary."""
    buckets = [*BUCKETS_MS, None]
    places = [place for place, below_ms in enumerate(buckets) if below_ms in used]
    return buckets[places[0] : places[-1] + 1]


def _bucket_label(below_ms: int | None) -> str:
    """A class of durations; None: above the last one."""
    if below_ms is None:
        return f"over{NO_BREAK}{span(BUCKETS_MS[-1])}"
    return f"under{NO_BREAK}{span(below_ms)}"


def verdict_tables(document: Document) -> list[Table]:
    """Verdicts that need explaining, and those that need none. Each table has a scale of its own, or the few
    that matter would be lost beside the many that do not."""
    found = {name: count for name, count in document["verdicts"].items() if count}
    whole = sum(found.values())
    loud = {name: count for name, count in found.items() if name not in QUIET_VERDICTS}
    quiet = {name: count for name, count in found.items() if name in QUIET_VERDICTS}
    groups = (
        ("verdicts-loud", "To be explained", loud, LOUD),
        ("verdicts-quiet", "Need no explaining", quiet, QUIET),
    )
    return [
        _bars(
            id_,
            caption,
            "verdict",
            "attempts",
            [(name, [(colour, n, name)]) for name, n in counts.items()],
            whole,
        )
        for id_, caption, counts, colour in groups
        if counts
    ]


def _bars(
    id_: str,
    caption: str,
    name: str,
    unit: str,
    bars: Sequence[tuple[str, Sequence[Segment]]],
    whole: Number | None = None,
    *,
    with_total: bool = False,
) -> Table:
    """A table with a bar in each row, drawn to the largest row's scale; shares are of `whole`, or of all."""
    sums = {label: sum(value for _, value, _ in segments) for label, segments in bars}
    total, top = sum(sums.values()), max(sums.values(), default=0)
    whole = total if whole is None else whole
    rows: list[Row] = [
        (label, _markup(row_bar(segments, top)), sums[label], share(sums[label], whole))
        for label, segments in bars
    ]
    if with_total:
        rows.append(("all", Markup(), total, share(total, whole)))
    columns = (Column(name), Column("", "bar"), Column(unit, "figure"), Column("share", "figure"))
    return Table(id_, caption, columns, rows, last_is_total=with_total, look="bars")


def legend(engines: Sequence[str]) -> Mapping[str, int]:
    """Engine -> its colour."""
    return {engine: n for n, engine in enumerate(engines)}


def _markup(svg: str) -> Markup:
    return Markup(svg)  # noqa: S704 - escaped by svg.text
