"""The markup of bulk changes: the form, the list, the question, the progress."""

from collections.abc import Sequence

from htpy import (
    Element,
    Node,
    a,
    button,
    code,
    details,
    div,
    form,
    h2,
    input,
    label,
    option,
    p,
    section,
    select,
    summary,
)

from app.api.native.bulk_changes import BulkChange
from app.api.problems import Problem
from app.charts.figures import share
from app.domain.access import Scope
from app.domain.task_filter import WORDS, FilterError
from app.domain.text import agreeing, counted
from app.page.filters import QUERY
from app.page.live import listener
from app.page.parts.badge import badge
from app.page.parts.bar import bar
from app.page.parts.download import all_of_it
from app.page.parts.facts import Fact, cards, facts
from app.page.parts.form import form_of
from app.page.parts.notice import empty, notice
from app.page.parts.table import Column, pager, table
from app.page.parts.times import at
from app.page.parts.words import count, credits, id_of, others, sentence
from app.page.visit import Drawn, Visit
from app.views.runs import Document
from app.views.workers import START_WORKER

DOES = {
    "retry": "Retry failed, expired or rejected tasks",
    "cancel": "Cancel tasks that were not sent yet",
    "pause": "Pause running runs that have such a task",
    "resume": "Resume paused or stopped runs that have such a task",
}
TITLES = {"retry": "Retry", "cancel": "Cancel", "pause": "Pause", "resume": "Resume"}
PROGRESS = "progress"
"""Where what moves stands."""


def form_page(
    visit: Visit,
    verb: str,
    text: str,
    error: FilterError | None,
    changes: Sequence[BulkChange],
    next_cursor: str | None,
) -> Node:
    """What can be asked for, and what was."""
    none = empty("Nothing was changed in bulk yet.", "What is tried out is shown here for an hour.")
    listed = section(aria_labelledby="changes")[
        h2("#changes")["What was changed, or tried out"],
        table("Bulk changes, newest first", COLUMNS, changes, empty=none),
        pager("/bulk", visit.values, next_cursor) if changes else None,
        all_of_it("bulk-changes") if changes else None,
    ]
    asked = _form(visit, verb, text, error) if visit.may(Scope.OPERATE) else _may_not(visit)
    return [div[asked], listed]


def _form(visit: Visit, verb: str, text: str, error: FilterError | None) -> Node:
    hint = "; ".join(f"{word}: {about}" for word, (_, _, about) in WORDS.items())
    wrong = notice([p[f"{error}."], p[sentence(error.remedy)]], tone="loud") if error else None
    return [
        p["Something is done to all that match. It is tried out first: nothing changes before you say so."],
        wrong,
        form_of(visit, "/bulk", class_="narrow")[
            div[
                label(for_="verb")["What to do"],
                select("#verb", name="verb")[
                    [option(value=name, selected=name == verb)[about] for name, about in DOES.items()]
                ],
            ],
            div[
                label(for_=QUERY)["To which tasks"],
                input(
                    id=QUERY,
                    name=QUERY,
                    value=text,
                    placeholder="state:failed engine:CHATGPT",
                    autocomplete="off",
                    spellcheck="false",
                    aria_describedby="words",
                    aria_invalid="true" if error else None,
                ),
                details(".words")[summary["Words of a filter"], p("#words.more")[hint]],
            ],
            label(".check")[
                input(type="checkbox", name="even_if_held", value="1"),
                " Retry also tasks that may still be charged for their last attempt (may be paid for twice)",
            ],
            button(".main", type="submit")["Try it out"],
        ],
    ]


def _may_not(visit: Visit) -> Node:
    return notice(p[f"Your token may {visit.caller.scope}: changing something needs one that may operate."])


def change_page(visit: Visit, change: BulkChange, worker: Document, problem: Problem | None = None) -> Drawn:
    """What it asks, while it is proposed; then how far it has come. `worker`: whether one runs."""
    if change.state == "proposed":
        status = 200 if problem is None else problem.kind.status
        return Drawn(_question(change), _proposal(visit, change, problem), status)
    title = f"{TITLES[change.verb]} {_things(change, change.proposed.matched)}"
    return Drawn(title, _progress(visit, change, worker))


def _question(change: BulkChange) -> str:
    return f"{TITLES[change.verb]} {_things(change, change.proposed.matched)}?"


def _things(change: BulkChange, number: int) -> str:
    return counted(number, "run" if change.verb in ("pause", "resume") else "task")


def _proposal(visit: Visit, change: BulkChange, problem: Problem | None) -> Node:
    said: Node = notice(p[sentence(problem.detail)], tone="warn") if problem else None
    if not change.proposed.matched and problem is None:
        said = notice(p["Nothing that matches can be changed."], tone="warn")
    shown = [said, cards(_figures(change)), _about(change)]
    if not visit.may(Scope.OPERATE):
        return [*shown, _may_not(visit)]
    if problem is not None or not change.proposed.matched:
        return [*shown, _anew(visit, change)]
    return [*shown, _confirmation(visit, change)]


