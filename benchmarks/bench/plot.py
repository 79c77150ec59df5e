"""The plot of docs/performance.md, as SVG written by hand: how far each ratio is from its bar. Pure."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

Document = dict[str, Any]
LEFT, WIDTH, LINE, TOP = 190, 560, 17, 46
"""Pixels: space for names, for bars, for one bar, for the heading."""
COLOURS = {"postgresql": "#336791", "sqlite": "#b5651d"}
LEAST, MOST = 0.25, 8.0
"""Ends of the axis, as multiples of the bar; it is logarithmic, so that half and double are equally far."""


def plot(rows: Sequence[Document]) -> str:
    """One bar for each row that has a bar to reach. Right of the middle line it holds."""
    judged = [row for row in rows if row["bar"] is not None]
    names = list(dict.fromkeys(row["benchmark"] for row in judged))
    heading = "Ratio, as a multiple of its bar (logarithmic); lines: lowest and highest round"
    parts, y = [_text(LEFT, 18, heading, 13)], TOP
    for tick in (0.25, 0.5, 1, 2, 4, 8):
        parts.append(_tick(tick, TOP - 6, TOP + len(judged) * LINE + len(names) * 6))
    for name in names:
        for row in (one for one in judged if one["benchmark"] == name):
            parts += _bar(row, y)
            y += LINE
        y += 6
    height = y + 26
    for n, (store, colour) in enumerate(COLOURS.items()):
        parts.append(f'<rect x="{LEFT + n * 120}" y="{y + 6}" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(LEFT + 16 + n * 120, y + 15, store))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 90}" height="{height}"'
        f' font-family="sans-serif" role="img"><title>Benchmarks against their bars</title>'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )


def _bar(row: Document, y: int) -> list[str]:
    score = _score(row, row["ratio"])
    low, high = sorted(_x(_score(row, ratio)) for ratio in row["spread"])
    one, end, middle = _x(1), _x(score), y + LINE // 2 - 1
    sign = "≥" if row["bar_kind"] == "min" else "≤"
    holds = "" if row["holds"] else ' fill-opacity="0.35"'
    return [
        _text(8, y + 11, row["benchmark"]),
        f'<rect x="{min(one, end):.1f}" y="{y + 1}" width="{abs(end - one):.1f}" height="{LINE - 5}"'
        f' fill="{COLOURS[row["store"]]}"{holds}/>',
        f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="#222" stroke-width="1"/>',
        _text(LEFT + WIDTH + 8, y + 11, f"{row['ratio']:.3g} ({sign} {row['bar']:g})"),
    ]


def _score(row: Document, ratio: float) -> float:
    """More than 1 is better than the bar, whichever way the bar is meant."""
    return ratio / row["bar"] if row["bar_kind"] == "min" else row["bar"] / max(ratio, 1e-9)


def _x(score: float) -> float:
    share = math.log(min(max(score, LEAST), MOST) / LEAST) / math.log(MOST / LEAST)
    return LEFT + share * WIDTH


def _tick(score: float, top: int, bottom: int) -> str:
    stroke = "#222" if score == 1 else "#ccc"
    return (
        f'<path d="M{_x(score):.1f} {top}V{bottom}" stroke="{stroke}"/>'
        f'<text x="{_x(score):.1f}" y="{top - 4}" font-size="11" text-anchor="middle">{score:g}</text>'
    )


def _text(x: int, y: int, text: str, size: int = 11) -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}">{escape(text)}</text>'
