"""Tools that read runs: which there are, how one goes on, what it came to."""

import time
from typing import Annotated

from pydantic import BaseModel, Field

from app.api.fields import Id
from app.api.mcp.tool import Tool, with_params
from app.api.native.accounts import AccountParams, get_forecast
from app.api.native.books import BooksParams, Finding, list_findings
from app.api.native.evidence import get_report
from app.api.native.forecast_model import AccountForecast
from app.api.native.report_model import RunReport
from app.api.native.runs import Run, RunParams, list_runs, run_model
from app.api.native.visible import visible_run
from app.api.pages import CURSOR_CHARS_MAX, Page, PageParams
from app.api.route import Call, Params
from app.store.read.progress import RunProgress
from app.store.read.run_pages import TimedRun
from app.views.runs import is_finished, is_halted
from app.views.waiting import waiting_lines
from app.views.workers import workers_document
from app.waiting import set_within

LOOK_EVERY_S = 0.5
WAIT_MAX_S = 25
"""Below the time that clients and proxies give a call."""
SHORT_ID_CHARS = 8
Cursor = Annotated[
    str | None, Field(max_length=CURSOR_CHARS_MAX, description="next_cursor of the page before.")
]


class RunsParams(Params):
    """A page of runs."""

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    cursor: Cursor = None


class WatchParams(RunParams):
    """Which run, and for how long."""

    wait_s: Annotated[float, Field(ge=0, le=WAIT_MAX_S, description="Seconds to wait for its end.")] = 20.0


class FindingsParams(Params):
    """A page of findings."""

    run_id: Annotated[Id | None, Field(description="Of one run only.")] = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Cursor = None


class WatchedRun(BaseModel):
    """A run as it stands after the waiting."""

    run: Run
    is_finished: bool = Field(description="Nothing of it is sent or awaited any more.")
    is_halted: bool = Field(description="Paused or stopped: it goes on only when a person resumes it.")
    waits_for: list[str] = Field(description="Why it is not over, in sentences.")
    next: str = Field(description="What to do now.")


async def tool_list_runs(call: Call[RunsParams, None]) -> BaseModel:
    """Newest first."""
    asked = call.params
    return await list_runs(with_params(call, PageParams(limit=asked.limit, cursor=asked.cursor)))  # type: ignore[arg-type]


async def watch_run(call: Call[WatchParams, None]) -> WatchedRun:
    """Returns at its end, after the time, or when nobody waits any more."""
    ends_s = time.monotonic() + call.params.wait_s
    while True:
        timed = await visible_run(call, call.params.run_id)
        progress = await call.store.queries.progress(timed.run.id)
        is_over = is_finished(timed.run, progress) or is_halted(timed.run, progress)
        left_s = ends_s - time.monotonic()
        stopping = call.parts.stopping
        if is_over or left_s <= 0 or stopping.is_set() or call.is_gone():
            return await _watched(call, timed, progress)
        await set_within(stopping, min(LOOK_EVERY_S, left_s))


async def _watched(call: Call[WatchParams, None], timed: TimedRun, progress: RunProgress) -> WatchedRun:
    run = timed.run
    waiting, worker = await call.store.waiting.waiting(run.id), await workers_document(call.store)
    is_over, halted = is_finished(run, progress), is_halted(run, progress)
    following = "call watch_run again"
    if is_over:
        following = "run_report says what its credits bought, get_results lists its tasks"
    elif halted:
        following = "tell a person what waits_for says"
    return WatchedRun(
        run=run_model(timed, progress),
        is_finished=is_over,
        is_halted=halted,
        waits_for=waiting_lines(run, progress, waiting, worker, short_id=run.id[-SHORT_ID_CHARS:]),
        next=following,
    )


async def tool_list_findings(call: Call[FindingsParams, None]) -> BaseModel:
    """Oldest first."""
    return await list_findings(with_params(call, BooksParams(**call.params.model_dump())))  # type: ignore[arg-type]


TOOLS = (
    Tool(
        "list_runs",
        "List runs",
        "List runs, newest first, each with its state, counts of tasks and credits.",
        tool_list_runs,
        RunsParams,
        Page[Run],
    ),
    Tool(
        "watch_run",
        "Wait for a run",
        "Wait until a run is finished or halted, at most wait_s seconds, and show where it stands. Call it "
        "again until is_finished. Tasks take seconds to minutes each.",
        watch_run,
        WatchParams,
        WatchedRun,
        waits=True,
    ),
    Tool(
        "run_report",
        "Report on a run",
        "Show what the credits of a run bought: ends, verdicts on charges, credits by engine, country and "
        "day, and the first findings.",
        get_report,
        RunParams,
        RunReport,
        is_long=True,
    ),
    Tool(
        "list_findings",
        "List findings",
        "List charges and reports that need explaining, such as an overcharge or a charge for a failure, "
        "with their figures. explain_charge has all about one task.",
        tool_list_findings,
        FindingsParams,
        Page[Finding],
    ),
    Tool(
        "forecast",
        "Look ahead",
        "Show when the credits of an account run out and when its runs end, as ranges, with warnings.",
        get_forecast,
        AccountParams,
        AccountForecast,
        is_long=True,
    ),
)