def _confirmation(visit: Visit, change: BulkChange) -> Element:
    yes = f"{TITLES[change.verb]} {_things(change, change.proposed.matched)}"
    if change.verb == "retry":
        yes += f" for up to {counted(change.proposed.credits.normalize(), 'credit')}"
    undone = "This cannot be undone. " if change.verb == "cancel" else ""
    return form_of(visit, f"/bulk/{change.id}/confirm")[
        input(type="hidden", name="filter", value=change.filter),
        input(type="hidden", name="matched", value=str(change.proposed.matched)),
        input(type="hidden", name="credits", value=str(change.proposed.credits)),
        p[f"{undone}No more is changed, and no more is spent, than is said here."],
        div(".actions")[button(_tone(change), type="submit")[yes], _change_nothing()],
    ]


def _anew(visit: Visit, change: BulkChange) -> Element:
    return form_of(visit, "/bulk")[
        input(type="hidden", name="verb", value=change.verb),
        input(type="hidden", name=QUERY, value=change.filter),
        input(type="hidden", name="even_if_held", value="1") if change.even_if_held else None,
        div(".actions")[button(type="submit")["Try it out anew"], _change_nothing()],
    ]


def _tone(change: BulkChange) -> str:
    """Of its button: what cannot be undone is loud."""
    return ".loud" if change.verb == "cancel" else ".main"


def _change_nothing() -> Element:
    return a(".button", href="/bulk")["Change nothing"]


def _figures(change: BulkChange) -> list[Fact]:
    proposed = change.proposed
    shown = [Fact("Runs" if change.verb in ("pause", "resume") else "Tasks", count(proposed.matched))]
    if change.verb == "retry":
        shown.append(Fact("May cost", credits(proposed.credits), "credits, by our price list"))
    if change.verb == "cancel":
        shown.append(Fact("Not spent", credits(proposed.credits), "credits, by our price list"))
    if proposed.left_held:
        why = "may still be charged" if change.verb == "retry" else "the provider has them, or may have"
        shown.append(Fact("Left alone", count(proposed.left_held), why))
    if proposed.left_answered:
        shown.append(Fact("Left alone", count(proposed.left_answered), "an answer came late"))
    if proposed.held:
        shown.append(Fact("Stay held", credits(proposed.held), "credits, of what is left alone"))
    return shown


def _about(change: BulkChange) -> Element:
    rows = [
        Fact("What", DOES[change.verb]),
        Fact("Filter", code(dir="auto")[change.filter] if change.filter else "none: all that can be changed"),
        Fact("Of", f"account {change.account}" if change.account else "all accounts"),
        Fact("Tried out", at(change.created_at), ["by ", others(change.actor)]),
    ]
    if change.even_if_held:
        rows.append(Fact("Also", "tasks that may still be charged for their last attempt", tone="warn"))
    if change.lapses_at is not None:
        rows.append(Fact("To be confirmed by", at(change.lapses_at)))
    else:
        rows += [Fact("Confirmed", at(change.confirmed_at)), Fact("Ended", at(change.finished_at))]
    return facts(rows)


def _progress(visit: Visit, change: BulkChange, worker: Document) -> Node:
    """While it runs it is told of by itself, where there is JavaScript."""
    if change.state != "running":
        return div(id=PROGRESS)[how_far(change, worker)]
    again = form(method="get", action=f"/bulk/{change.id}")[button(type="submit")["Look again"]]
    stop = form_of(visit, f"/bulk/{change.id}/stop")[button(type="submit")["Stop it here"]]
    return [
        listener(f"/live/bulk/{change.id}"),
        div(id=PROGRESS)[how_far(change, worker)],
        div(".actions.while-running")[again, stop if visit.may(Scope.OPERATE) else None],
    ]


def how_far(change: BulkChange, worker: Document) -> Node:
    """What moves of it: the same for all who see it."""
    done, of = change.done.matched, change.proposed.matched
    words = f"{done:,} of {of:,} {agreeing(of, 'is', 'are')} done"
    spent = {"retry": "May cost", "cancel": "Not spent"}.get(change.verb)
    shown = [
        Fact("Done", count(done), share(done, of)),
        Fact(spent, credits(change.done.credits), "credits so far, by our price list") if spent else None,
        Fact("Left alone", count(change.done.left_held + change.done.left_answered)),
    ]
    return [
        p(aria_live="polite")[badge(change.state), " ", _reason(change)],
        _waits(worker) if change.state == "running" else None,
        bar([(2, done, "done")], max(of, 1), words),
        p(".dim")[words],
        cards([fact for fact in shown if fact is not None]),
        _about(change),
        None if change.state == "running" else p(".ended")[a(href="/bulk")["All bulk changes"]],
    ]


def _waits(worker: Document) -> Node:
    if worker["running"]:
        return None
    return notice(
        p[sentence(worker["message"]), " It goes on once one runs: ", START_WORKER, "."], tone="warn"
    )


def _reason(change: BulkChange) -> Node:
    return sentence(change.reason) if change.reason else None


def _matched(change: BulkChange) -> Node:
    return [count(change.done.matched), " of ", count(change.proposed.matched)]


COLUMNS: tuple[Column[BulkChange], ...] = (
    Column("Change", lambda change: a(href=f"/bulk/{change.id}")[TITLES[change.verb], " ", id_of(change.id)]),
    Column("State", lambda change: badge(change.state)),
    Column("Filter", lambda change: code(dir="auto")[change.filter] if change.filter else "all"),
    Column("Done", _matched, is_figure=True),
    Column("By", lambda change: others(change.actor)),
    Column("At", lambda change: at(change.created_at)),
)
