"""The markup of findings."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from htpy import Element, Node, a, p, span

from app.api.native.books import Finding
from app.api.native.runs import Run
from app.page.parts.badge import badge
from app.page.parts.notice import empty
from app.page.parts.table import Column, address, table
from app.page.parts.times import at
from app.page.parts.words import count, credits, found, id_of, nothing, others
from app.page.visit import Visit
from app.store.read.books_pages import FindingsOfRun

NONE = empty(
    "There are no findings.",
    "Every charge is what was to be charged, or differs as the provider's rules allow.",
)
NO_RUNS = empty("No run has findings.")


@dataclass(slots=True)
class _Run:
    """One run's findings by verdict."""

    run_id: str | None
    name: str | None
    counts: dict[str, int] = field(default_factory=dict)


def run_table(visit: Visit, kinds: Sequence[FindingsOfRun]) -> Element:
    """A run a line, with the button of its archive."""
    by_run: dict[str | None, _Run] = {}
    for one in kinds:
        by_run.setdefault(one.run_id, _Run(one.run_id, one.name)).counts[one.verdict] = one.count
    columns: tuple[Column[_Run], ...] = (
        Column("Run", _name),
        Column("Findings", lambda run: count(sum(run.counts.values())), is_figure=True),
        Column("Kinds", _kinds),
        Column("Evidence", lambda run: _archive(visit, run)),
    )
    return table("Findings by run and kind", columns, list(by_run.values()), empty=NO_RUNS)


def _name(run: _Run) -> Node:
    if run.run_id is None:
        return span(".dim")["of no run: reports for tasks that we never sent"]
    return a(href=address("/findings", {"run": run.run_id}))[others(run.name)]


def _kinds(run: _Run) -> Node:
    return span(".kinds")[
        [span(".kind")[badge(verdict), " ", f"{number:,}"] for verdict, number in run.counts.items()]
    ]


def _archive(visit: Visit, run: _Run) -> Node:
    if run.run_id is None:
        return nothing("it goes into the archives of the account's runs of that time")
    if visit.hides_prompts:
        return nothing("prompts are hidden here, and they are in it")
    label = f"Download the dispute archive of {run.name}"
    return a(".button", href=f"/runs/{run.run_id}/dispute.zip", aria_label=label, download=True)[
        "Dispute archive"
    ]


def of_run(run: Run | None) -> Node:
    """Which run's they are, where not all are shown."""
    if run is None:
        return None
    return p[
        "Of the run ", a(href=f"/runs/{run.id}")[others(run.name)], ". ", a(href="/findings")["All runs"]
    ]


def finding_table(rows: Sequence[Finding]) -> Element:
    """Findings, a line each."""
    return table("Findings, newest first", COLUMNS, rows, empty=NONE)


def _kind(row: Finding) -> Node:
    return [badge(row.verdict), span(".more")[others(found(row))]]


def _task(row: Finding) -> Node:
    if row.task_id is None:
        return nothing("of no task of ours")
    return [
        a(href=f"/tasks/{row.task_id}")[id_of(row.task_id)],
        span(".more")["attempt ", str(row.attempt)] if row.attempt is not None else None,
    ]


def _difference(row: Finding) -> Node:
    if row.expected is None or row.actual is None:
        return nothing("one of the two is unknown")
    return credits(row.actual - row.expected)


COLUMNS: tuple[Column[Finding], ...] = (
    Column("Kind", _kind),
    Column("Task", _task),
    Column("Expected", lambda row: credits(row.expected), is_figure=True),
    Column("Charged", lambda row: credits(row.actual), is_figure=True),
    Column("Difference", _difference, is_figure=True),
    Column("Found", lambda row: at(row.at)),
)
