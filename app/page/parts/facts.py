"""Figures side by side, each under its name."""

from collections.abc import Sequence
from dataclasses import dataclass

from htpy import Element, Node, dd, div, dl, dt, span


@dataclass(frozen=True, slots=True)
class Fact:
    """One figure. `more`: of how many, since when; `tone`: good, warn or loud."""

    name: str
    value: Node
    more: Node = None
    tone: str = ""


def cards(facts: Sequence[Fact], id: str | None = None) -> Element:
    """Large, in boxes: what is looked at first."""
    return dl(".cards", id=id)[
        [div(class_=f.tone or None)[dt[f.name], dd[span(".value")[f.value], _more(f)]] for f in facts]
    ]


def facts(rows: Sequence[Fact]) -> Element:
    """Line by line."""
    return dl(".facts")[[(dt[f.name], dd(class_=f.tone or None)[f.value, " ", _more(f)]) for f in rows]]


def _more(fact: Fact) -> Node:
    return span(".more")[fact.more] if fact.more is not None else None
