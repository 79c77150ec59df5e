"""A bar of what a whole is made of, its parts in words beside it."""

from collections.abc import Sequence

from htpy import Element, div
from markupsafe import Markup

from app.charts.figures import Number
from app.charts.svg import Segment, row_bar


def bar(segments: Sequence[Segment], whole: Number, label: str) -> Element:
    """`segments`: (colour 0 to 7, value, what it is). `label` says all of it to who does not see it."""
    drawn = Markup(row_bar(segments, whole))  # noqa: S704 - row_bar escapes
    return div(".bar-of", role="img", aria_label=label)[drawn]
