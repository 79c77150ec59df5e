"""Words and figures in markup: what is unknown is a dash that says so, others' text stands by itself."""

from decimal import Decimal

from htpy import Element, Node, bdi, fragment, span

from app.charts.figures import Number, figure

UNKNOWN = "—"


def nothing(why: str = "unknown") -> Element:
    """Where there is no value: never a 0. `why` is read out, and shown to who points at it."""
    return span(".none", title=why)[span(aria_hidden="true")[UNKNOWN], span(".unseen")[why]]


def sentence(text: str) -> str:
    """A text of ours that begins in the middle of one, as one of its own."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?")) else ".")


def others(text: str | None) -> Node:
    """Other people's text, in whichever direction it is written."""
    return bdi[text] if text else nothing("empty")


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


def of(part: Number, whole: Number, what: str) -> Node:
    """How much of what it is about a figure or a chart knows: "3 of 4 answered"."""
    return span(".dim")[f"{figure(part)} of {figure(whole)} {what}"]


def prompt(text: str | None, *, is_hidden: bool) -> Node:
    """A prompt, or that it is hidden here (TALLYHOOK_PAGE_HIDE_PROMPTS)."""
    return span(".dim")["hidden"] if is_hidden else others(text)


def id_of(text: str) -> Node:
    """An id: its beginning, and all of it to who points at it or copies it."""
    return fragment[span(".id", title=text)[text[:13], "…"]] if len(text) > 16 else span(".id")[text]
