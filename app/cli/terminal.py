"""Draws the documents of the commands on a terminal. Everything a person sees and no program reads.

Texts of other people (prompts, names, reasons) are never taken for markup.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any, BinaryIO, cast

from rich.console import Console, ConsoleOptions
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from typer.exceptions import TyperException

from app.cli.done import all_done
from app.cli.runs.watch import submitted_count
from app.cli.streams import OutputError
from app.domain.credits import to_json_number
from app.domain.text import json_text, sanitize, sanitize_json
from app.errors import UserError
from app.log_sink import Sink
from app.store.read.runs import RunProgress
from app.views.runs import Document

SHORT_ID_CHARS = 8
WIDTH = 200
"""Of tables that go into a file or a pipe, where nothing tells."""
STATE_STYLES = {
    "running": "green",
    "paused": "yellow",
    "stopped": "red",
    "cancelled": "dim",
    "loading": "cyan",
    "finished": "green",
    "ok": "green",
    "warning": "yellow",
    "fault": "red",
}


class CleanConsole(Console):
    """Shows what it is given, and obeys none of it: whatever stands in a name, a prompt or an answer, the
    only escape sequences are those of its own styles. Names in colons are no pictures."""

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(highlight=False, soft_wrap=True, emoji=False, stderr=stderr, width=width)

    def render_str(self, text: str, **options: Any) -> Text:
        # Before it is measured, so that columns fit.
        return super().render_str(sanitize(text), **options)

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        # And whatever way it came.
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else sanitize(text), style, control)


def console() -> Console:
    """Standard output, as it is at this moment."""
    return CleanConsole(width=None if sys.stdout.isatty() else WIDTH)


def error_console() -> Console:
    """Standard error, where everything goes that is not the answer."""
    return CleanConsole(stderr=True)


def show(document: Any, *, as_json: bool, draw: Callable[[Console, Any], None]) -> None:
    """The answer of a command: one JSON document on one line, or drawn. Raises OutputError when it cannot be
    written; not for a command that has done something, which goes on: its end tells (app.cli.main)."""
    try:
        if as_json:
            write_json(document)
        else:
            draw(console(), document)
            sys.stdout.flush()
    except OutputError:
        if not all_done():
            raise


def write_json(document: Any) -> None:
    """One JSON document on one line of standard output."""
    sys.stdout.write(json_text(document, sys.stdout.encoding) + "\n")
    sys.stdout.flush()


def write_text(text: str) -> None:
    """Lines of standard output that have no styles."""
    sys.stdout.write(sanitize(text))
    sys.stdout.flush()


def announce_line(line: str) -> None:
    """What a process says when it has begun. That nobody can be told is told on standard error, and no reason
    to end: it has other work."""
    try:
        write_text(line + "\n")
        if isinstance(sys.stdout, Sink) and (not sys.stdout.drain() or sys.stdout.lost):
            draw_error(error_console(), UserError("output_lost", "standard output takes nothing"))
    except OutputError as lost:
        draw_error(error_console(), UserError("output_lost", str(lost)))


def stdout_bytes(format_: str) -> BinaryIO:
    """Standard output for rows, byte by byte; on a terminal such as it may show."""
    binary = sys.stdout.buffer
    if not sys.stdout.isatty():
        return binary
    clean = sanitize_json if format_ == "jsonl" else sanitize
    return cast(BinaryIO, CleanBytes(binary, clean))


class CleanBytes:
    """Takes whole lines of UTF-8, and writes them as a terminal may show them."""

    def __init__(self, output: BinaryIO, clean: Callable[[str], str]) -> None:
        self._output = output
        self._clean = clean

    def write(self, line: bytes) -> None:
        self._output.write(self._clean(line.decode(errors="replace")).encode())

    def flush(self) -> None:
        self._output.flush()


def draw_usage(output: Console, error: TyperException) -> None:
    """What was asked for wrongly, and how it is asked for."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return  # the help was shown
    context = getattr(error, "ctx", None)
    if context is not None:
        output.print(escape(context.get_usage()))
        output.print(f"Try [cyan]{escape(context.command_path)} --help[/cyan] for help.")
    output.print(f"[red]Error:[/red] {escape(error.format_message())}")


def draw_done(output: Console, lines: Iterable[str]) -> None:
    """What stands, whatever became of the output."""
    for line in lines:
        output.print(f"[green]Done:[/green] {escape(line)}")


