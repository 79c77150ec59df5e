"""The markup of engines."""

from collections.abc import Mapping, Sequence

from htpy import Element, Node, div, span
from markupsafe import Markup

from app.charts.figures import share
from app.charts.figures import span as whole_span
from app.charts.svg import sparkline
from app.domain.engine_pauses import EnginePause
from app.domain.time_format import iso_day
from app.page.engines.figures import Engine, Figures
from app.page.parts.badge import badge
from app.page.parts.notice import empty
from app.page.parts.table import Column, table
from app.page.parts.times import at
from app.page.parts.words import credits, each, nothing, of
from app.store.read.breakdown import BUCKETS_MS

NONE = empty("No answer was settled in the last seven days.")
WELL_FROM = 0.9
"""A day on which fewer of the answers were usable is drawn as one of trouble."""
DONE, WRONG = 2, 3
"""Colours of a chart."""


def engine_table(
    engines: Sequence[Engine], days_ms: Sequence[int], paused: Mapping[str, EnginePause]
) -> Element:
    """An engine a line."""
    columns: tuple[Column[Engine], ...] = (
        Column("Engine", lambda one: [one.task_type, _paused(paused.get(one.task_type))]),
        Column("Usable", lambda one: _usable(one.all)),
        Column("Day by day", lambda one: _days(one, days_ms)),
        Column("Half within", lambda one: _within(one.all, 50), is_figure=True),
        Column("95 % within", lambda one: _within(one.all, 95), is_figure=True),
        Column("Credits", lambda one: _charged(one.all), is_figure=True),
        Column(
            "For each usable answer",
            lambda one: each(one.all.per_usable, "no usable answer, or no known charge"),
            is_figure=True,
        ),
    )
    return table("Engines, by name", columns, engines, empty=NONE)


def _paused(pause: EnginePause | None) -> Node:
    if pause is None:
        return None
    return span(".more")[badge("paused"), " since ", at(pause.paused_at_ms)]


def _usable(figures: Figures) -> Node:
    short, failed = figures.completed - figures.usable, figures.answers - figures.completed
    return [
        share(figures.usable, figures.answers),
        span(".more")[of(figures.usable, figures.answers, "answers")],
        span(".more")[f"{failed:,} failed, {short:,} too short"] if failed or short else None,
    ]


def _days(engine: Engine, days_ms: Sequence[int]) -> Node:
    columns: list[tuple[int, float | None, str]] = []
    words = []
    for day_ms in days_ms:
        figures = engine.days.get(day_ms)
        if figures is None or not figures.answers:
            # An empty place, and no column of height 0: nothing was asked.
            columns.append((DONE, None, f"{iso_day(day_ms)}: no answers"))
            continue
        part = figures.usable / figures.answers
        told = f"{iso_day(day_ms)}: {figures.usable:,} of {figures.answers:,} usable"
        columns.append((DONE if part >= WELL_FROM else WRONG, part, told))
        words.append(told)
    drawn = Markup(sparkline(columns, len(days_ms)))  # noqa: S704 - sparkline escapes
    return div(".spark-of", role="img", aria_label="; ".join(words))[drawn]


def _within(figures: Figures, percent: int) -> Node:
    if not figures.timed:
        return nothing("no time is known")
    bound_ms = figures.within_ms(percent)
    if bound_ms is None:
        return ["over ", whole_span(BUCKETS_MS[-1])]
    return whole_span(bound_ms)


def _charged(figures: Figures) -> Node:
    if not figures.charge_known:
        return nothing("no charge is known")
    missing = figures.answers - figures.charge_known
    more = of(figures.charge_known, figures.answers, "charges known") if missing else None
    return [credits(figures.charged), span(".more")[more] if more else None]
