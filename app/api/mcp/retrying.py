"""The tool that sends failed tasks again: tried out, unless an agent says otherwise."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from app.api.fields import Credits, Id
from app.api.mcp.money import MaxCredits, refuse_above
from app.api.mcp.tool import Tool
from app.api.native.runs import Run, RunParams, run_model
from app.api.native.visible import visible_run
from app.api.problems import CONFLICT, Problem, invalid
from app.api.route import Call
from app.domain.access import Scope
from app.domain.task import TaskState
from app.services.retry import Retried, retry_run

_State = Literal["failed", "expired", "rejected"]


class RetryParams(RunParams):
    """Which tasks, and whether it is meant."""

    states: Annotated[
        tuple[_State, ...], Field(min_length=1, max_length=3, description="Tasks in these states.")
    ] = ("failed", "expired", "rejected")
    dry_run: Annotated[bool, Field(description="Say what would be sent again, and send nothing.")] = True
    max_credits: Annotated[
        MaxCredits | None, Field(description="Needed without dry_run: refused when it may cost more.")
    ] = None


class RetriedRun(BaseModel):
    """What is sent again, or would be."""

    run_id: Id
    dry_run: bool
    tasks: int = Field(description="Sent again, each under a new key.")
    estimated: Credits = Field(description="What these may cost.")
    left_held: int = Field(description="Left alone: the old attempt may still be charged.")
    left_answered: int = Field(description="Left alone: the answer came late, but it came.")
    run: Run
    next: str


async def retry_failed(call: Call[RetryParams, None]) -> RetriedRun:
    """Tasks whose old attempt may still be charged are left alone, so nothing is paid twice."""
    asked = call.params
    run = (await visible_run(call, asked.run_id)).run
    if run.state in ("loading", "cancelled"):
        raise Problem(CONFLICT, f"the run is {run.state}: nothing of it can be sent again")
    found = await _retried(call, is_dry_run=True)
    if not asked.dry_run:
        if asked.max_credits is None:
            raise invalid("max_credits", "missing", "add it, it is needed without dry_run")
        refuse_above(asked.max_credits, found.estimate)
        call.subject = run.id
        found = await _retried(call, is_dry_run=False)
        call.parts.wakes.soon()
    timed = await visible_run(call, run.id)
    following = "watch_run follows it"
    if asked.dry_run:
        following = "call it with dry_run false and max_credits to send them" if found.tasks else "nothing"
    return RetriedRun(
        run_id=run.id,
        dry_run=asked.dry_run,
        tasks=found.tasks,
        estimated=found.estimate,
        left_held=found.held,
        left_answered=found.answered,
        run=run_model(timed, await call.store.queries.progress(run.id)),
        next=following,
    )


async def _retried(call: Call[RetryParams, None], *, is_dry_run: bool) -> Retried:
    states = [TaskState(name) for name in call.params.states]
    run_id, clock = call.params.run_id, call.parts.clock
    return await retry_run(call.store, run_id, states, clock=clock, is_dry_run=is_dry_run)


TOOLS = (
    Tool(
        "retry_failed",
        "Send failed tasks again",
        "Send failed, expired and rejected tasks of a run again. A dry run by default: it says how many and "
        "what they may cost. Sends only with dry_run false and max_credits. Tasks whose old attempt may "
        "still be charged are left alone.",
        retry_failed,
        RetryParams,
        RetriedRun,
        scope=Scope.OPERATE,
        action="run.retry",
        is_idempotent=False,
    ),
)