def draw_error(output: Console, error: UserError) -> None:
    """What is wrong, what there is to choose from, and what to do."""
    output.print(f"[red]Error:[/red] {escape(error.message)}")
    for detail in error.details:
        parts = detail.values() if isinstance(detail, dict) else (detail,)
        output.print("  " + escape("  ".join(str(part) for part in parts)))
    if error.remedy:
        output.print(f"[cyan]Remedy:[/cyan] {escape(error.remedy)}")


def draw_runs(output: Console, document: Document) -> None:
    """One line for each run."""
    if not document["runs"]:
        output.print("No run yet. tallyhook submit FILE makes one.")
        return
    table = _table(
        "id", "name", "account", "state", "tasks", "open", "completed", "failed", "charged", "created"
    )
    for status in document["runs"]:
        run, states = status["run"], status["states"]
        table.add_row(
            run["id"][-SHORT_ID_CHARS:],
            escape(run["name"]),
            run["account"],
            _state(status),
            str(status["tasks"]),
            str(status["open"]),
            str(states["completed"]),
            str(states["failed"]),
            str(status["credits"]["charged"]),
            run["created_at"][:19].replace("T", " "),
        )
    output.print(table)


def draw_schedules(output: Console, document: Document) -> None:
    """One line for each schedule, and under it what went wrong last."""
    if not document["schedules"]:
        output.print("No schedule yet. tallyhook schedule add FILE --every 6h makes one.")
        return
    table = _table("name", "every", "state", "next", "file", "last trouble")
    for row in document["schedules"]:
        table.add_row(
            escape(row["name"]),
            row["every"],
            row["state"],
            row["next_at"][:19].replace("T", " "),
            escape(row["source"]),
            escape(row["last_error"] or ""),
        )
    output.print(table)


def draw_status(output: Console, document: Document) -> None:
    """One run in a few lines."""
    _draw_run_head(output, document)
    counts = {state: count for state, count in document["states"].items() if count}
    output.print(f"  tasks    {document['tasks']}: {_pairs(counts)}")
    output.print(f"  credits  {_pairs(document['credits'])}")
    if worker := document.get("worker"):
        needed = not worker["running"] and not document["finished"]
        said = f"[red]{worker['message']}: start tallyhook worker[/red]" if needed else worker["message"]
        output.print(f"  worker   {said}")


def draw_report(output: Console, document: Document) -> None:
    """The books of one run."""
    _draw_run_head(output, document)
    states = ("completed", "failed", "rejected", "expired", "cancelled", "open")
    found = ("duplicates", "swept", "recovered_submits", "reused", "money_open")
    output.print(f"  tasks    {document['tasks']}: {_pairs({name: document[name] for name in states})}")
    output.print(f"  seen     {_pairs({name: document[name] for name in found})}")
    output.print(f"  credits  {_pairs(document['credits'])}")
    output.print(f"  verdicts {_pairs({k: v for k, v in document['verdicts'].items() if v}) or 'none yet'}")
    for name, one in document["exposure"].items():
        if one["attempts"]:
            said = "in flight" if name == "in_flight" else "[yellow]charge unknown, work closed[/yellow]"
            output.print(f"  held     {one['credits']} credits of {one['attempts']} attempts {said}")
    aside = document["set_aside"]
    if aside["named"] or aside["unnamed"]:
        output.print(f"  inbox    [red]{aside['named']} deliveries about it set aside[/red], ", end="")
        output.print(f"{aside['unnamed']} more whose task cannot be made out: tallyhook inbox list")
    if document["adjusted"]:
        output.print(f"  adjusted {document['adjusted']} credits by later corrections")
    _draw_engines(output, document)
    if document["findings"]:
        table = _table("verdict", "task", "expected", "actual", "detail")
        for finding in document["findings"]:
            table.add_row(
                finding["verdict"],
                str(finding["task_id"]),
                _figure(finding["expected"]),
                _figure(finding["actual"]),
                escape(finding["detail"]),
            )
        output.print(table)


def _draw_engines(output: Console, document: Document) -> None:
    names = ("tasks", "completed", "failed", "open", "posted", "held")
    times = ("p50_ms", "p95_ms", "max_ms")
    latency = {one["task_type"]: one for one in document["latency"]}
    table = _table("engine", "countries", *names, "p50", "p95", "longest")
    parts = document["by_engine_country"]
    for engine in sorted({one["task_type"] for one in parts}):
        mine = [one for one in parts if one["task_type"] == engine]
        sums = (to_json_number(sum((Decimal(one[name]) for one in mine), Decimal(0))) for name in names)
        waited = (f"{latency[engine][name] / 1000:.1f} s" if engine in latency else "" for name in times)
        table.add_row(engine, str(len(mine)), *map(str, sums), *waited)
    if parts:
        output.print(table)


