"""What the page of a run reads: kept counts, a bounded sample, one page of tasks. Never a whole run."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from markupsafe import Markup

from app.api.native import tasks
from app.api.native.runs import Run
from app.api.native.tasks import Task
from app.api.pages import Page
from app.api.problems import not_found
from app.domain.run_reason import ReasonCode
from app.page.filters import Filter
from app.page.live import RunNow, Topic, live_of
from app.page.run.voided import voided_of
from app.page.visit import Visit
from app.store.read import run_samples
from app.store.read.progress import RunProgress
from app.store.read.run_pages import TimedRun
from app.store.read.run_samples import RunSample
from app.views.runs import Document
from app.views.waiting import REMEDIES, waiting_lines

TASKS_SHOWN = 50
PROMPT_CHARS = 200
"""Of a prompt in the list; its own page has all of it."""
SAMPLES = "page run samples"
SAMPLES_MAX = 8
"""Of this process, those that were looked at last: 1 MB each, and 30 KB as they are drawn."""
SHORT_ID_CHARS = 8
REMEDIES_HERE = {
    **REMEDIES,
    ReasonCode.BAD_KEY: "the API key must be set right and the worker started again; then Resume",
    ReasonCode.BY_HAND: "Resume lets it go on",
    ReasonCode.BUDGET: "what is left would cost more than its budget; Cancel gives it up",
}
"""What to do about a reason, by the buttons of the page where there are any."""


@dataclass(frozen=True, slots=True)
class RunHead:
    """What moves while one looks."""

    run: Run
    progress: RunProgress
    waits: Sequence[str]
    """Why it is not over, in sentences."""


@dataclass(slots=True)
class KeptSample:
    """A sample, and what was drawn of it: the same, as long as nothing of its run changes."""

    sample: RunSample
    drawn: dict[Decimal | None, Markup] = field(default_factory=dict)
    """By what the ledger of its run gave back, which may be known later only."""


@dataclass(frozen=True, slots=True)
class RunView:
    """All that the page draws."""

    head: RunHead
    kept: KeptSample
    asked: Filter
    voided: Decimal | None
    """Credits that its ledger gave back; None: it goes on, or is being added up."""
    tasks: Page[Task] | None
    """None: what was asked for cannot be read."""
    prompts: Mapping[str, str] | None
    """Task -> the beginning of what it asks for; None: that is hidden here."""


async def read_run(visit: Visit, run_id: str, asked: Filter) -> RunView:
    """Raises Problem for a run that this caller may not see."""
    head = await read_head(visit, run_id)
    (kept, found), voided = await asyncio.gather(_drawn_of(visit, head, asked), _voided(visit, head))
    if kept.sample.voided is not None:
        voided = kept.sample.voided
    return RunView(head, kept, asked, voided, found, await _prompts(visit, found))


async def _drawn_of(visit: Visit, head: RunHead, asked: Filter) -> tuple[KeptSample, Page[Task] | None]:
    return await _sample(visit, head), await _tasks(visit, head.run.id, asked)


async def _voided(visit: Visit, head: RunHead) -> Decimal | None:
    """Of a long run; a short one's sample says it."""
    if head.progress.tasks <= run_samples.SAMPLED:
        return None
    return await voided_of(visit, head.run.id, head.progress)


async def _sample(visit: Visit, head: RunHead) -> KeptSample:
    """As it was read before, while nothing of the run has changed."""
    kept: dict[tuple[str, str | None], KeptSample] = visit.parts.shared.setdefault(SAMPLES, {})
    key = head.run.id, head.progress.version
    found = kept.pop(key, None)
    if found is None:
        found = KeptSample(await visit.read(lambda: visit.parts.store.run_samples.sample(head.run.id)))
        while len(kept) >= SAMPLES_MAX:
            kept.pop(next(iter(kept)), None)
    if head.progress.version is not None:
        kept[key] = found
    return found


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


async def _prompts(visit: Visit, found: Page[Task] | None) -> Mapping[str, str] | None:
    if visit.hides_prompts:
        return None
    ids = [task.id for task in found.data] if found else []
    return await visit.read(lambda: visit.parts.store.task_pages.asked(ids, PROMPT_CHARS)) if ids else {}


async def read_head(visit: Visit, run_id: str) -> RunHead:
    """Raises Problem, as read_run."""
    timed = await visible_run(visit, run_id)
    topic = Topic(visit.caller.account, timed.run.id)
    seen = await visit.read(lambda: live_of(visit.parts).look_once(topic))
    return head_of(seen.runs[timed.run.id], seen.worker)


async def visible_run(visit: Visit, run_id: str) -> TimedRun:
    """Raises Problem for one that this caller may not see."""
    timed = await visit.read(lambda: visit.parts.store.run_pages.run_with_id(run_id, visit.caller.account))
    if timed is None:
        raise not_found("run")
    return timed


def head_of(now: RunNow, worker: Document) -> RunHead:
    """Of a run as a look saw it."""
    row = now.timed.run
    short_id = row.id[-SHORT_ID_CHARS:]
    waits = waiting_lines(row, now.progress, now.waiting, worker, short_id=short_id, remedies=REMEDIES_HERE)
    return RunHead(now.model, now.progress, waits)
