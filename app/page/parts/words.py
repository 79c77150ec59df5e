"""Words and figures in markup: what is unknown is a dash that says so, others' text stands by itself."""

import functools
import re
from decimal import Decimal

from htpy import Node, bdi, fragment, span, wbr
from markupsafe import Markup

from app.api.fields import exact
from app.api.native.books import Finding
from app.charts.figures import Number, figure
from app.domain.verdicts import words_of
from app.page.parts.drawn import drawn

UNKNOWN = "—"
CLIPPED_CHARS = 40
"""A shorter text is shown whole."""
KEPT = 256
"""Reasons for there being nothing, as they were drawn: our own words, of which there are few."""


@functools.lru_cache(KEPT)
def nothing(why: str = "unknown") -> Markup:
    """Where there is no value: never a 0. `why` is read out, and shown to who points at it."""
    return drawn(span(".none", title=why)[span(aria_hidden="true")[UNKNOWN], span(".unseen")[why]])


def sentence(text: str) -> str:
    """A text of ours that begins in the middle of one, as one of its own."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?")) else ".")


def others(text: str | None) -> Node:
    """Other people's text, in whichever direction it is written."""
    return bdi[text] if text else nothing("empty")


def clipped(text: str) -> Node:
    """Other people's text in a list: some lines of it, and all to who points at it or follows its row."""
    return bdi(".clip", title=text)[text] if len(text) > CLIPPED_CHARS else others(text)


def code_of(text: str) -> Node:
    """A word of a program, such as INTERNAL_SERVER_ERROR, which may go on in the next line behind a _."""
    return bdi[[[wbr if n else None, part] for n, part in enumerate(re.split(r"(?<=_)", text))]]


def count(value: Number | None, why: str = "unknown") -> Node:
    """A number, exact, in groups of three."""
    return nothing(why) if value is None else figure(value)


def credits(amount: Decimal | None, why: str = "unknown") -> Node:
    """Credits, exact: no zeros behind what counts, and none of it rounded away."""
    if amount is None:
        return nothing(why)
    plain = format(amount, "f")
    whole = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return figure(Decimal(whole))


def each(amount: Decimal | None, why: str) -> Node:
    """Credits for one of something, as they were rounded: to a hundredth, so that a column stands in line."""
    return nothing(why) if amount is None else f"{amount:,.2f}"


def of(part: Number, whole: Number, what: str) -> Node:
    """How much of what it is about a figure or a chart knows: "3 of 4 answered"."""
    return span(".dim")[f"{figure(part)} of {figure(whole)} {what}"]


def prompt(text: str | None, *, is_hidden: bool) -> Node:
    """A prompt, or that it is hidden here (TALLYHOOK_PAGE_HIDE_PROMPTS)."""
    return span(".dim")["hidden"] if is_hidden else others(text)


SHORT_ID_CHARS = 8


def id_of(text: str) -> Node:
    """An id: its end, by which ids of one time differ, and all of it to who points at it."""
    short = text[-SHORT_ID_CHARS:]
    return fragment[span(".id", title=text)["…", short]] if len(text) > 16 else span(".id")[text]


def found(finding: Finding) -> str:
    """What a finding says, as a sentence."""
    figures = {"expected": finding.expected, "actual": finding.actual}
    shown = {name: "?" if value is None else exact(value) for name, value in figures.items()}
    return words_of(finding.verdict).format(detail=finding.detail, **shown)
