"""Times in markup: UTC, and for programs with milliseconds; page.js offers local and relative ones."""

from htpy import Element, Node, time

from app.charts.figures import duration
from app.domain.time_format import iso_utc
from app.page.parts.words import nothing


def at(ms: int | None, why: str = "not yet") -> Node:
    """A time to the second; the attribute has the milliseconds. None: `why` there is none."""
    return nothing(why) if ms is None else _time(iso_utc(ms), 19)


def exactly_at(ms: int | None, why: str = "not yet") -> Node:
    """The same to the millisecond, where events are compared."""
    return nothing(why) if ms is None else _time(iso_utc(ms), 23)


def written(iso: str | None, why: str) -> Node:
    """Of a document that has times as text."""
    return nothing(why) if iso is None else _time(iso, 19)


def _time(iso: str, chars: int) -> Element:
    return time(datetime=iso, title=f"{iso} (UTC)")[iso[:chars].replace("T", " ")]


def took(ms: int | None, why: str = "not yet") -> Node:
    """A span of time. A clock that was set back makes no negative one."""
    return nothing(why) if ms is None else (duration(max(0, ms)) if ms >= 1000 else f"{max(0, ms)} ms")
