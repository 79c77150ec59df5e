"""POST /v1/runs/{run_id}/pause, resume, cancel and retry: what a run may do, by hand."""

import contextlib
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from app.api.fields import Credits, Id
from app.api.idempotency import once
from app.api.native.runs import Run, RunParams, run_model
from app.api.native.visible import visible_run
from app.api.problems import CONFLICT, FieldError, Problem
from app.api.route import Body, Call, Route
from app.domain.access import Scope
from app.domain.task import RunState, TaskState
from app.services import control
from app.services.control import NotAllowed
from app.services.retry import Retried, retry_run
from app.store.read.runs import RunRow

RetryableState = Literal["failed", "expired", "rejected"]
STATES: tuple[RetryableState, ...] = ("expired", "failed", "rejected")


class ResumeBody(Body):
    """How a run is resumed; no body: as it is."""

    restored: Annotated[
        bool, Field(description="The database is a restored backup: a key that the provider knows is ours.")
    ] = False


class RetryBody(Body):
    """Which tasks are retried; no body: all that can be, at no double cost."""

    states: Annotated[
        tuple[RetryableState, ...], Field(min_length=1, description="In which they are now.")
    ] = STATES
    even_if_held: Annotated[
        bool, Field(description="Also where the old attempt may still be charged: it may be paid for twice.")
    ] = False


class RetryParams(RunParams):
    """One run."""

    dry_run: Annotated[bool, Field(description="Count what would be sent again, and change nothing.")] = False


class RetriedTasks(BaseModel):
    """Tasks that are sent again under new keys, or would be."""

    id: Id
    retried: int
    estimated: Credits = Field(description="What they may cost, by our price list.")
    left_held: int = Field(description="Left alone: the old attempt may still be charged.")
    left_answered: int = Field(description="Left alone: their answer came late, and is there.")


async def pause_run(call: Call[RunParams, None]) -> Run:
    """What is on its way, or with the provider, goes on."""
    run = await _visible(call)
    with _said_as_problem():
        await once(call, lambda: control.pause(call.store, run))
    return await _run(call)


async def resume_run(call: Call[RunParams, ResumeBody | None]) -> Run:
    """A paused or stopped one."""
    run = await _visible(call)
    restored = call.body is not None and call.body.restored
    with _said_as_problem():
        await once(call, lambda: control.resume(call.store, run, restored=restored))
    call.parts.wakes.soon()
    return await _run(call)


async def cancel_run(call: Call[RunParams, None]) -> Run:
    """What the provider has goes on, and is settled and charged."""
    run = await _visible(call)
    with _said_as_problem():
        await once(call, lambda: control.cancel(call.store, run))
    await control.cancel_rest(call.store, run.id)
    return await _run(call)


async def retry_tasks(call: Call[RetryParams, RetryBody | None]) -> RetriedTasks:
    """Each under a new key."""
    asked, run = call.body or RetryBody(), await _visible(call)
    if run.state in (RunState.LOADING, RunState.CANCELLED):
        raise _conflict("not_retryable", f"is {run.state}")
    is_dry_run = call.params.dry_run
    found = await retry_run(
        call.store,
        run.id,
        [TaskState(state) for state in asked.states],
        clock=call.parts.clock,
        even_if_held=asked.even_if_held,
        is_dry_run=is_dry_run,
        done=_done(call),
        noted=_Noted(call),
    )
    if found.tasks and not is_dry_run:
        call.parts.wakes.soon()
    return RetriedTasks(
        id=run.id,
        retried=found.tasks,
        estimated=found.estimate,
        left_held=found.held,
        left_answered=found.answered,
    )


class _Noted:
    """Keeps with each transaction how far a retry has come, for whoever goes on with it under its key."""

    def __init__(self, call: Call[RetryParams, RetryBody | None]) -> None:
        self._key = None if call.params.dry_run else call.key

    def __call__(self, so_far: Retried) -> AbstractContextManager[None]:
        if self._key is None:
            return nullcontext()
        done: AbstractContextManager[None] = self._key.note(
            lambda chunk: {"progress": _written(so_far.with_chunk(chunk))}
        )
        return done


def _written(done: Retried) -> str:
    return json.dumps([done.tasks, str(done.estimate), done.held, done.answered, done.last])


def _done(call: Call[Any, Any]) -> Retried | None:
    """By a request with the same key, whose process died."""
    if call.key is None or call.key.row.progress is None:
        return None
    tasks, estimate, held, answered, last = json.loads(call.key.row.progress)
    return Retried(tasks, Decimal(estimate), held, answered, last)


async def _visible(call: Call[Any, Any]) -> RunRow:
    return (await visible_run(call, call.params.run_id)).run


async def _run(call: Call[Any, Any]) -> Run:
    timed = await visible_run(call, call.params.run_id)
    return run_model(timed, await call.store.queries.progress(timed.run.id))


@contextlib.contextmanager
def _said_as_problem() -> Iterator[None]:
    try:
        yield
    except NotAllowed as error:
        raise _conflict(error.code, str(error)) from None


def _conflict(code: str, what: str) -> Problem:
    error = FieldError(code=code, remedy="look at its state first: GET /v1/runs/{run_id}")
    return Problem(CONFLICT, f"the run {what}", errors=[error])


def _route(verb: str, handler: Any, summary: str, answer: type[BaseModel] = Run, **more: Any) -> Route:
    return Route(
        "POST",
        f"/v1/runs/{{run_id}}/{verb}",
        handler,
        summary,
        {200: answer},
        **{
            "scope": Scope.OPERATE,
            "params": RunParams,
            "is_idempotent": False,
            "action": f"run.{verb}",
            "is_long": True,
            **more,
        },
    )


ROUTES = (
    _route(
        "pause",
        pause_run,
        "Send nothing more of a run until it is resumed",
        description="What is on its way, or with the provider, goes on. 409: it is not running.",
    ),
    _route(
        "resume",
        resume_run,
        "Let a paused or stopped run go on",
        body=ResumeBody,
        body_is_optional=True,
        description="Remove the cause first. 409: it is neither paused nor stopped.",
    ),
    _route(
        "cancel",
        cancel_run,
        "Never send what a run has not sent yet",
        description="What the provider has taken goes on, and is settled and charged. It cannot be undone.",
    ),
    _route(
        "retry",
        retry_tasks,
        "Send failed, expired and rejected tasks again",
        RetriedTasks,
        params=RetryParams,
        body=RetryBody,
        body_is_optional=True,
        description=(
            "Each under a new key. A task whose old attempt may still be charged is left alone, as is one "
            "whose answer came after all. `?dry_run=1` counts them."
        ),
    ),
)
