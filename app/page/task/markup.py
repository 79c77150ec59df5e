"""The page of a task, drawn."""

import json
from collections.abc import Sequence
from decimal import Decimal

from htpy import (
    Element,
    Node,
    a,
    code,
    dd,
    details,
    div,
    dl,
    dt,
    h2,
    li,
    ol,
    p,
    pre,
    section,
    span,
    summary,
    tbody,
    td,
    th,
    tr,
    ul,
)
from htpy import table as table_element

from app.api.fields import exact
from app.api.mcp.results import TOO_LONG, TaskAnswer, explained
from app.domain.text import counted
from app.page.control.forms import task_buttons
from app.page.parts.badge import badge, shape
from app.page.parts.facts import Fact, cards, facts
from app.page.parts.notice import empty
from app.page.parts.times import exactly_at, took
from app.page.parts.words import credits, id_of, nothing, others, prompt, sentence
from app.page.task.charge import Line, charge_lines
from app.page.task.reading import TaskView
from app.page.task.relay import relayed
from app.page.task.timeline import Event, timeline
from app.page.visit import Visit

BODY_CHARS = 4_000
"""Of a report, as it is shown; the download has all."""
HIDDEN = empty("Prompts and answers are hidden here.", "TALLYHOOK_PAGE_HIDE_PROMPTS is set.")


def task_page(visit: Visit, view: TaskView) -> Node:
    """All of it."""
    is_hidden = visit.hides_prompts
    events = timeline(view)
    return [
        _where(view),
        _head(view),
        task_buttons(visit, view.task),
        section(aria_labelledby="asked")[h2("#asked")["Asked"], _asked(view, is_hidden=is_hidden)],
        section(aria_labelledby="course")[
            h2("#course")["Course"],
            ol(".timeline")[
                [_event(view, event, before, is_hidden=is_hidden) for event, before in _pairs(events)]
            ],
        ],
        section(aria_labelledby="charge")[h2("#charge")["Charge"], _charge(view, events[0].at_ms)],
        section(aria_labelledby="relay")[h2("#relay")["Relay"], relayed(view.messages)],
        section(aria_labelledby="answer")[
            h2("#answer")["Answer"], HIDDEN if is_hidden else _answer(view.answer)
        ],
    ]


def _where(view: TaskView) -> Element:
    return p(".where")[
        a(href=f"/runs/{view.run.id}")[others(view.run.name)], " · task ", f"{view.task.ordinal:,}"
    ]


def _head(view: TaskView) -> Element:
    task = view.task
    until = None
    if task.submitted_at is not None and task.settled_at is not None:
        until = task.settled_at - task.submitted_at
    verdict = badge(task.verdict) if task.verdict else nothing("not judged yet")
    return cards(
        [
            Fact("State", badge(task.state), f"attempt {task.attempt}"),
            Fact("Verdict", verdict),
            Fact("Charged", credits(task.credits.charged, "no report has said it"), "credits"),
            Fact("Time to answer", took(until), "from acceptance to settlement"),
        ]
    )


def _asked(view: TaskView, *, is_hidden: bool) -> Node:
    task = view.task
    text = task.payload.get("prompt", task.payload.get("query"))
    rows = [
        Fact("Prompt", prompt(text if isinstance(text, str) else None, is_hidden=is_hidden)),
        Fact("Engine", task.engine),
        Fact("Country", others(task.country) if task.country else "the provider chooses"),
        Fact("custom_id", others(task.custom_id) if task.custom_id else nothing("none was given")),
        Fact("Task", span(".id")[task.id]),
        Fact("Key of its attempt", span(".id")[f"{task.id}.{task.attempt}"]),
    ]
    if task.repeats is not None:
        rows.append(Fact("Sample", f"{task.sample} of {task.repeats}"))
    if task.reused_from is not None:
        rows.append(Fact("Answered by", a(href=f"/tasks/{task.reused_from}")[id_of(task.reused_from)]))
    if task.error is not None:
        rows.append(
            Fact("Why", [code[others(task.error.code)], " ", others(task.error.message)], tone="loud")
        )
    return [
        facts(rows),
        None if is_hidden else _json("As it is sent", task.payload),
        None if is_hidden or task.metadata is None else _json("Own columns", task.metadata),
    ]


