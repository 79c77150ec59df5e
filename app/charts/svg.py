"""Draws charts: numbers in, SVG text out. No I/O, no clock, no fonts or colours of its own: these are classes
that the page's style sheet fills in (s0 … s7 for the series, grid, label).

Widths are percents and heights are pixels, so that a chart fills what room there is and its letters keep
their size on a phone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from app.charts.figures import Number, figure

HEIGHT = 250
TOP, BOTTOM = 10, 28
LENGTH_MIN_PX = 3
"""Of what is more than nothing: 40 beside 4,700 must be seen."""
LENGTH_MIN_PERCENT = 2.5
"""The same in a bar, which is 100 pixels wide on a phone."""
PARTED_PERCENT = 20
"""A bar shorter than this has no lines between its segments: they would cover it."""
FILLED = 80
"""Percent of its place that a column takes."""
COLUMN_MAX = 12
"""Percent of the chart."""
CHAR_PX = 7.5
"""A digit of an axis, at most."""
SPARK_HEIGHT = 28
TICKS_MAX = 5
LABELS_MAX, LABELS_NARROW_MAX = 10, 5
SERIES_CLASSES = 8
CONTROLS = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 127), "\N{REPLACEMENT CHARACTER}")
Segment = tuple[int, Number, str]
"""(colour, value, what it is in words) of a part of a bar."""


@dataclass(frozen=True, slots=True)
class Chart:
    """What every chart has. `id` is unique in its page; title and description are read out instead of it."""

    id: str
    title: str
    description: str
    unit: str


def text(value: object) -> str:
    """Other people's text, as text: nothing of it is markup, in an element or in an attribute."""
    return escape(str(value).translate(CONTROLS), quote=True)


def row_bar(segments: Sequence[Segment], top: Number) -> str:
    """A bar from the left: its segments one after another, 100 percent being `top`."""
    lengths = visible([float(value / top) * 100 if top else 0.0 for _, value, _ in segments])
    parts, x = [], 0.0
    for (colour, value, words), length in zip(segments, lengths, strict=True):
        if not length:
            continue
        parts.append(
            f'<rect class="{_colour(colour)}" x="{x:.2f}%" y="0" width="{length:.2f}%" height="100%">'
            f"<title>{text(words)}: {figure(value)}</title></rect>"
        )
        x += length
    look = "bar" if x > PARTED_PERCENT else "bar fine"
    return f'<svg class="{look}" aria-hidden="true" width="100%" height="12">{"".join(parts)}</svg>'


def visible(lengths: Sequence[float], least: float = LENGTH_MIN_PERCENT) -> list[float]:
    """The lengths, so that each that is not 0 can be seen. Their sum stays, but is `least` at least: the
    longest makes room for the others, or each gives its part."""
    seen = [max(length, least) if length > 0 else 0.0 for length in lengths]
    if not any(seen):
        return seen
    added = sum(seen) - max(sum(lengths), least)
    if max(seen) - added >= least:
        seen[seen.index(max(seen))] -= added
        return seen
    return [length * (1 - added / sum(seen)) for length in seen]


def stacked_columns(chart: Chart, labels: Sequence[str], series: Mapping[str, Sequence[Number]]) -> str:
    """One column for each label, one colour for each series, from the axis up in the order of `series`."""
    sums = [sum(values) for values in zip(*series.values(), strict=True)] if series else []
    values = _ticks(max(sums, default=0))
    top = values[-1]
    ticks = [(value, TOP + _tall() * (1 - value / top)) for value in values]
    axis_px = round(max(len(figure(value)) for value, _ in ticks) * CHAR_PX) + 8
    parts = [f'<line class="grid" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>' for _, y in ticks]
    slot = 100 / max(len(labels), 1)
    for n, label in enumerate(labels):
        column = [(name, of_days[n]) for name, of_days in series.items()]
        parts += _column(chart, label, column, top, (n + 0.5) * slot, slot)
        parts += _column_label(n, len(labels), label, (n + 0.5) * slot)
    axis = "".join(_label(f"{axis_px - 8}", y + 4, figure(value), "end") for value, y in ticks)
    return (
        f'<div class="plot" role="img" aria-labelledby="{chart.id}-title {chart.id}-description">'
        f'<svg class="axis" aria-hidden="true" width="{axis_px}" height="{HEIGHT}">{axis}</svg>'
        f'<svg class="columns" aria-hidden="true" width="100%" height="{HEIGHT}">{"".join(parts)}</svg></div>'
    )


def sparkline(columns: Sequence[tuple[int, Number | float | None, str]], places: int) -> str:
    """Columns side by side: (colour, share of 0 to 1, what it is), the newest at the right; `places`: how
    many have room. Where there is none, or its share is None, the place stays empty: nothing is no 0."""
    wide = 100 / places
    parts = []
    shown = columns[-places:]
    for n, (colour, part, words) in enumerate(shown, start=places - len(shown)):
        if part is None:
            continue
        tall = max(SPARK_HEIGHT * float(part), LENGTH_MIN_PX)
        parts.append(
            f'<rect class="{_colour(colour)}" x="{n * wide:.2f}%" y="{SPARK_HEIGHT - tall:.1f}" '
            f'width="{wide * FILLED / 100:.2f}%" height="{tall:.1f}"><title>{text(words)}</title></rect>'
        )
    drawn = "".join(parts)
    return f'<svg class="spark" aria-hidden="true" width="100%" height="{SPARK_HEIGHT}">{drawn}</svg>'


def _tall() -> int:
    return HEIGHT - TOP - BOTTOM


def _column(
    chart: Chart, label: str, column: Sequence[tuple[str, Number]], top: Number, middle: float, slot: float
) -> list[str]:
    wide = min(slot * FILLED / 100, COLUMN_MAX)
    base = float(TOP + _tall())
    parts = []
    lengths = visible([float(value / top) * _tall() for _, value in column], LENGTH_MIN_PX)
    for colour, ((name, value), length) in enumerate(zip(column, lengths, strict=True)):
        if not length:
            continue
        base -= length
        tooltip = text(f"{name}, {label}: {figure(value)} {chart.unit}")
        parts.append(
            f'<rect class="{_colour(colour)}" x="{middle - wide / 2:.2f}%" y="{base:.1f}" '
            f'width="{wide:.2f}%" height="{length:.1f}"><title>{tooltip}</title></rect>'
        )
    return parts


def _column_label(n: int, count: int, label: str, middle: float) -> list[str]:
    """Some labels, on a narrow screen fewer of them, so that none runs into the next."""
    every = -(-count // LABELS_MAX)
    if n % every:
        return []
    narrow_every = every * -(-min(count, LABELS_MAX) // LABELS_NARROW_MAX)
    classes = "label" if n % narrow_every == 0 else "label roomy"
    return [_label(f"{middle:.2f}%", HEIGHT - 8, label, "middle", classes)]


def _label(x: str, y: float, value: str, anchor: str, classes: str = "label") -> str:
    return f'<text class="{classes}" x="{x}" y="{y:.1f}" text-anchor="{anchor}">{text(value)}</text>'


def _colour(number: int) -> str:
    return f"s{number % SERIES_CLASSES}"


def _ticks(largest: Number) -> list[int]:
    """From 0 in the smallest of 1, 2, 5, 10, 20, 25, 50, … of which TICKS_MAX reach the largest value."""
    power = 1
    while True:
        for factor in (10, 20, 25, 50):
            step, rest = divmod(factor * power, 10)
            if not rest and step * TICKS_MAX >= largest:
                return [step * n for n in range(max(1, math.ceil(largest / step)) + 1)]
        power *= 10
