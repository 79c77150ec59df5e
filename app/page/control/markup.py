"""What is asked before something that cannot be undone, or costs something."""

from decimal import Decimal

from htpy import Element, Node, a, button, div, input, label, p

from app.api.native.runs import Run
from app.api.native.tasks import Task
from app.domain.text import agreeing, counted
from app.page.parts.facts import Fact, cards
from app.page.parts.form import form_of
from app.page.parts.words import count, credits, id_of
from app.page.visit import Visit


def cancel_run_page(visit: Visit, run: Run, unspent: Decimal) -> Node:
    """How many are never sent, what is not spent on them, and how many go on."""
    out = run.counts.submitting + run.counts.submitted
    goes = agreeing(out, "It goes on, and is settled and charged as it ends", "They go on, and are settled")
    return [
        p(".lead")["What was not sent yet is never sent. This cannot be undone."],
        cards(
            [
                Fact("Never sent", count(run.counts.pending), "tasks"),
                Fact("Not spent", credits(unspent), "credits, by our price list"),
                Fact("With the provider, or on the way", count(out), goes if out else None),
                Fact("Credits held", credits(run.credits.held), "until these have ended" if out else None),
            ]
        ),
        _ask(
            visit,
            f"/runs/{run.id}/cancel",
            f"Cancel {counted(run.counts.pending, 'task')}",
            f"/runs/{run.id}",
            "Keep the run as it is",
        ),
    ]


def retry_task_page(visit: Visit, task: Task) -> Node:
    """What it may cost, and that an old attempt may be charged too."""
    is_open = task.credits.charged is None and (task.credits.held is not None or task.state == "expired")
    choice = None
    if is_open:
        choice = p[
            label(".check")[
                input(type="checkbox", name="even_if_held", value="1"),
                " Also if the last attempt may still be charged: the task may be paid for twice",
            ]
        ]
    return [
        p(".lead")["The task is sent again, as its next attempt, under a new key."],
        cards(
            [
                Fact("May cost", credits(task.credits.estimated), "by our price list"),
                Fact("Attempt", count(task.attempt + 1)),
                Fact("Task", id_of(task.id), task.engine),
            ]
        ),
        _ask(
            visit,
            f"/tasks/{task.id}/retry",
            "Retry this task",
            f"/tasks/{task.id}",
            "Leave it",
            choice,
            ".main",
        ),
    ]


def cancel_task_page(visit: Visit, task: Task) -> Node:
    """That it cannot be undone."""
    return [
        p(".lead")["If the task was not sent yet, it is never sent. This cannot be undone."],
        p["What the provider has, or may have, cannot be taken back: then nothing is changed."],
        _ask(visit, f"/tasks/{task.id}/cancel", "Cancel this task", f"/tasks/{task.id}", "Leave it"),
    ]


def _ask(
    visit: Visit, path: str, yes: str, back: str, no: str, choice: Node = None, tone: str = ".loud"
) -> Element:
    return form_of(visit, path)[
        choice, div(".actions")[button(tone, type="submit")[yes], a(".button", href=back)[no]]
    ]
