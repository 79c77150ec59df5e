"""Tools that make runs: what one may cost, and one that may cost no more than was allowed."""

import json
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, Field

from app.api.fields import Credits, exact
from app.api.idempotency import HEADER, REPLAYED
from app.api.mcp.money import MaxCredits, refuse_above
from app.api.mcp.prompts import NewRunFields, priced
from app.api.mcp.tool import Tool
from app.api.native.new_run import NewRunBody, NewRunParams
from app.api.native.runs import Run, run_model
from app.api.native.submitting import create_run as post_run
from app.api.native.visible import visible_account, visible_run
from app.api.problems import Problem
from app.api.route import Answer, Call
from app.domain.access import Scope
from app.domain.time_format import iso_day
from app.run_options import NAME_CHARS_MAX
from app.services.credit_room import balance_and_room

KEY = r"^[A-Za-z0-9_.:\-]{1,64}$"


class EstimateParams(NewRunFields):
    """As create_run takes it."""


class CreateParams(NewRunFields):
    """A new run, and what it may cost."""

    max_credits: Annotated[
        MaxCredits,
        Field(description="Refused when the estimate is above; the run pauses before it costs more."),
    ]
    name: Annotated[
        str | None, Field(max_length=NAME_CHARS_MAX, description="New. Default: made from the time.")
    ] = None
    idempotency_key: Annotated[
        str | None,
        Field(
            pattern=KEY,
            description="Make one for each run that you mean. The same key again gives the same run, and "
            "buys nothing twice.",
        ),
    ] = None


class EngineEstimate(BaseModel):
    """Of one engine."""

    engine: str
    tasks: int
    credits: Credits


class Estimate(BaseModel):
    """What a run would be. Nothing is stored."""

    account: str
    tasks: int
    credits: Credits = Field(description="By our price list; extras in answers can add some.")
    by_engine: list[EngineEstimate]
    balance: Credits | None = Field(description="Of the account, as last reported; null: not known.")
    room: Credits | None = Field(description="Of it, besides all that is queued already.")
    is_covered: bool | None = Field(description="Whether room is enough; null: not known.")


class CreatedRun(BaseModel):
    """A run that is stored, and sent from now on."""

    run: Run
    tasks: int
    estimated: Credits
    max_credits: Credits
    is_replay: bool = Field(description="The key was known: this is the run of then, and nothing was bought.")
    next: str


async def estimate_run(call: Call[EstimateParams, None]) -> Estimate:
    """Stores nothing."""
    now_ms, account = call.parts.clock(), visible_account(call, call.params.account)
    asked = priced(call.params, iso_day(now_ms))
    balance, room = await balance_and_room(call.store, account, now_ms)
    return Estimate(
        account=account,
        tasks=asked.tasks,
        credits=asked.credits,
        by_engine=[
            EngineEstimate(engine=engine, tasks=tasks, credits=asked.credits_of[engine])
            for engine, tasks in sorted(asked.tasks_of.items())
        ],
        balance=None if balance is None else balance.remaining,
        room=room,
        is_covered=None if room is None else asked.credits <= room,
    )


async def create_run(call: Call[CreateParams, None]) -> CreatedRun:
    """As POST /v1/runs makes it, once its estimate was looked at."""
    asked = call.params
    estimate = priced(asked, iso_day(call.parts.clock()))
    refuse_above(asked.max_credits, estimate.credits)
    key = {} if asked.idempotency_key is None else {HEADER: asked.idempotency_key}
    made: Any = {"params": NewRunParams(), "body": _body(asked), "headers": key}
    posted: Call[Any, Any] = replace(call, **made)
    try:
        answer = await post_run(posted)
    except Problem as problem:
        raise _in_our_words(problem) from None
    run_id, stored = _stored(answer)
    call.subject = run_id
    timed = await visible_run(call, run_id)
    return CreatedRun(
        run=run_model(timed, await call.store.queries.progress(run_id)),
        tasks=stored["tasks"],
        estimated=stored["estimated"],
        max_credits=asked.max_credits,
        is_replay=answer.headers.items() >= REPLAYED.items(),
        next="watch_run follows it; run_report and get_results show what came of it",
    )


def _stored(answer: Answer) -> tuple[str, dict[str, Any]]:
    """The id, and the answer of now or of then."""
    stored: dict[str, Any]
    if answer.body is not None:
        stored = json.loads(answer.body)
    else:
        stored = answer.model.model_dump(mode="json") if answer.model else {}
    return stored["id"], stored


def _body(asked: CreateParams) -> NewRunBody:
    return NewRunBody(
        name=asked.name,
        account=asked.account,
        budget=exact(asked.max_credits),
        task_type=asked.engine,
        country=asked.country,
        priority=asked.priority,
        repeats=asked.repeats,
        strict=True,
        prompts=[p if isinstance(p, str) else p.record() for p in asked.prompts],
    )


_OURS = {HEADER: "idempotency_key", "task_type": "engine", "budget": "max_credits"}


def _in_our_words(problem: Problem) -> Problem:
    """With the fields' names here."""
    errors = [
        error.model_copy(update={"field": ".".join(_OURS.get(part, part) for part in error.field.split("."))})
        if error.field
        else error
        for error in problem.errors
    ]
    detail = problem.detail
    for theirs, ours in _OURS.items():
        detail = detail.replace(theirs, ours)
    return Problem(problem.kind, detail, errors=errors)


TOOLS = (
    Tool(
        "estimate_run",
        "Estimate a run",
        "Say how many tasks some prompts make, what they may cost, and whether the account covers it. Stores "
        "nothing. Takes the same prompts as create_run.",
        estimate_run,
        EstimateParams,
        Estimate,
    ),
    Tool(
        "create_run",
        "Start a run",
        "Send prompts to AI engines or search, and spend credits. Refused when the estimate is above "
        "max_credits, which also becomes the run's budget. One bad prompt refuses all. Then watch_run.",
        create_run,
        CreateParams,
        CreatedRun,
        scope=Scope.SUBMIT,
        action="run.create",
        is_idempotent=False,
    ),
)
