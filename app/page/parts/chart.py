"""Charts, each with what it knows of how many, and with the table of its figures beside it."""

from collections.abc import Mapping, Sequence

from htpy import Element, Node, b, details, figcaption, figure, i, li, p, summary, ul
from markupsafe import Markup

from app.charts.figures import Number
from app.charts.svg import SERIES_CLASSES, Chart, stacked_columns


def columns_chart(
    chart: Chart, labels: Sequence[str], series: Mapping[str, Sequence[Number]], *, known: Node, table: Node
) -> Element:
    """One column for each label, one colour for each series. `known`: "3 of 4 answered"; `table`: the same
    figures for who sees no chart."""
    drawn = Markup(stacked_columns(chart, labels, series))  # noqa: S704 - the chart escapes
    return figure[
        figcaption[
            b(id=f"{chart.id}-title")[chart.title],
            p(".more", id=f"{chart.id}-description")[chart.description, " ", known],
        ],
        drawn,
        legend(list(series)),
        details[summary["The same in figures"], table],
    ]


def legend(names: Sequence[str]) -> Node:
    """Which colour is which; nothing where there is one only."""
    if len(names) < 2:
        return None
    return ul(".legend")[[li[i(class_=f"s{n % SERIES_CLASSES}"), name] for n, name in enumerate(names)]]
