"""/v1/inbox: deliveries that could not be settled, and another look at them."""

from typing import Literal

from pydantic import BaseModel, Field

from app.api.fields import Id, Time
from app.api.idempotency import once
from app.api.pages import Page, PageParams, page_of, read_cursor
from app.api.problems import not_found
from app.api.route import Call, Params, Route
from app.config import DEFAULT_ACCOUNT
from app.domain.access import Scope
from app.store.read.set_aside import InboxRow
from app.views.inbox import inbox_state


class InboxDelivery(BaseModel):
    """A delivery without what it says."""

    id: Id
    state: Literal["set_aside", "held_up", "new", "done", "unmatched"] = Field(
        description="`set_aside`: through its own fault, it waits for you. `held_up`: it is tried by itself."
    )
    account: str
    source: str
    received_at: Time
    error: str | None
    tries: int
    next_try_at: Time | None = Field(description="null: it is not tried by itself.")
    stored_bytes: int


class LookedAgain(BaseModel):
    """What a worker looks at again within seconds."""

    deliveries: int


class DeliveryParams(Params):
    """One delivery."""

    delivery_id: Id


def delivery_model(row: InboxRow) -> InboxDelivery:
    """A delivery of the inbox."""
    state = inbox_state(row)
    return InboxDelivery.model_validate(
        {
            "id": row.id,
            "state": state,
            "account": row.account or DEFAULT_ACCOUNT,
            "source": row.source,
            "received_at": row.received_at_ms,
            "error": row.error,
            "tries": row.tries,
            "next_try_at": row.due_at_ms if state == "held_up" else None,
            "stored_bytes": row.stored_bytes,
        }
    )


async def list_inbox(call: Call[PageParams, None]) -> Page[InboxDelivery]:
    """Set aside, newest first."""
    asked = call.params
    place = read_cursor(asked.cursor, "inbox", int, str)
    before = (int(place[0]), str(place[1])) if place else None
    rows = await call.store.set_aside.set_aside_page(before, asked.limit + 1, call.caller.account)
    return page_of(
        rows, asked.limit, "inbox", key=lambda row: [row.received_at_ms, row.id], model=delivery_model
    )


async def list_held_up(call: Call[PageParams, None]) -> Page[InboxDelivery]:
    """Held up by trouble that is not theirs; those that are tried first."""
    asked = call.params
    place = read_cursor(asked.cursor, "held-up", int, str)
    after = (int(place[0]), str(place[1])) if place else None
    rows = await call.store.set_aside.held_up_page(after, asked.limit + 1, call.caller.account)
    return page_of(
        rows, asked.limit, "held-up", key=lambda row: [row.due_at_ms, row.id], model=delivery_model
    )


async def retry_delivery(call: Call[DeliveryParams, None]) -> LookedAgain:
    """Of one."""
    rows = await call.store.set_aside.find_inbox(call.params.delivery_id)
    if not rows or not call.caller.sees(rows[0].account or DEFAULT_ACCOUNT):
        raise not_found("delivery")
    call.subject = rows[0].id
    retry, ids, now_ms = call.store.set_aside.retry_inbox, [rows[0].id], call.parts.clock()
    again = await once(call, lambda: retry(ids, now_ms))
    return LookedAgain(deliveries=len(again))


ROUTES = (
    Route(
        "GET",
        "/v1/inbox",
        list_inbox,
        "List deliveries that were set aside, newest first",
        {200: Page[InboxDelivery]},
        scope=Scope.READ,
        group="inbox",
        params=PageParams,
    ),
    Route(
        "GET",
        "/v1/inbox/held-up",
        list_held_up,
        "List deliveries that trouble holds up, those that are tried first",
        {200: Page[InboxDelivery]},
        scope=Scope.READ,
        group="inbox",
        params=PageParams,
        description="They are tried again by themselves; one that is tried while you read on may be "
        "listed twice.",
    ),
    Route(
        "POST",
        "/v1/inbox/{delivery_id}/retry",
        retry_delivery,
        "Look at a delivery again",
        {200: LookedAgain},
        scope=Scope.OPERATE,
        group="inbox",
        params=DeliveryParams,
        action="inbox.retry",
        problems=(404,),
        description="A worker does it within seconds; what still cannot be settled is set aside again.",
    ),
)
