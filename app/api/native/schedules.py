"""/v1/schedules: prompt files that run every so often."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from app.api.fields import Id
from app.api.pages import Page
from app.api.route import Call, Params, Route
from app.domain.access import Scope
from app.views.schedules import account_of, schedule_document


class Schedule(BaseModel):
    """A prompt file, and when it runs next."""

    id: Id
    name: str
    source: str
    every: str = Field(description="Such as `6h`.")
    state: Literal["enabled", "paused"]
    next_at: str = Field(json_schema_extra={"format": "date-time"})
    options: Any = Field(description="Of the runs that it makes; those that differ from the defaults.")
    last_error: str | None = Field(description="Why the last slot has no run; null: all well.")


async def list_schedules(call: Call[Params, None]) -> Page[Schedule]:
    """All of them on one page: there are as many as somebody has typed."""
    documents = [schedule_document(row) for row in await call.store.schedules.list_schedules()]
    shown = [document for document in documents if call.caller.sees(account_of(document["options"]))]
    return Page(data=[Schedule.model_validate(document) for document in shown], next_cursor=None)


ROUTES = (
    Route(
        "GET",
        "/v1/schedules",
        list_schedules,
        "List the schedules, by name",
        {200: Page[Schedule]},
        scope=Scope.READ,
        group="schedules",
    ),
)
