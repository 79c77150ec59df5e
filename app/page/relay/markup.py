"""The markup of endpoints."""

from collections.abc import Sequence

from htpy import Element, Node, button, code, span

from app.api.native.relay import Endpoint
from app.domain.access import Scope
from app.page.parts.badge import badge
from app.page.parts.form import form_of
from app.page.parts.notice import empty
from app.page.parts.table import Column, table
from app.page.parts.times import at
from app.page.parts.words import count, others
from app.page.visit import Visit
from app.store.read.relay import COUNTED_MAX

NONE = empty(
    "Nothing is pushed anywhere yet.",
    ["A run, a schedule or a token names an address: ", code["tallyhook submit prompts.csv --webhook-url …"]],
)


def endpoint_table(visit: Visit, rows: Sequence[Endpoint]) -> Element:
    """Endpoints, a line each; with a button for who may operate."""
    columns: list[Column[Endpoint]] = [
        Column("Address", _address),
        Column("State", _state),
        Column("Taken", lambda row: count(row.taken), is_figure=True),
        Column("Waiting", lambda row: _counted(row.waiting), is_figure=True),
        Column("Given up", lambda row: _counted(row.given_up), is_figure=True),
        Column("Last taken", lambda row: at(row.last_taken_at, "none yet")),
    ]
    if visit.may(Scope.OPERATE):
        columns.append(Column("Act", lambda row: _retry(visit, row)))
    return table("Endpoints, newest first", columns, rows, empty=NONE)


def _address(row: Endpoint) -> Node:
    runs = ", ".join(row.runs)
    return [
        others(row.url),
        span(".more")["of ", others(runs) if runs else "single tasks", " · ", row.account],
    ]


def _state(row: Endpoint) -> Node:
    resting = row.state == "active" and row.failing_since is not None
    return [
        badge("failing" if resting else row.state, tone="paused" if resting else None),
        span(".more")["since ", at(row.failing_since)] if row.failing_since is not None else None,
        span(".more")[others(row.error)] if row.error else None,
    ]


def _counted(number: int) -> Node:
    """Messages are counted up to a bound."""
    return [count(number), " or more"] if number >= COUNTED_MAX else count(number)


def _retry(visit: Visit, row: Endpoint) -> Node:
    if row.state == "closed" or not (row.waiting or row.given_up):
        return None
    label = f"Post again what {row.url} did not take"
    return form_of(visit, f"/relay/{row.id}/retry")[
        button(".plain", type="submit", aria_label=label)["Retry"]
    ]
