"""Pausing, resuming and cancelling a run, retrying and cancelling a task. What cannot be undone, or costs
something, is asked about first.
"""

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

from app.api.native import control, runs, task_control, tasks
from app.api.native.task_control import RetryTaskBody
from app.domain.access import Scope
from app.domain.task import TaskState
from app.page.control.markup import cancel_run_page, cancel_task_page, retry_task_page
from app.page.visit import Drawn, GoTo, PageRoute, Result, Visit

EVEN_IF_HELD = "even_if_held"
Handler = Callable[[Visit], Awaitable[Result]]


def _to_run(handler: Callable[[Any], Awaitable[Any]]) -> Handler:
    async def act(visit: Visit) -> GoTo:
        run_id = visit.values["run_id"]
        await visit.ask(handler, run_id=run_id)
        return GoTo(f"/runs/{run_id}")

    return act


async def ask_cancel_run(visit: Visit) -> Drawn:
    """What would be cancelled, and what goes on."""
    run = await visit.ask(runs.get_run, run_id=visit.values["run_id"])
    progress = await visit.read(lambda: visit.parts.store.queries.progress(run.id))
    pending = [c.estimate for c in progress.cells if c.is_current and c.state == TaskState.PENDING]
    return Drawn(f"Cancel {run.name}?", cancel_run_page(visit, run, sum(pending, Decimal(0))))


async def ask_retry_task(visit: Visit) -> Drawn:
    """What it may cost."""
    task = await visit.ask(tasks.get_task, task_id=visit.values["task_id"])
    return Drawn(f"Retry task {task.ordinal:,}?", retry_task_page(visit, task))


async def ask_cancel_task(visit: Visit) -> Drawn:
    """That it cannot be undone."""
    task = await visit.ask(tasks.get_task, task_id=visit.values["task_id"])
    return Drawn(f"Cancel task {task.ordinal:,}?", cancel_task_page(visit, task))


async def retry_task(visit: Visit) -> GoTo:
    """Under a new key."""
    task_id = visit.values["task_id"]
    body = RetryTaskBody(even_if_held=visit.values.get(EVEN_IF_HELD) == "1")
    await visit.tell(task_control.retry_task, body, task_id=task_id)
    return GoTo(f"/tasks/{task_id}")


async def cancel_task(visit: Visit) -> GoTo:
    """One that was never sent."""
    task_id = visit.values["task_id"]
    await visit.ask(task_control.cancel_task, task_id=task_id)
    return GoTo(f"/tasks/{task_id}")


def _operate(method: str, path: str, handler: Handler, *query: str) -> PageRoute:
    return PageRoute(method, path, handler, Scope.OPERATE, query)


ROUTES = (
    _operate("POST", "/runs/{run_id}/pause", _to_run(control.pause_run)),
    _operate("POST", "/runs/{run_id}/resume", _to_run(control.resume_run)),
    _operate("GET", "/runs/{run_id}/cancel", ask_cancel_run),
    _operate("POST", "/runs/{run_id}/cancel", _to_run(control.cancel_run)),
    _operate("GET", "/tasks/{task_id}/retry", ask_retry_task),
    _operate("POST", "/tasks/{task_id}/retry", retry_task, EVEN_IF_HELD),
    _operate("GET", "/tasks/{task_id}/cancel", ask_cancel_task),
    _operate("POST", "/tasks/{task_id}/cancel", cancel_task),
)