def draw_submitted(output: Console, document: Document) -> None:
    """What was stored, which lines were not, and what to do next."""
    draw_bad_lines(output, document["bad_lines"], document["bad_lines_count"])
    output.print(
        f"[green]Run {document['run']['id']}[/green] ({escape(document['run']['name'])}): "
        f"{document['tasks']} tasks, {document['credits']['estimate']} credits by our estimate."
    )
    for line in document["next"]:
        output.print(f"  {escape(line)}")


def draw_asked(output: Console, document: Document) -> None:
    """The answer, and under it what it cost."""
    answer, credits = document["answer"], document["credits"]
    if answer is not None:
        text = answer.get("text") if isinstance(answer, dict) else None
        output.print(escape(text if isinstance(text, str) else json.dumps(answer, ensure_ascii=False)))
    else:
        error = document["error"] or {}
        output.print(f"[red]No answer:[/red] {escape(str(error.get('message') or error.get('code')))}")
    told = "charge unknown, up to" if credits["unknown"] else "charged"
    figure = credits["estimate"] if credits["unknown"] else credits["charged"]
    output.print(f"[dim]{told} {figure} credits; run {document['run']['id'][-SHORT_ID_CHARS:]}[/dim]")


def draw_bad_lines(output: Console, lines: Iterable[Document], count: int) -> None:
    """Lines of the input that cannot be used, each with its field and the remedy."""
    shown = 0
    for line in lines:
        shown += 1
        where = f"line {line['line']}, {line['field']}" if line["field"] else f"line {line['line']}"
        remedy = f"; {line['remedy']}" if line["remedy"] else ""
        output.print(f"[yellow]{escape(where)}:[/yellow] {escape(line['problem'])}{escape(remedy)}")
    if count > shown:
        output.print(f"… and {count - shown} more bad lines")


def draw_checks(output: Console, document: Document) -> None:
    """The doctor's findings."""
    for check in document["checks"]:
        style = STATE_STYLES[check["state"]]
        output.print(f"[{style}]{check['state']:>7}[/{style}]  {check['name']}: {escape(check['detail'])}")
        if check["remedy"]:
            output.print(f"         {escape(check['remedy'])}")


def draw_line(output: Console, document: Document) -> None:
    """A document that says one thing, in `message`."""
    output.print(escape(document["message"]))


@contextlib.contextmanager
def live_progress(output: Console, name: str) -> Iterator[Callable[[RunProgress], None]]:
    """A live bar for a run: settled of all, and beside it submitted, completed, failed and credits. It says
    nothing where it cannot be redrawn. Gives the function that moves it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("[dim]submitted[/dim] {task.fields[submitted]}"),
        TextColumn("[green]completed {task.fields[completed_tasks]}[/green]"),
        TextColumn("[red]failed {task.fields[failed]}[/red]"),
        TextColumn("[cyan]{task.fields[charged]} credits[/cyan]"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=output, disable=not output.is_terminal, expand=True) as bar:
        shown = bar.add_task(escape(name), total=None, submitted=0, completed_tasks=0, failed=0, charged=0)

        def move(progress: RunProgress) -> None:
            states = progress.states
            bar.update(
                shown,
                total=progress.tasks,
                completed=progress.tasks - progress.open,
                submitted=submitted_count(progress),
                completed_tasks=states.get("completed", 0),
                failed=states.get("failed", 0),
                charged=to_json_number(progress.charged),
            )

        yield move


def _draw_run_head(output: Console, document: Document) -> None:
    run = document["run"]
    output.print(f"Run {run['id']} ({escape(run['name'])}) from {escape(run['source'])}: {_state(document)}")
    if run["account"] != "default":
        output.print(f"  paid by account {escape(run['account'])}")
    if run["reason"]:
        output.print(f"  [yellow]{escape(run['reason'])}[/yellow]")
    if run["bad_lines"]:
        output.print(f"  {run['bad_lines']} lines of its source were bad")


def _state(document: Document) -> str:
    state = document["run"]["state"]
    shown = "finished" if state == "running" and document["finished"] else state
    style = STATE_STYLES.get(state, "default")
    return f"[{style}]{shown}[/{style}]"


def _pairs(values: Document) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_figure(value)}" for name, value in values.items())


def _figure(value: object) -> str:
    return "unknown" if value is None else str(value)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, no_wrap=column in ("id", "task", "verdict", "created"))
    return table
