"""/v1/actions: who changed what, and when."""

from pydantic import BaseModel, Field

from app.api.fields import Id, Time
from app.api.pages import Page, PageParams, read_cursor, write_cursor
from app.api.route import Call, Route
from app.domain.access import ActionRow, Scope


class Action(BaseModel):
    """One change, or one that was tried."""

    id: Id
    at: Time
    actor: str = Field(description="The name of a token, or `command line`.")
    token_id: Id | None = Field(description="null: the command line.")
    action: str = Field(description="What was done, such as `run.pause`.")
    subject: str | None = Field(
        description="The id of what it was done to, or what was given as one; null: nothing came of it."
    )
    request_id: str | None
    status: int | None = Field(description="As HTTP has it; null: it goes on, or its process died.")


async def list_actions(call: Call[PageParams, None]) -> Page[Action]:
    """Newest first."""
    asked = call.params
    place = read_cursor(asked.cursor, "actions", str)
    rows, following = await call.store.access.actions_before(
        str(place[0]) if place else None, asked.limit, call.caller.account
    )
    more = None if following is None else write_cursor("actions", following)
    return Page(data=[_model(row) for row in rows], next_cursor=more)


def _model(row: ActionRow) -> Action:
    same = {name: getattr(row, name) for name in Action.model_fields if name != "at"}
    return Action(at=row.at_ms, **same)


ROUTES = (
    Route(
        "GET",
        "/v1/actions",
        list_actions,
        "List what was changed, and by whom, newest first",
        {200: Page[Action]},
        scope=Scope.READ,
        group="actions",
        params=PageParams,
        description="A token of one account sees what such tokens did; a page of it may have few actions, or "
        "none, and still a `next_cursor`.",
    ),
)
