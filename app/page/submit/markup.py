"""The markup of submitting: the form, what a file has, and what is wrong with it."""

from collections.abc import Sequence

from htpy import (
    Element,
    Node,
    button,
    code,
    details,
    div,
    h2,
    input,
    label,
    option,
    p,
    pre,
    section,
    select,
    summary,
)

from app.api.native.new_run import in_words_of_api
from app.domain.engines.table import TASK_TYPES
from app.domain.text import agreeing, counted
from app.page.parts.facts import Fact, cards, facts
from app.page.parts.form import form_of
from app.page.parts.notice import empty, notice
from app.page.parts.table import Column, table
from app.page.parts.times import at
from app.page.parts.words import count, credits, others, sentence
from app.page.visit import Visit
from app.services.uploads import Fault, Found, Waiting

DUPLICATES = {
    "keep": "Keep them: each is a task",
    "merge": "Merge them: only the first is a task",
    "error": "Refuse the file",
}
EXAMPLE = """prompt,engine,country,custom_id
Which running shoe is best for beginners?,CHATGPT,US,shoes-1
Which running shoe is best for beginners?,GEMINI,GB,shoes-2
"""
FORM_WITH_FILE = "multipart/form-data"


def form_page(visit: Visit) -> Node:
    """One field for the file; what is seldom needed is folded away. The file comes last: what is sent before
    it is looked at before any of it is read."""
    return [
        p["A CSV with a header, or JSON Lines; also packed with gzip. You see its price before it is sent."],
        details[
            summary["What a file looks like"],
            p[
                "A line for each prompt; all but ",
                code["prompt"],
                " may be left out, an engine is chosen below:",
            ],
            pre(tabindex="0")[EXAMPLE],
            p(".dim")[
                "engine is one of ",
                ", ".join(TASK_TYPES),
                "; country is two letters; custom_id is your name for the line, and comes back with its "
                "answer, as do columns of your own.",
            ],
        ],
        form_of(visit, "/submit", enctype=FORM_WITH_FILE, class_="narrow")[
            _engine(),
            details[
                summary["More options"],
                div(".narrow")[
                    _text("name", "Name of the run", "after the file"),
                    _account(visit),
                    _text("country", "Country, for lines that name none", "such as GB"),
                    _text("budget", "Budget, in credits", "no limit"),
                    _text("repeats", "Samples of each line", "1"),
                    _duplicates(),
                    _text("reuse_within", "Take an equal answer this young", "such as 24h"),
                    _check("strict", "Send nothing if any line is bad"),
                    _check("pause_failing_engines", "Let tasks of an engine wait while its answers fail"),
                ],
            ],
            div(".drop")[
                label(for_="file")["Drop a file here, or choose one"],
                input("#file", type="file", name="file", required=True),
            ],
            button(".main", type="submit")["Look at it"],
        ],
    ]


def found_page(visit: Visit, waiting: Waiting) -> Node:
    """What it has, what it may cost, what is left out, and whether to send it."""
    found = waiting.found
    yes = f"Send {counted(found.tasks, 'task')} for up to {counted(found.credits.normalize(), 'credit')}"
    return [
        _read_as(found),
        cards(_figures(found)),
        facts(
            [
                Fact("Run", others(found.name)),
                Fact("File", others(found.file)),
                Fact("Account", others(found.account)),
                Fact("Own columns", _columns(found)),
                Fact("To be sent by", at(waiting.lapses_at_ms), "or it is thrown away"),
            ]
        ),
        div(".actions")[
            form_of(visit, f"/submit/{waiting.id}/begin")[button(".main", type="submit")[yes]],
            form_of(visit, f"/submit/{waiting.id}/discard")[button(type="submit")["Throw it away"]],
        ],
        _faults(found),
    ]


def refused_page(found: Found) -> Node:
    """Why nothing of it is sent."""
    why = "No line of it was taken as a task."
    if found.tasks:
        why = "Lines of it are wrong or repeat others, and the options say that then nothing is sent."
    return [
        notice(p[why, " Correct the file, or the options, and submit it again."], tone="loud"),
        cards(_figures(found)),
        _faults(found),
    ]


def _figures(found: Found) -> list[Fact]:
    shown = [
        Fact("Tasks", count(found.tasks)),
        Fact("May cost", credits(found.credits), "credits, by our price list"),
        Fact("Left out", count(found.bad_records), "lines", tone="warn" if found.bad_records else ""),
        Fact("Repeat others", count(found.duplicates), agreeing(found.duplicates, "line", "lines")),
    ]
    if found.repeated:
        shown.append(Fact("Samples", count(found.samples), f"tasks, of {counted(found.repeated, 'line')}"))
    if found.reused:
        shown.append(Fact("Reused", count(found.reused), "answered already, for nothing"))
    return shown


def _read_as(found: Found) -> Node:
    return notice(p[sentence(in_words_of_api(found.read_as))]) if found.read_as else None


def _columns(found: Found) -> Node:
    if not found.own_columns:
        return "none"
    return [[", " if n else None, code(dir="auto")[name]] for n, name in enumerate(found.own_columns)]


def _faults(found: Found) -> Node:
    if not found.faults:
        return None
    more = counted(found.faults_unnamed, "more fault")
    none = empty("Nothing is wrong.")
    return section(aria_labelledby="faults")[
        h2("#faults")["What is left out"],
        table("What is wrong with lines of the file", FAULTS, found.faults, empty=none),
        p(".dim")[f"and {more}"] if found.faults_unnamed else None,
    ]


FAULTS: Sequence[Column[Fault]] = (
    Column("Where", lambda fault: others(fault.where[:1].upper() + fault.where[1:])),
    Column("What is wrong", lambda fault: others(fault.problem)),
    Column("What to do", lambda fault: others(_in_words_of_form(fault.remedy))),
)


def _in_words_of_form(remedy: str) -> str:
    """An engine is missing far more often than anything else."""
    chosen = remedy.replace("give a default with --task-type", "choose an engine in the form")
    return in_words_of_api(chosen)


def _engine() -> Element:
    return div[
        label(for_="task_type")["Engine, for lines that name none"],
        select("#task_type", name="task_type")[
            option(value="")["as the file says"], [option(value=name)[name] for name in TASK_TYPES]
        ],
    ]


def _account(visit: Visit) -> Element:
    own = visit.caller.account
    names = [own] if own else list(visit.parts.settings.all_accounts())
    return div[
        label(for_="account")["Account that pays"],
        select("#account", name="account")[[option(value=name)[name] for name in names]],
    ]


def _duplicates() -> Element:
    return div[
        label(for_="duplicates")["Lines that repeat an earlier one"],
        select("#duplicates", name="duplicates")[
            [option(value=value)[about] for value, about in DUPLICATES.items()]
        ],
    ]


def _text(name: str, about: str, placeholder: str) -> Element:
    return div[
        label(for_=name)[about], input(id=name, name=name, placeholder=placeholder, autocomplete="off")
    ]


def _check(name: str, about: str) -> Element:
    return label(".check")[input(type="checkbox", name=name, value="true"), f" {about}"]
