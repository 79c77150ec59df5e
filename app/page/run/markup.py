"""The page of a run, drawn."""

import dataclasses
from collections.abc import Mapping
from decimal import Decimal

from htpy import Element, Node, a, div, fragment, h2, li, p, section, span, ul
from markupsafe import Markup

from app.api.native.tasks import Task
from app.charts.figures import figure, share
from app.charts.states import STATE_COLOURS
from app.domain.access import Scope
from app.domain.task import OPEN_STATES
from app.domain.task_filter import filter_text
from app.domain.text import counted
from app.domain.verdicts import QUIET_VERDICTS
from app.page.control.forms import run_buttons
from app.page.filters import QUERY, Filter, filter_bar
from app.page.live import listener
from app.page.parts.badge import badge
from app.page.parts.bar import bar
from app.page.parts.download import in_each_format
from app.page.parts.drawn import drawn
from app.page.parts.facts import Fact, cards
from app.page.parts.notice import empty, notice
from app.page.parts.table import Column, address, pager, table
from app.page.parts.times import at, took
from app.page.parts.words import clipped, code_of, credits, nothing, of, others
from app.page.run.charts import bought, speed, without_answer
from app.page.run.reading import RunHead, RunView
from app.page.visit import Visit

LIVE = "run-live"
"""Where what moves stands."""


def run_page(visit: Visit, view: RunView) -> Node:
    """All of it."""
    run_id = view.head.run.id
    return [
        listener(f"/live/runs/{view.head.run.id}") if view.head.progress.open else None,
        div(id=LIVE)[head(view.head)],
        run_buttons(visit, view.head.run),
        _of_sample(view, visit.parts.settings.usable_chars_min),
        section(aria_labelledby="tasks")[h2("#tasks")["Tasks"], _tasks(visit, view)],
        section(aria_labelledby="files")[h2("#files")["Download"], _downloads(run_id)],
    ]


def _of_sample(view: RunView, usable_chars_min: int) -> Markup:
    """Drawn once for each sample: two thirds of the page's processor time, and it knows no visitor."""
    if view.voided not in view.kept.drawn:
        view.kept.drawn[view.voided] = drawn(
            fragment[
                section(aria_labelledby="bought")[
                    h2("#bought")["What the money bought"], bought(view, usable_chars_min)
                ],
                section(aria_labelledby="speed")[h2("#speed")["Speed"], speed(view.kept.sample)],
                section(aria_labelledby="reasons")[h2("#reasons")["Without an answer"], without_answer(view)],
            ]
        )
    return view.kept.drawn[view.voided]


def head(view: RunHead) -> Node:
    """What moves while one looks."""
    return [_where(view), _progress(view), _credits(view), _verdicts(view)]


def _where(view: RunHead) -> Node:
    run = view.run
    reasons = [*([run.reason] if run.reason else []), *view.waits]
    why = notice(ul[[li[others(reason)] for reason in reasons]], tone="warn") if reasons else None
    return [
        p(".where")[
            span(aria_live="polite")[badge(run.state)],
            " · account ",
            others(run.account),
            " · from ",
            others(run.source),
            " · created ",
            at(run.created_at),
            [" · finished ", at(run.finished_at)] if run.finished_at else None,
        ],
        why,
    ]


def _progress(view: RunHead) -> Element:
    states = {state: view.progress.states.get(state, 0) for state in STATE_COLOURS}
    whole = view.progress.tasks
    done = whole - view.progress.open
    words = f"{figure(done)} of {counted(whole, 'task')} done"
    segments = [(STATE_COLOURS[state], n, state) for state, n in states.items() if n]
    return div(".run-progress")[
        bar(segments, whole, words),
        p[words, " ", span(".dim")[share(done, whole)]],
        ul(".legend")[
            [
                li[span(class_=f"dot s{colour}", aria_hidden="true"), f"{state} {figure(n)}"]
                for colour, n, state in segments
            ]
        ],
    ]


def _credits(view: RunHead) -> Element:
    unknown, cells = Decimal(0), view.progress.cells
    attempts = 0
    for cell in cells:
        if cell.verdict == "unknown" or (cell.held and cell.state not in OPEN_STATES):
            unknown += cell.held
            attempts += cell.attempts
    budget = f"of a budget of {figure(view.run.budget)}" if view.run.budget is not None else "credits, posted"
    return cards(
        [
            Fact("Estimated", credits(view.progress.estimate), "credits, all attempts"),
            Fact("Held", credits(view.progress.held - unknown), "credits, under way"),
            Fact("Charged", credits(view.progress.charged), budget),
            Fact(
                "Unknown",
                credits(unknown),
                f"credits held, {counted(attempts, 'attempt')} without a charge",
                tone="warn" if attempts else "",
            ),
        ]
    )


