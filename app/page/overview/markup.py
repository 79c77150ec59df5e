"""The overview's own markup."""

from collections.abc import Sequence

from htpy import Element, Node, a, div, span

from app.api.native.runs import Run
from app.charts.figures import share
from app.page.parts.badge import badge
from app.page.parts.bar import bar
from app.page.parts.table import Column, table
from app.page.parts.times import at
from app.page.parts.words import count, credits, others

DONE, WRONG, GOING = 2, 3, 0
"""Colours of a chart."""


def run_table(runs: Sequence[Run], none: Node) -> Element:
    """Runs, a line each."""
    return table("Runs, newest first", COLUMNS, runs, empty=none)


def _name(run: Run) -> Node:
    return a(href=f"/runs/{run.id}")[others(run.name)]


def _progress(run: Run) -> Node:
    counts = run.counts
    closed = counts.failed + counts.rejected + counts.expired + counts.cancelled
    done = counts.completed + closed
    words = f"{done:,} of {counts.total:,} done"
    segments = [
        (DONE, counts.completed, "completed"),
        (WRONG, closed, "failed, rejected, expired or cancelled"),
        (GOING, counts.submitting + counts.submitted, "on their way"),
    ]
    return div(".progress")[
        bar(segments, counts.total, words), span(".dim")[words, " ", share(done, counts.total)]
    ]


def _state(run: Run) -> Node:
    return [badge(run.state), span(".more")[others(run.reason)] if run.reason else None]


COLUMNS: tuple[Column[Run], ...] = (
    Column("Run", _name),
    Column("State", _state),
    Column("Progress", _progress),
    Column("Tasks", lambda run: count(run.counts.total), is_figure=True),
    Column("Credits charged", lambda run: credits(run.credits.charged), is_figure=True),
    Column("Held", lambda run: credits(run.credits.held), is_figure=True),
    Column("Account", lambda run: others(run.account)),
    Column("Created", lambda run: at(run.created_at)),
)
