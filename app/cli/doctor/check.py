"""What the doctor says of one thing it looked at, and how that is drawn."""

from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.markup import escape

from app.cli.terminal import STATE_STYLES
from app.views.runs import Document

State = Literal["ok", "warning", "fault"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    detail: str
    remedy: str = ""
    """What to do about it; empty when there is nothing to do."""


def draw_checks(output: Console, document: Document) -> None:
    """The doctor's findings."""
    for check in document["checks"]:
        style = STATE_STYLES[check["state"]]
        output.print(f"[{style}]{check['state']:>7}[/{style}]  {check['name']}: {escape(check['detail'])}")
        if check["remedy"]:
            output.print(f"         {escape(check['remedy'])}")
    if document["next"]:
        output.print(f"\n[cyan]Next:[/cyan] {escape(document['next'])}")