def _verdicts(view: RunHead) -> Node:
    found = [(name, n) for name, n in sorted(view.progress.verdicts.items()) if n]
    if not found:
        return p(".dim")["Nothing is judged yet."]
    judged = sum(n for _, n in found)
    loud = sum(n for name, n in found if name not in QUIET_VERDICTS)
    # Each attempt is judged by itself, also one that a retry has replaced.
    attempts = sum(cell.attempts for cell in view.progress.cells)
    what = "judged" if attempts <= view.progress.tasks else "attempts judged"
    return div(".verdicts")[
        [span(".pair")[_to_filter(view, "verdict", name), " ", figure(n)] for name, n in found],
        span(".dim")[of(judged, max(attempts, judged), what), f"; {figure(loud)} to be explained"],
    ]


def _to_filter(view: RunHead, word: str, value: str) -> Element:
    return a(".quiet", href=f"/runs/{view.run.id}?{QUERY}={word}%3A{value}#tasks")[badge(value)]


def _tasks(visit: Visit, view: RunView) -> Node:
    path = f"/runs/{view.head.run.id}"
    bar_ = filter_bar(f"{path}#tasks", view.asked)
    if view.tasks is None:
        return bar_
    kept = {name: visit.values.get(name, "") for name in (QUERY, "cursor")}
    return [
        bar_,
        table(
            "Tasks, in the order of the source",
            _columns(view.prompts),
            view.tasks.data,
            empty=_none(view.asked, view),
            is_compact=True,
        ),
        pager(path, kept, view.tasks.next_cursor),
        _to_all(visit, view),
    ]


def _to_all(visit: Visit, view: RunView) -> Node:
    """To what can be done to all that match, for who may."""
    if not visit.may(Scope.OPERATE):
        return None
    which = filter_text(dataclasses.replace(view.asked.wanted, run=view.head.run.id))
    words = "Change all of them…" if view.asked.is_empty else "Change all that match…"
    return div(".actions")[a(".button", href=address("/bulk", {QUERY: which}))[words]]


def _none(asked: Filter, view: RunView) -> Element:
    if view.tasks is not None and view.tasks.next_cursor is not None:
        return empty("None in this part of the run.", "The next page looks on.")
    return empty("No task matches." if not asked.is_empty else "There are no tasks.")


def _task_name(task: Task) -> Node:
    return a(href=f"/tasks/{task.id}")[f"{task.ordinal:,}"]


def _why(task: Task) -> Node:
    if task.error is None:
        return badge(task.state)
    code = task.error.code
    return [badge(task.state), span(".more.code")[code_of(code) if code else others(task.error.message)]]


def _took(task: Task) -> Node:
    if task.submitted_at is None or task.settled_at is None:
        return nothing("not yet")
    return took(task.settled_at - task.submitted_at)


def _state(task: Task) -> Node:
    when = span(".more.settled")[at(task.settled_at)] if task.settled_at is not None else None
    return [_why(task), when]


def _engine(task: Task) -> Node:
    country = others(task.country) if task.country else "any country"
    return [task.engine, " ", span(".more")[country]]


def _columns(prompts: Mapping[str, str] | None) -> list[Column[Task]]:
    columns = [Column("Task", _task_name)]
    if prompts is not None:
        columns.append(Column("Prompt", lambda task: clipped(prompts.get(task.id, ""))))
    return [
        *columns,
        Column(
            "custom_id", lambda task: clipped(task.custom_id) if task.custom_id else nothing("none was given")
        ),
        Column("Engine", _engine),
        Column("State", _state),
        Column("Verdict", lambda task: badge(task.verdict) if task.verdict else nothing("not judged yet")),
        Column("Charged", lambda task: credits(task.credits.charged, "not said yet"), is_figure=True),
        Column("Took", _took, is_figure=True),
    ]


def _downloads(run_id: str) -> Node:
    kinds = (("results", "Tasks with their answers"), ("ledger", "Entries of its ledger"))
    return [
        p(".dim")["All of the run, whatever the filter says, as it is when the download begins."],
        ul[[li[f"{title}: ", in_each_format(f"/runs/{run_id}/{kind}", title)] for kind, title in kinds]],
    ]
