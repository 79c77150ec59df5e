"""What the page of a run reads: kept counts, a bounded sample, one page of tasks. Never a whole run."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.api.native import runs, tasks
from app.api.native.runs import Run, run_model
from app.api.native.tasks import Task
from app.api.pages import Page
from app.api.problems import not_found
from app.page.filters import Filter
from app.page.visit import Visit
from app.store.read.progress import RunProgress
from app.store.read.run_pages import TimedRun
from app.store.read.run_samples import RunSample
from app.store.read.waiting import Waiting
from app.views.waiting import waiting_lines
from app.views.workers import workers_document

TASKS_SHOWN = 50
SHORT_ID_CHARS = 8
COUNTED_MAX = 20_000
"""Open tasks that are counted by what they wait for; of more only the reasons are said."""


@dataclass(frozen=True, slots=True)
class RunHead:
    """What moves while one looks."""

    run: Run
    progress: RunProgress
    waits: Sequence[str]
    """Why it is not over, in sentences."""


@dataclass(frozen=True, slots=True)
class RunView:
    """All that the page draws."""

    head: RunHead
    sample: RunSample
    asked: Filter
    tasks: Page[Task] | None
    """None: what was asked for cannot be read."""


async def read_run(visit: Visit, run_id: str, asked: Filter) -> RunView:
    """Raises Problem for a run that this caller may not see."""
    head = await read_head(visit, run_id)
    sample = await visit.read(lambda: visit.parts.store.run_samples.sample(head.run.id))
    return RunView(head, sample, asked, await _tasks(visit, head.run.id, asked))


async def _tasks(visit: Visit, run_id: str, asked: Filter) -> Page[Task] | None:
    if asked.problem is not None:
        return None
    wanted = asked.wanted
    return await visit.ask(
        tasks.list_tasks,
        run_id=run_id,
        limit=TASKS_SHOWN,
        cursor=visit.values.get("cursor"),
        state=wanted.state,
        engine=wanted.task_type,
        country=wanted.country,
        verdict=wanted.verdict,
        custom_id=wanted.custom_id,
        text=wanted.text,
    )


async def read_head(visit: Visit, run_id: str) -> RunHead:
    """Raises Problem, as read_run."""
    timed = await visible_run(visit, run_id)

    async def read() -> RunHead:
        return await head_of(visit, timed)

    return await visit.read(read)


async def visible_run(visit: Visit, run_id: str) -> TimedRun:
    """Raises Problem for one that this caller may not see."""
    found = await visit.ask(runs.get_run, run_id=run_id)
    timed = await visit.read(lambda: visit.parts.store.run_pages.run_with_id(found.id, visit.caller.account))
    if timed is None:
        raise not_found("run")
    return timed


async def head_of(visit: Visit, timed: TimedRun) -> RunHead:
    """Of a run that was read already."""
    store = visit.parts.store
    progress = await store.queries.progress(timed.run.id)
    waiting = Waiting(visit.now_ms)
    if 0 < progress.open <= COUNTED_MAX:
        waiting = await store.waiting.waiting(timed.run.id)
    worker = await workers_document(store)
    waits = waiting_lines(timed.run, progress, waiting, worker, short_id=timed.run.id[-SHORT_ID_CHARS:])
    return RunHead(run_model(timed, progress), progress, waits)
