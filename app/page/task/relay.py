"""What became of pushing a task's results, drawn."""

from collections.abc import Sequence

from htpy import Element, Node, p, span

from app.page.parts.badge import badge
from app.page.parts.table import Column, table
from app.page.parts.times import at
from app.page.parts.words import count, nothing, others
from app.relay_options import url_without_query
from app.store.read.task_relay import TaskMessage

STATES = {
    "to_come": ("waiting", "not settled yet"),
    "new": ("waiting", "about to be posted"),
    "waiting": ("paused", "waiting"),
    "given_up": ("wrong", "given up"),
    "taken": ("done", "taken"),
    "before": ("over", "settled before there was the endpoint"),
}
NOWHERE = "Its results are pushed nowhere; they are fetched."


def relayed(messages: Sequence[TaskMessage]) -> Element:
    """A line for each attempt and address."""
    if not messages:
        return p(".dim")[NOWHERE]
    return table("Posts of its results", COLUMNS, messages, empty=None)


def _address(row: TaskMessage) -> Node:
    closed = span(".more")["the endpoint is ", row.endpoint_state.replace("_", " ")]
    return [others(url_without_query(row.url)), None if row.endpoint_state == "active" else closed]


def _event(row: TaskMessage) -> Node:
    return [badge(row.kind), f" attempt {row.attempt}"] if row.kind else nothing("it has not ended yet")


def _state(row: TaskMessage) -> Node:
    tone, words = STATES[row.state]
    return badge(words, tone=tone)


def _last(row: TaskMessage) -> Node:
    if not row.tries:
        return nothing("nothing is kept of it" if row.state == "taken" else "not tried yet")
    return [
        str(row.status) if row.status is not None else "no answer",
        span(".more")[others(row.error)] if row.error else None,
    ]


def _next(row: TaskMessage) -> Node:
    return at(row.due_at_ms, "none" if row.state != "given_up" else "not by itself: see Relay")


COLUMNS: tuple[Column[TaskMessage], ...] = (
    Column("Address", _address),
    Column("Result", _event),
    Column("State", _state),
    Column("Tries", lambda row: count(row.tries or None, "not counted"), is_figure=True),
    Column("Last answer", _last),
    Column("Next try", _next),
)
