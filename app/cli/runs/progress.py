"""The progress of a run on standard error: a bar where it can be redrawn, else a line every so often."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from app.cli.runs.pace import Pace
from app.cli.terminal import second
from app.domain.credits import to_json_number
from app.domain.text import counted
from app.domain.time_format import iso_utc
from app.store.read.progress import RunProgress
from app.views.waiting import clock_time

LINE_FIRST_S = 10.0
LINE_LAST_S = 60.0
LINE_SHARE = 6
"""A line is written when a sixth of the time so far has passed again, between 10 s and a minute."""
LOST_STATES = ("failed", "rejected", "expired")


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at a run."""

    at_s: float
    """Monotonic, since the first look."""
    now_ms: int
    state: str
    reason: str | None
    progress: RunProgress
    waits: Sequence[str]
    """Why it is not over, as of waiting_lines."""


Show = Callable[[Seen], None]


@contextlib.contextmanager
def shown_progress(output: Console, name: str) -> Iterator[Show]:
    """Gives the function that shows a look at the run of that name."""
    pace = Pace()
    if not output.is_terminal:
        yield _lines(output, name, pace)
        return
    with Live(console=output, refresh_per_second=4, transient=True) as live:

        def redraw(seen: Seen) -> None:
            pace.note(seen.at_s, _closed(seen.progress))
            live.update(drawing(name, seen, pace), refresh=True)

        yield redraw


def _lines(output: Console, name: str, pace: Pace) -> Show:
    next_s = 0.0

    def write(seen: Seen) -> None:
        nonlocal next_s
        pace.note(seen.at_s, _closed(seen.progress))
        if seen.at_s < next_s:
            return
        next_s = seen.at_s + min(max(seen.at_s / LINE_SHARE, LINE_FIRST_S), LINE_LAST_S)
        output.print(escape(progress_line(name, seen, pace)))

    return write


def progress_line(name: str, seen: Seen, pace: Pace) -> str:
    """All there is to say of one look, with its time."""
    progress = seen.progress
    share = f" ({_percent(progress)})" if progress.tasks else ""
    head = (
        f"{second(iso_utc(seen.now_ms) or '')} {name}: "
        f"{seen.state}, {_closed(progress):,} of {counted(progress.tasks, 'task')} in{share}"
    )
    return "; ".join([head, ", ".join(_figures(seen, pace)), *_why(seen)])


def drawing(name: str, seen: Seen, pace: Pace) -> Table:
    """A bar with its counts, and under it the figures and why it waits; for any width from 40 on."""
    progress = seen.progress
    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(max_width=24, no_wrap=True, overflow="ellipsis")
    bar.add_column(ratio=1, min_width=8)
    bar.add_column(no_wrap=True, justify="right")
    bar.add_column(no_wrap=True, justify="right")
    drawn = ProgressBar(total=max(progress.tasks, 1), completed=_closed(progress))
    bar.add_row(escape(name), drawn, _count(progress), _percent(progress))
    rows = Table.grid(expand=True)
    rows.add_row(bar)
    style = "green" if seen.state == "running" else "yellow"
    rows.add_row(
        f"[{style}]{seen.state}[/{style}] [dim]·[/dim] " + " [dim]·[/dim] ".join(_figures(seen, pace))
    )
    for line in _why(seen):
        rows.add_row(f"[dim]{escape(line)}[/dim]")
    return rows


def _closed(progress: RunProgress) -> int:
    return progress.tasks - progress.open


def _count(progress: RunProgress) -> str:
    return f"{_closed(progress):,} of {progress.tasks:,}"


def _percent(progress: RunProgress) -> str:
    return f"{100 * _closed(progress) // max(progress.tasks, 1)} %"


def _figures(seen: Seen, pace: Pace) -> list[str]:
    states, progress = seen.progress.states, seen.progress
    counts = {
        "at the provider": states.get("submitted", 0) + states.get("submitting", 0),
        "to send": states.get("pending", 0),
        "failed": sum(states.get(state, 0) for state in LOST_STATES),
    }
    figures = [f"{count:,} {what}" for what, count in counts.items() if count]
    figures.append(counted(to_json_number(progress.charged), "credit"))
    if pace.per_s is not None and progress.open:
        figures.append(_rate(pace.per_s))
        if (left_s := pace.left_s(progress.open)) is not None:
            figures.append(f"ends about {clock_time(seen.now_ms + round(left_s * 1000), seen.now_ms)}")
    return figures


def _rate(per_s: float) -> str:
    return f"{per_s:.0f}/s" if per_s >= 10 else f"{per_s:.1f}/s" if per_s >= 1 else f"{per_s * 60:.1f}/min"


def _why(seen: Seen) -> list[str]:
    return [*([seen.reason] if seen.reason else []), *seen.waits]
