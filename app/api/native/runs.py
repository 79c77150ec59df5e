"""/v1/runs: the list of runs, and one of them."""

from typing import Literal

from pydantic import BaseModel, Field

from app.api.fields import Credits, Id, Time
from app.api.native.visible import visible_run
from app.api.pages import Page, PageParams, page_of, read_cursor
from app.api.route import Call, Params, Route
from app.domain.access import Scope
from app.domain.task import RunState, TaskState
from app.store.read.progress import RunProgress
from app.store.read.run_pages import TimedRun
from app.views.runs import state_of

RunStateName = Literal["loading", "running", "paused", "stopped", "finished", "cancelled"]


class RunCounts(BaseModel):
    """Tasks by the state that each is in now."""

    total: int
    pending: int
    submitting: int
    submitted: int
    completed: int
    failed: int
    rejected: int
    expired: int
    cancelled: int


class RunCredits(BaseModel):
    """Over all attempts, also those that a retry replaced."""

    estimated: Credits
    held: Credits
    charged: Credits


class Run(BaseModel):
    """A run as it stands."""

    id: Id
    name: str
    source: str = Field(description="The file that it was read from.")
    account: str = Field(description="Whose credits it spends.")
    state: RunStateName
    reason: str | None = Field(description="Why it is paused or stopped, or waits; for people.")
    reason_code: str | None = Field(description="The same for programs.")
    budget: Credits | None = Field(description="It pauses before it costs more; null: no limit.")
    counts: RunCounts
    credits: RunCredits
    created_at: Time
    started_at: Time | None = Field(description="When it was read to its end and began to send.")
    paused_at: Time | None = Field(description="When it was last paused.")
    stopped_at: Time | None = Field(description="When it was last stopped.")
    cancelled_at: Time | None
    finished_at: Time | None = Field(description="When the last of its tasks was closed.")


class RunParams(Params):
    """One run."""

    run_id: Id


def run_model(timed: TimedRun, progress: RunProgress) -> Run:
    """A run with its figures."""
    row, times = timed.run, timed.times
    states = {state.value: progress.states.get(state, 0) for state in TaskState}
    return Run(
        id=row.id,
        name=row.name,
        source=row.source,
        account=row.account,
        state=RunState(state_of(row, progress)).value,
        reason=row.reason,
        reason_code=row.reason_code,
        budget=row.budget,
        counts=RunCounts(total=progress.tasks, **states),
        credits=RunCredits(estimated=progress.estimate, held=progress.held, charged=progress.charged),
        created_at=row.created_at_ms,
        started_at=times.started_at_ms,
        paused_at=times.paused_at_ms,
        stopped_at=times.stopped_at_ms,
        cancelled_at=times.cancelled_at_ms,
        finished_at=row.finished_at_ms,
    )


async def list_runs(call: Call[PageParams, None]) -> Page[Run]:
    """Newest first."""
    asked, store = call.params, call.store
    place = read_cursor(asked.cursor, "runs", str)
    before = str(place[0]) if place else None
    rows = await store.run_pages.runs_before(before, asked.limit + 1, call.caller.account)
    progress = await store.queries.progress_of_runs([row.run.id for row in rows[: asked.limit]])
    return page_of(
        rows,
        asked.limit,
        "runs",
        key=lambda row: [row.run.id],
        model=lambda row: run_model(row, progress[row.run.id]),
    )


async def get_run(call: Call[RunParams, None]) -> Run:
    """One run, where its tasks stand, and its credits so far."""
    timed = await visible_run(call, call.params.run_id)
    return run_model(timed, await call.store.queries.progress(timed.run.id))


ROUTES = (
    Route(
        "GET",
        "/v1/runs",
        list_runs,
        "List runs, newest first",
        {200: Page[Run]},
        scope=Scope.READ,
        params=PageParams,
    ),
    Route(
        "GET",
        "/v1/runs/{run_id}",
        get_run,
        "Show where a run stands, and its credits",
        {200: Run},
        scope=Scope.READ,
        params=RunParams,
        description="Cheap to ask again with If-None-Match: 304 while nothing of it moved.",
    ),
)