def _json(title: str, value: object) -> Element:
    return details[summary[title], pre[json.dumps(value, ensure_ascii=False, indent=2, default=str)]]


def _pairs(events: Sequence[Event]) -> list[tuple[Event, Event | None]]:
    return list(zip(events, [None, *events[:-1]], strict=True))


def _event(view: TaskView, event: Event, before: Event | None, *, is_hidden: bool) -> Element:
    since = None if before is None else span(".dim")[" +", took(event.at_ms - before.at_ms)]
    attempt = span(".dim")[f" attempt {event.attempt}"] if event.attempt and view.task.attempt > 1 else None
    return li(class_=event.tone)[
        span(".mark")[shape(event.tone)],
        div[
            p(".what")[event.title, attempt],
            p(".when")[exactly_at(event.at_ms), since],
            dl(".facts")[[(dt[name], dd[others(value)]) for name, value in event.details]],
            _raw(view, event, is_hidden=is_hidden),
        ],
    ]


def _raw(view: TaskView, event: Event, *, is_hidden: bool) -> Node:
    if event.report is None:
        return None
    if is_hidden:
        return p(".dim")["Its body is hidden here."]
    text = event.report.body.decode("utf-8", "replace")
    rest = len(text) - BODY_CHARS
    return details[
        summary["Raw evidence"],
        pre[text[:BODY_CHARS]],
        p(".dim")[f"{counted(rest, 'character')} more in the file."] if rest > 0 else None,
        p[
            a(href=f"/tasks/{view.task.id}/reports/{event.report.id}", download=True)[
                "Download it, byte for byte"
            ]
        ],
    ]


def _charge(view: TaskView, stored_at_ms: int) -> Node:
    lines = charge_lines(view.task, stored_at_ms)
    said = explained(view.task)
    return [
        table_element(".sum")[tbody[[_line(line) for line in lines]]],
        ul(".said")[[li[others(sentence)] for sentence in said.summary]],
    ]


def _line(line: Line) -> Element:
    why = span(".more")[line.why] if line.why else None
    amount = nothing("not known yet") if line.credits is None else _signed(line.credits, is_sum=line.is_sum)
    return tr(class_="total" if line.is_sum else None)[th(scope="row")[line.what, why], td(".figure")[amount]]


def _signed(amount: Decimal, *, is_sum: bool) -> str:
    return exact(amount) if is_sum or amount < 0 else f"+{exact(amount)}"


def _answer(answer: TaskAnswer | None) -> Node:
    if answer is None:
        return empty("There is no answer yet.")
    note = p(".dim")[_note(answer.note)] if answer.note else None
    if answer.answer_text is None and answer.response is None:
        return [empty("There is no answer to show."), note]
    text: Node = div(".answer", dir="auto")[answer.answer_text] if answer.answer_text else None
    return [
        text or p(".dim")["It has no text of its own."],
        p(".dim")["It is longer; the download of its report has all."] if answer.is_cut else None,
        _sources(answer.sources),
        note,
        None if answer.response is None else _json("Raw JSON", answer.response),
    ]


def _note(said: str) -> str:
    if said.startswith(TOO_LONG):
        return "Its JSON is longer than this page shows; the download of its report has all."
    return sentence(said)


def _sources(sources: Sequence[str]) -> Node:
    """What an answer cites; a link only where it is an address of the web, and it tells nobody whence."""
    if not sources:
        return None
    return details(open=len(sources) <= 10)[
        summary[counted(len(sources), "source")], ol(".sources")[[li[_source(url)] for url in sources]]
    ]


def _source(url: str) -> Node:
    if not url.lower().startswith(("https:", "http:")):
        return code[others(url)]
    return a(href=url, rel="noopener noreferrer nofollow")[others(url)]
