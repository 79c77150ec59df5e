"""The markup of actions."""

from collections.abc import Sequence

from htpy import Element, Node, a, code

from app.api.native.actions import Action
from app.page.parts.badge import badge
from app.page.parts.notice import empty
from app.page.parts.table import Column, table
from app.page.parts.times import at
from app.page.parts.words import id_of, nothing, others

PLACES = {"run": "/runs/", "task": "/tasks/", "bulk_change": "/bulk/"}
"""Where the subject of an action is shown, by what it is of."""


def action_table(actions: Sequence[Action]) -> Element:
    """A line each."""
    none = empty("Nothing was changed yet.", "What is changed by the API or by this page is listed here.")
    return table("Actions, newest first", COLUMNS, actions, empty=none)


def _subject(action: Action) -> Node:
    if action.subject is None:
        return nothing("nothing came of it")
    kind = action.action.partition(".")[0]
    shown = id_of(action.subject)
    return a(href=PLACES[kind] + action.subject)[shown] if kind in PLACES else shown


def _outcome(action: Action) -> Node:
    if action.status is None:
        # The command line says so with its change, in one transaction.
        return badge("done", tone="done") if action.token_id is None else badge("unknown")
    if action.status < 400:
        return badge("done", tone="done")
    return [badge("refused", tone="over"), " ", str(action.status)]


COLUMNS: tuple[Column[Action], ...] = (
    Column("At", lambda action: at(action.at)),
    Column("Who", lambda action: others(action.actor)),
    Column("Action", lambda action: action.action),
    Column("Of", _subject),
    Column("Outcome", _outcome),
    Column("Request", lambda action: code[action.request_id] if action.request_id else nothing("none")),
)
