"""Draws charts: numbers in, SVG text out. No I/O, no clock, no fonts or colours of its own: these are classes
that the page's style sheet fills in (s0 … s7 for the series, grid, label).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from html import escape

Number = int | Decimal

WIDTH = 720
HEIGHT = 260
LEFT, RIGHT, TOP, BOTTOM = 64, 8, 10, 28
COLUMN_MAX = 64
TICKS = 4
LABELS_MAX = 9
SERIES_CLASSES = 8
ROW_HEIGHT = 24
NAME_WIDTH = 150
VALUE_WIDTH = 90
CONTROLS = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 127), "\N{REPLACEMENT CHARACTER}")


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


def figure(value: Number) -> str:
    """A number for people: exact, in groups of three."""
    return f"{value:,f}" if isinstance(value, Decimal) else f"{value:,}"


def stacked_columns(chart: Chart, labels: Sequence[str], series: Mapping[str, Sequence[Number]]) -> str:
    """One column for each label, one colour for each series, from the axis up in the order of `series`."""
    sums = [sum(values) for values in zip(*series.values(), strict=True)] if series else []
    step = _tick(max(sums, default=0))
    top = step * TICKS
    height = HEIGHT - TOP - BOTTOM
    slot = (WIDTH - LEFT - RIGHT) / max(len(labels), 1)
    wide = min(slot * 0.8, COLUMN_MAX)
    parts = [_grid(step, top, height)]
    for n, label in enumerate(labels):
        middle, base = LEFT + (n + 0.5) * slot, float(TOP + height)
        for colour, (name, values) in enumerate(series.items()):
            if not values[n]:
                continue
            tall = float(values[n] / top) * height
            base -= tall
            tooltip = text(f"{name}, {label}: {figure(values[n])} {chart.unit}")
            parts.append(
                f'<rect class="s{colour % SERIES_CLASSES}" x="{middle - wide / 2:.1f}" y="{base:.1f}" '
                f'width="{wide:.1f}" height="{tall:.1f}"><title>{tooltip}</title></rect>'
            )
        if n % -(-len(labels) // LABELS_MAX) == 0:
            parts.append(_label(middle, HEIGHT - 8, label, "middle"))
    return _svg(chart, HEIGHT, parts)


def bars(chart: Chart, rows: Sequence[tuple[str, Number, int]]) -> str:
    """One bar for each (name, value, colour), from the left."""
    top = max((value for _, value, _ in rows), default=0) or 1
    bar_width = WIDTH - NAME_WIDTH - VALUE_WIDTH
    parts = []
    for n, (name, value, colour) in enumerate(rows):
        y = TOP + n * ROW_HEIGHT
        long = float(value / top) * bar_width
        tooltip = text(f"{name}: {figure(value)} {chart.unit}")
        parts += [
            _label(NAME_WIDTH - 8, y + 15, name, "end"),
            f'<rect class="s{colour % SERIES_CLASSES}" x="{NAME_WIDTH}" y="{y + 3}" width="{long:.1f}" '
            f'height="{ROW_HEIGHT - 8}"><title>{tooltip}</title></rect>',
            _label(NAME_WIDTH + long + 6, y + 15, figure(value), "start"),
        ]
    return _svg(chart, TOP * 2 + len(rows) * ROW_HEIGHT, parts)


def _svg(chart: Chart, height: int, parts: Sequence[str]) -> str:
    name = text(chart.id)
    return (
        f'<svg role="img" viewBox="0 0 {WIDTH} {height}" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{text(chart.title)}</title>'
        f'<desc id="{name}-d">{text(chart.description)}</desc>'
        f"{''.join(parts)}</svg>"
    )


def _grid(step: Number, top: Number, height: int) -> str:
    lines = []
    for n in range(TICKS + 1):
        y = TOP + height - height * n / TICKS
        lines.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            + _label(LEFT - 6, y + 4, figure(step * n), "end")
        )
    return "".join(lines)


def _label(x: float, y: float, value: str, anchor: str) -> str:
    return f'<text class="label" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text(value)}</text>'


def _tick(largest: Number) -> Number:
    """The smallest of 1, 2, 5, 10, 20, … of which TICKS reach the largest value; for less than TICKS, 1."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if step * factor * TICKS >= largest:
                return step * factor
        step *= 10
