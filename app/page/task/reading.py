"""All that is known of one task, read by the keys of its rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.api.mcp.results import TaskAnswer, get_result
from app.api.native import runs, tasks
from app.api.native.runs import Run
from app.api.native.tasks import TaskDetail
from app.domain.evidence.records import DisputedAttempt
from app.page.visit import Visit
from app.store.read.task_relay import TaskMessage

ANSWER_CHARS = 100_000
"""Of its text, and of its JSON: most have some 18 KB, those of searches more."""


@dataclass(frozen=True, slots=True)
class TaskView:
    """What the page of a task draws."""

    task: TaskDetail
    run: Run
    attempts: Sequence[DisputedAttempt]
    """With the bytes of their reports."""
    answer: TaskAnswer | None
    """None: there is none to show, or answers are hidden here."""
    messages: Sequence[TaskMessage]
    """Where its results are pushed to, and what became of that."""


async def read_task(visit: Visit, task_id: str) -> TaskView:
    """Raises Problem for a task that this caller may not see."""
    store = visit.parts.store
    task, attempts = await visit.read(lambda: tasks.whole_task(store, task_id, visit.caller.account))
    run = await visit.ask(runs.get_run, run_id=task.run_id)
    messages = await visit.read(lambda: store.task_relay.messages_of_task(task.id))
    answer = None
    if not visit.hides_prompts and task.settled_at is not None:
        answer = await visit.ask(get_result, task_id=task.id, max_chars=ANSWER_CHARS)
    return TaskView(task, run, attempts, answer, messages)
