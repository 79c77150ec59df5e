"""The page of a task, and the bytes of its reports."""

from collections.abc import AsyncIterator

from app.api.native import tasks
from app.api.problems import FORBIDDEN, Problem, not_found
from app.page.task.markup import task_page
from app.page.task.reading import read_task
from app.page.visit import Download, Drawn, PageRoute, Visit


async def task(visit: Visit) -> Drawn:
    """All that is known of it."""
    view = await read_task(visit, visit.values["task_id"])
    return Drawn(f"Task {view.task.ordinal:,} of {view.run.name}", task_page(visit, view))


async def report(visit: Visit) -> Download:
    """A delivery or the answer to a poll, byte for byte."""
    if visit.hides_prompts:
        raise Problem(FORBIDDEN, "prompts and answers are hidden on this page: ask the API")
    found = await visit.ask(tasks.get_task, task_id=visit.values["task_id"])
    known = await visit.read(lambda: visit.parts.store.disputes.task_with_attempts(found.id))
    for attempt in known.attempts if known else ():
        for stored in attempt.reports:
            if stored.id == visit.values["report_id"]:
                return Download(f"{stored.id}.json", "application/json", _whole(stored.body))
    raise not_found("report")


async def _whole(body: bytes) -> AsyncIterator[bytes]:
    yield body


ROUTES = (
    PageRoute("GET", "/tasks/{task_id}", task),
    PageRoute("GET", "/tasks/{task_id}/reports/{report_id}", report),
)
