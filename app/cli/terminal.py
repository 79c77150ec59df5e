"""The terminal: where a command writes its answer, its errors, and the cells that all tables share.

Texts of other people (prompts, names, reasons) are never taken for markup.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from rich.console import Console, ConsoleOptions
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from typer.exceptions import TyperException

from app.cli.streams import OutputError, all_done
from app.cli.tables import table as table  # noqa: PLC0414 - callers have it from here
from app.domain.text import json_text, sanitize, sanitize_json
from app.errors import UserError
from app.log_sink import Sink

if TYPE_CHECKING:
    from app.views.runs import Document

WIDTH = 200
"""Of tables that go into a file or a pipe, where nothing shows it."""
ROWS_MAX = 20
"""Of engines and countries on a terminal, of which a run may have hundreds."""
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
    """Shows what it is given, and obeys none of it: whatever is in a name, a prompt or an answer, the
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
    """Standard output, as it is now."""
    return CleanConsole(width=None if sys.stdout.isatty() else WIDTH)


def error_console() -> Console:
    """Standard error, where everything goes that is not the answer."""
    return CleanConsole(stderr=True)


def show(document: Any, *, as_json: bool, draw: Callable[[Console, Any], None]) -> None:
    """The answer of a command: one JSON document on one line, or drawn. Raises OutputError when it cannot be
    written; not for a command that has done something, which goes on (see
    app.cli.main)."""
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


def announce_ready(ready: "Document", said: str, metrics_url: str | None, *, as_json: bool) -> None:
    """The line of a process that listens, and where its metrics are."""
    if as_json:
        announce_line(json.dumps(ready if metrics_url is None else {**ready, "metrics": metrics_url}))
    else:
        announce_line(said if metrics_url is None else f"{said} Metrics are at {metrics_url}/metrics.")


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


def draw_warning(output: Console, text: str) -> None:
    """What somebody should know of, and the command goes on."""
    output.print(f"[yellow]Warning:[/yellow] {escape(text)}")


def draw_done(output: Console, lines: Iterable[str]) -> None:
    """What is done, whatever became of the output."""
    for line in lines:
        output.print(f"[green]Done:[/green] {escape(line)}")


def draw_error(output: Console, error: UserError) -> None:
    """What is wrong, what there is to choose from, and what to do."""
    said = "[yellow]Interrupted:[/yellow]" if error.is_interruption else "[red]Error:[/red]"
    output.print(f"{said} {escape(error.message)}")
    for detail in error.details:
        output.print("  " + escape(_detail(detail)))
    if error.remedy:
        label = "Then:" if error.is_interruption else "Remedy:"
        output.print(f"[cyan]{label}[/cyan] {escape(error.remedy)}")


def _detail(detail: object) -> str:
    if not isinstance(detail, dict):
        return str(detail)
    return str(detail["message"]) if "message" in detail else "  ".join(map(str, detail.values()))


def draw_line(output: Console, document: "Document") -> None:
    """A document that says one thing, in `message`."""
    output.print(escape(document["message"]))


def pairs(values: Mapping[str, object]) -> str:
    """Names and figures on one line."""
    return ", ".join(f"{name.replace('_', ' ')} {figure(value)}" for name, value in values.items())


def figure(value: object) -> str:
    """A figure that may not be known."""
    return "unknown" if value is None else str(value)


def minute(iso: str) -> str:
    """A time of a document, to the minute."""
    return iso[:16].replace("T", " ")


def second(iso: str) -> str:
    """A time of a document, to the second."""
    return iso[:19].replace("T", " ")


def draw_largest(
    output: Console, rows: Table, parts: Sequence["Document"], row: Callable[..., list[str]]
) -> None:
    """A row for each part of something; on a terminal, where what stands above must stay in sight, only those
    with the most `tasks`, in the same order, and how many more there are."""
    shown = list(parts)
    if output.is_terminal:
        largest = sorted(range(len(shown)), key=lambda n: -shown[n]["tasks"])[:ROWS_MAX]
        shown = [shown[n] for n in sorted(largest)]
    for part in shown:
        rows.add_row(*row(part))
    output.print(rows)
    if more := len(parts) - len(shown):
        output.print(f"and {more} more with fewer tasks: --json has all of them")
