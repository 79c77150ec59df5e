"""The buttons of a run and of a task: only what its state and the token allow."""

from htpy import Element, Node, a, button, div, input

from app.api.native.runs import Run
from app.api.native.tasks import Task
from app.domain.access import Scope
from app.domain.task import OPEN_STATES, RETRYABLE_STATES, RunState, TaskState
from app.page.parts.form import form_of
from app.page.visit import Visit

_RETRYABLE = tuple(sorted(RETRYABLE_STATES))


def run_buttons(visit: Visit, run: Run) -> Node:
    """Empty for who may only look, and where nothing can be done."""
    if not visit.may(Scope.OPERATE):
        return None
    state, counts = RunState(run.state), run.counts
    path, shown = f"/runs/{run.id}", list[Node]()
    if state is RunState.RUNNING:
        shown.append(form_of(visit, f"{path}/pause")[button(type="submit")["Pause"]])
    if state in (RunState.PAUSED, RunState.STOPPED):
        shown.append(form_of(visit, f"{path}/resume")[button(type="submit")["Resume"]])
    if any(getattr(counts, name) for name in _RETRYABLE) and state is not RunState.CANCELLED:
        shown.append(_try_out(visit, "retry", f"run:{run.id}", "Retry what failed…"))
    if state in (RunState.LOADING, RunState.RUNNING, RunState.PAUSED, RunState.STOPPED):
        shown.append(a(".button", href=f"{path}/cancel")["Cancel…"])
    return div(".actions")[shown] if shown else None


def task_buttons(visit: Visit, task: Task) -> Node:
    """The same of a task."""
    if not visit.may(Scope.OPERATE):
        return None
    state = TaskState(task.state)
    if state in RETRYABLE_STATES:
        return div(".actions")[a(".button", href=f"/tasks/{task.id}/retry")["Retry…"]]
    if state in OPEN_STATES:
        return div(".actions")[a(".button", href=f"/tasks/{task.id}/cancel")["Cancel…"]]
    return None


def _try_out(visit: Visit, verb: str, filter: str, label: str) -> Element:
    return form_of(visit, "/bulk")[
        input(type="hidden", name="verb", value=verb),
        input(type="hidden", name="q", value=filter),
        button(type="submit")[label],
    ]
