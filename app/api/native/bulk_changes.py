"""/v1/bulk-changes: something done to all tasks, or runs, that match a filter. Tried out first, confirmed
with the figures that this gave, and carried out by the workers.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from app.api.fields import Credits, GivenCredits, Id, Time, Whole
from app.api.native.asker import asker_of
from app.api.native.tasks import Country, CustomId, Engine, TaskStateName, VerdictName
from app.api.pages import Page, PageParams, page_of, read_cursor
from app.api.problems import CONFLICT, FieldError, Problem, invalid, not_found
from app.api.route import Answer, Body, Call, Params, Route
from app.domain import bulk_change as domain
from app.domain.access import Scope
from app.domain.bulk_change import Verb
from app.domain.task_filter import FILTER_CHARS_MAX, FilterError, TaskFilter
from app.services import bulk_changes
from app.services.bulk_changes import NotConfirmed


class TaskFilterBody(Body):
    """Which tasks; what is left out may be anything."""

    state: TaskStateName | None = None
    engine: Engine | None = None
    country: Country | None = None
    verdict: VerdictName | None = None
    run_id: Id | None = None
    custom_id: Annotated[CustomId | None, Field(description="As its record named it.")] = None
    text: Annotated[
        CustomId | None, Field(description="Stands in its prompt, in capitals or not; only with `run_id`.")
    ] = None


class NewBulkChange(Body):
    """What is to be tried out."""

    verb: Annotated[
        Literal["retry", "cancel", "pause", "resume"],
        Field(
            description="`retry` and `cancel` are done to tasks; `pause` and `resume` to runs that have one."
        ),
    ]
    filter: TaskFilterBody = TaskFilterBody()
    even_if_held: Annotated[
        bool, Field(description="`retry`: also where the old attempt may still be charged.")
    ] = False


class ConfirmBody(Body):
    """The figures that were tried out, repeated."""

    matched: Annotated[Whole, Field(ge=0)]
    credits: GivenCredits
    filter: Annotated[str | None, Field(max_length=FILTER_CHARS_MAX, description="Refused unless equal.")] = (
        None
    )


class ChangedFigures(BaseModel):
    """Of what would be done, or is done so far."""

    matched: int = Field(description="Tasks that are sent again or cancelled; runs paused or resumed.")
    credits: Credits = Field(description="`retry`: what it may cost; `cancel`: what is not spent.")
    left_held: int = Field(
        description="Left alone. `retry`: may still be charged; `cancel`: with the provider, or may be."
    )
    left_answered: int = Field(description="Left alone by a retry: their answer came late, and is there.")
    held: Credits = Field(description="Held for those that are left alone, and stays so.")


class BulkChange(BaseModel):
    """Something that is done to all that match a filter."""

    id: Id
    verb: Literal["retry", "cancel", "pause", "resume"]
    filter: str = Field(description="In words, such as `state:failed engine:CHATGPT`.")
    even_if_held: bool
    account: str | None = Field(description="Of this one's runs only; null: of every account's.")
    actor: str = Field(description="Whose token tried it out.")
    state: Literal["proposed", "running", "finished", "stopped"]
    proposed: ChangedFigures = Field(description="As it was tried out; no more is done.")
    done: ChangedFigures
    created_at: Time
    lapses_at: Time | None = Field(description="When it can be confirmed no more; null: it was confirmed.")
    confirmed_at: Time | None
    finished_at: Time | None
    reason: str | None = Field(description="Why it ended before all that matches was changed.")


class BulkChangeParams(Params):
    """One of them."""

    change_id: Id


def bulk_change_model(change: domain.BulkChange) -> BulkChange:
    """A bulk change with its figures."""
    same = {name: getattr(change, name) for name in BulkChange.model_fields if hasattr(change, name)}
    is_open = change.state is domain.ChangeState.PROPOSED
    return BulkChange(
        **same
        | {
            "proposed": _figures(change.proposed),
            "done": _figures(change.done),
            "created_at": change.created_at_ms,
            "lapses_at": change.lapses_at_ms if is_open else None,
            "confirmed_at": change.confirmed_at_ms,
            "finished_at": change.finished_at_ms,
        }
    )


def _figures(figures: domain.Figures) -> ChangedFigures:
    return ChangedFigures(**{name: getattr(figures, name) for name in ChangedFigures.model_fields})


async def propose_bulk_change(call: Call[Params, NewBulkChange]) -> Answer:
    """Changes nothing."""
    asked, given = call.body, call.body.filter
    wanted = TaskFilter(
        given.state, given.engine, given.country, given.verdict, given.custom_id, given.run_id, given.text
    )
    try:
        change = await bulk_changes.propose(
            call.store,
            Verb(asked.verb),
            wanted,
            asker_of(call.caller, call.request_id),
            now_ms=call.parts.clock(),
            even_if_held=asked.even_if_held,
        )
    except FilterError as error:
        word = "run_id" if error.word == "run" else error.word
        raise invalid(f"filter.{word}", "unfit", f"{error}: {error.remedy}") from None
    return Answer(bulk_change_model(change), 201, {"Location": f"/v1/bulk-changes/{change.id}"})


async def confirm_bulk_change(call: Call[BulkChangeParams, ConfirmBody]) -> Answer:
    """By its figures."""
    change, body = await _visible(call), call.body
    try:
        begun = await bulk_changes.confirm(
            call.store,
            change,
            matched=body.matched,
            credits=body.credits,
            filter=body.filter,
            now_ms=call.parts.clock(),
        )
    except NotConfirmed as error:
        raise _conflict(error) from None
    return Answer(bulk_change_model(begun), 202)


async def stop_bulk_change(call: Call[BulkChangeParams, None]) -> BulkChange:
    """What was done stays."""
    change = await _visible(call)
    try:
        stopped = await bulk_changes.stop(call.store, change, now_ms=call.parts.clock())
    except NotConfirmed as error:
        raise _conflict(error) from None
    return bulk_change_model(stopped)


async def list_bulk_changes(call: Call[PageParams, None]) -> Page[BulkChange]:
    """Newest first."""
    asked = call.params
    place = read_cursor(asked.cursor, "bulk-changes", str)
    rows = await call.store.bulk_changes.changes_before(
        str(place[0]) if place else None, asked.limit + 1, call.caller.account
    )
    return page_of(rows, asked.limit, "bulk-changes", key=lambda row: [row.id], model=bulk_change_model)


async def get_bulk_change(call: Call[BulkChangeParams, None]) -> BulkChange:
    """How far it has come."""
    return bulk_change_model(await _visible(call))


async def _visible(call: Call[Any, Any]) -> domain.BulkChange:
    change = await call.store.bulk_changes.find(call.params.change_id, call.caller.account)
    if change is None:
        raise not_found("bulk change")
    return change


def _conflict(error: NotConfirmed) -> Problem:
    wrong = FieldError(code=error.code, remedy="look at it first: GET /v1/bulk-changes/{change_id}")
    return Problem(CONFLICT, str(error), errors=[wrong])


ROUTES = (
    Route(
        "POST",
        "/v1/bulk-changes",
        propose_bulk_change,
        "Try out what is done to all tasks, or runs, that match a filter",
        {201: BulkChange},
        scope=Scope.OPERATE,
        group="bulk changes",
        body=NewBulkChange,
        is_long=True,
        is_idempotent=False,
        problems=(404,),
        description="Changes nothing: it says how many match, what it costs, and what is left alone. Confirm "
        "it with these figures within an hour.",
        examples={"request": {"verb": "retry", "filter": {"state": "failed", "engine": "CHATGPT"}}},
    ),
    Route(
        "GET",
        "/v1/bulk-changes",
        list_bulk_changes,
        "List bulk changes, newest first",
        {200: Page[BulkChange]},
        scope=Scope.READ,
        group="bulk changes",
        params=PageParams,
    ),
    Route(
        "GET",
        "/v1/bulk-changes/{change_id}",
        get_bulk_change,
        "Show what a bulk change does, and how far it has come",
        {200: BulkChange},
        scope=Scope.READ,
        group="bulk changes",
        params=BulkChangeParams,
    ),
    Route(
        "POST",
        "/v1/bulk-changes/{change_id}/confirm",
        confirm_bulk_change,
        "Let a bulk change be carried out",
        {202: BulkChange},
        scope=Scope.OPERATE,
        group="bulk changes",
        params=BulkChangeParams,
        body=ConfirmBody,
        is_long=True,
        action="bulk_change.confirm",
        description="By the workers, in chunks, and never more than was confirmed. 409: other figures were "
        "tried out, or more matches by now. Confirmed again, it stays as it is.",
        examples={"request": {"matched": 1200, "credits": "6000"}},
    ),
    Route(
        "POST",
        "/v1/bulk-changes/{change_id}/stop",
        stop_bulk_change,
        "Do no more of a bulk change",
        {200: BulkChange},
        scope=Scope.OPERATE,
        group="bulk changes",
        params=BulkChangeParams,
        is_idempotent=False,
        action="bulk_change.stop",
        description="What was done stays. 409: it does not run.",
    ),
)
