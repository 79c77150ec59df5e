"""The markup of the intake."""

from collections.abc import Sequence

from htpy import Element, Node, a, button, span

from app.api.native.inbox import InboxDelivery
from app.domain.access import Scope
from app.page.parts.badge import badge
from app.page.parts.facts import Fact, facts
from app.page.parts.form import form_of
from app.page.parts.notice import empty
from app.page.parts.table import Column, table
from app.page.parts.times import at, exactly_at
from app.page.parts.words import count, id_of, nothing, others
from app.page.visit import Visit
from app.store.read.set_aside import InboxRow
from app.store.write.refusals import Refused

NONE_REFUSED = empty("No delivery was refused.")


def refusal_table(rows: Sequence[Refused]) -> Element:
    """A reason a line."""
    return table("Refused deliveries by reason", REFUSALS, rows, empty=NONE_REFUSED)


REFUSALS: tuple[Column[Refused], ...] = (
    Column("Reason", lambda row: row.reason.replace("_", " ")),
    Column("Deliveries", lambda row: count(row.count), is_figure=True),
    Column("Last", lambda row: ["in the hour from ", at(row.last_hour_ms)]),
)


def delivery_table(visit: Visit, rows: Sequence[InboxDelivery], none: Node) -> Element:
    """Deliveries, a line each; with a button for who may operate."""
    columns: list[Column[InboxDelivery]] = [
        Column("Delivery", lambda row: a(href=f"/intake/{row.id}")[id_of(row.id)]),
        Column("State", _state),
        Column("Account", lambda row: row.account),
        Column("Received", lambda row: at(row.received_at)),
        Column("Tries", lambda row: count(row.tries), is_figure=True),
    ]
    if visit.may(Scope.OPERATE):
        columns.append(Column("Act", lambda row: retry_form(visit, row)))
    return table("Deliveries", columns, rows, empty=none)


def _state(row: InboxDelivery) -> Node:
    return [badge(row.state), span(".more")[others(row.error)] if row.error else None]


def retry_form(visit: Visit, row: InboxDelivery) -> Node:
    """The button that has it looked at again; nothing where that makes no sense."""
    if row.state not in ("set_aside", "held_up") or not visit.may(Scope.OPERATE):
        return None
    label = f"Look at delivery {row.id} again"
    return form_of(visit, f"/intake/{row.id}/retry")[
        button(".plain", type="submit", aria_label=label)["Look again"]
    ]


def delivery_facts(row: InboxDelivery, stored: InboxRow) -> Element:
    """All that is known of one."""
    return facts(
        [
            Fact("Id", row.id),
            Fact("State", badge(row.state)),
            Fact("Why", others(row.error) if row.error else nothing("nothing is wrong with it")),
            Fact("Account", row.account),
            Fact("Source", row.source),
            Fact("Received", exactly_at(row.received_at)),
            Fact("Webhook id", others(stored.webhook_id) if stored.webhook_id else nothing("none was sent")),
            Fact("Tries", count(row.tries)),
            Fact("Next try", at(row.next_try_at, "not by itself")),
            Fact("Stored", count(row.stored_bytes), f"bytes, {stored.encoding}"),
        ]
    )
