"""The intake: refusals by reason, deliveries that were set aside or are held up, each with its evidence."""

from htpy import Node, code, div, h2, p, pre, section

from app.api.native import inbox
from app.api.native.inbox import delivery_model
from app.api.problems import not_found
from app.config import DEFAULT_ACCOUNT
from app.domain.access import Scope
from app.domain.time_format import DAY_MS
from app.page.intake.markup import delivery_facts, delivery_table, refusal_table, retry_form
from app.page.parts.download import all_of_it
from app.page.parts.notice import empty
from app.page.parts.table import pager
from app.page.parts.words import others
from app.page.visit import Drawn, GoTo, PageRoute, Visit
from app.views.inbox import body_document

SHOWN = 25
REFUSED_DAYS = 7
BODY_CHARS_MAX = 200_000
"""Of what a delivery says; the command shows the rest."""
NONE_SET_ASIDE = empty("Nothing is set aside.", "Every delivery of the provider's could be settled.")
NONE_HELD_UP = empty("Nothing is held up.")
HELD_UP = "held_up"
"""The cursor of what is held up, beside the one of what is set aside."""


async def show_intake(visit: Visit) -> Drawn:
    """Refusals, then what waits for a person, then what waits for trouble to pass."""
    store, since_ms = visit.parts.store, visit.now_ms - REFUSED_DAYS * DAY_MS
    refused = await visit.read(lambda: store.refusals.refused_since(since_ms))
    aside = await visit.ask(inbox.list_inbox, limit=SHOWN, cursor=visit.values.get("cursor"))
    held_up = await visit.ask(inbox.list_held_up, limit=SHOWN, cursor=visit.values.get(HELD_UP))
    return Drawn(
        "Intake",
        div[
            section(aria_labelledby="aside")[
                h2("#aside")["Set aside"],
                p(".dim")["Deliveries that could not be settled through their own fault. They wait for you."],
                delivery_table(visit, aside.data, NONE_SET_ASIDE),
                pager("/intake", visit.values, aside.next_cursor) if aside.data else None,
                all_of_it("set-aside") if aside.data else None,
            ],
            section(aria_labelledby="held")[
                h2("#held")["Held up"],
                p(".dim")["Something else is in their way; they are tried again by themselves."],
                delivery_table(visit, held_up.data, NONE_HELD_UP),
                pager("/intake", visit.values, held_up.next_cursor, HELD_UP) if held_up.data else None,
                all_of_it("held-up") if held_up.data else None,
            ],
            section(aria_labelledby="refused")[
                h2("#refused")["Refused"],
                p(".dim")[f"Answered with an error and not stored, in the last {REFUSED_DAYS} days."],
                refusal_table(refused),
                all_of_it("refused") if refused else None,
            ],
        ],
    )


async def show_delivery(visit: Visit) -> Drawn:
    """One delivery and what it says. Raises Problem."""
    store = visit.parts.store
    rows = await visit.read(lambda: store.set_aside.find_inbox(visit.values["delivery_id"]))
    if len(rows) != 1 or not visit.caller.sees(rows[0].account or DEFAULT_ACCOUNT):
        raise not_found("delivery")
    row = rows[0]
    delivery = delivery_model(row)
    return Drawn(
        "Delivery",
        div[
            delivery_facts(delivery, row),
            retry_form(visit, delivery),
            section(aria_labelledby="body")[h2("#body")["What it says"], await _body(visit, row.id)],
        ],
    )


async def _body(visit: Visit, delivery_id: str) -> Node:
    if visit.hides_prompts:
        return p(".dim")["hidden"]
    body = await visit.read(lambda: visit.parts.store.set_aside.inbox_body(delivery_id))
    text = body_document(body)["body"]
    if text is None:
        return p["It does not unpack."]
    if len(text) <= BODY_CHARS_MAX:
        return pre(tabindex="0")[others(text)]
    command = code[f"tallyhook inbox show {delivery_id} --body"]
    return [
        p(".dim")["Its beginning; all of it: ", command],
        pre(tabindex="0")[others(text[:BODY_CHARS_MAX])],
    ]


async def retry_delivery(visit: Visit) -> GoTo:
    """Another look at it."""
    await visit.ask(inbox.retry_delivery, delivery_id=visit.values["delivery_id"])
    return GoTo("/intake")


ROUTES = (
    PageRoute("GET", "/intake", show_intake, query=("cursor", HELD_UP), nav="Intake"),
    PageRoute("GET", "/intake/{delivery_id}", show_delivery),
    PageRoute("POST", "/intake/{delivery_id}/retry", retry_delivery, scope=Scope.OPERATE),
)
