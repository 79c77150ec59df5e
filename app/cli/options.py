"""Options that several commands share, and what all commands do first."""

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.logger import configure_late

if TYPE_CHECKING:
    from app.config import Settings

LISTED_MAX = 10_000
"""Rows of a list: some megabytes, and seconds of the database's."""


def not_empty(context: typer.Context, parameter: typer.CallbackParam, value: str) -> str:
    """A text that bounds something, as it is given. Raises BadParameter for an empty one, as a script writes
    it whose variable is not set: there would be no bound."""
    source = context.get_parameter_source(parameter.name or "")
    if not value and source is not None and source.name == "COMMANDLINE":
        raise typer.BadParameter("it is empty: give a value, or leave the option out")
    return value


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document; logs go to stderr.")]
RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="Name or id of a run, the beginning or end of an id, or [b]latest[/b]."
    ),
]

TaskType = Annotated[str, typer.Option(help="For lines that name none, such as CHATGPT.")]
Country = Annotated[str, typer.Option(help="For lines that name none, such as DE.")]
Priority = Annotated[int, typer.Option(help="For lines that name none; 10 is first.", min=1, max=10)]
Repeats = Annotated[
    int,
    typer.Option(
        metavar="N", help="Ask lines that say nothing else N times, each paid for.", min=1, max=1_000
    ),
]
Include = Annotated[list[str] | None, typer.Option(help="Extras such as markdown,html; may be repeated.")]
Budget = Annotated[
    str, typer.Option(help="Pause the run before it costs more credits than this.", callback=not_empty)
]
Strict = Annotated[bool, typer.Option("--strict", help="Send nothing if any line is bad.")]
Account = Annotated[str, typer.Option(help="Whose API key pays; see TALLYHOOK_ACCOUNTS.")]
Batch = Annotated[int | None, typer.Option(help="Send so many tasks in one request.", min=1, max=500)]
ReuseWithin = Annotated[
    str,
    typer.Option(
        metavar="AGE",
        help="Answer a prompt from an equal result this young, such as 24h.",
        callback=not_empty,
    ),
]
Encoding = Annotated[
    str, typer.Option(help="Of FILE, such as cp1250; default: by its byte order mark and first bytes.")
]
Delimiter = Annotated[
    str, typer.Option(metavar="SIGN", help="Between columns, such as ';' or tab; default: by the header.")
]
PauseFailingEngines = Annotated[
    bool,
    typer.Option(
        "--pause-failing-engines",
        help="Tasks of an engine whose answers fail wait until they are usable again; all others go on.",
    ),
]
WebhookUrl = Annotated[
    str,
    typer.Option(metavar="URL", help="Post each result there once it is settled, signed (docs/relay.md)."),
]
WebhookSecretFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Sign with the whsec_ secret in FILE; else one is made for a new URL."),
]
Duplicates = Annotated[str, typer.Option(help="Records that repeat an earlier one: keep, merge or error.")]


RUN_OPTIONS: dict[str, tuple[Any, Any]] = {
    "task_type": (TaskType, ""),
    "country": (Country, ""),
    "priority": (Priority, 1),
    "include": (Include, None),
    "budget": (Budget, ""),
    "account": (Account, "default"),
    "batch": (Batch, None),
    "reuse_within": (ReuseWithin, ""),
    "duplicates": (Duplicates, "keep"),
    "repeats": (Repeats, 1),
    "encoding": (Encoding, ""),
    "delimiter": (Delimiter, ""),
    "pause_failing_engines": (PauseFailingEngines, False),
    "strict": (Strict, False),
}
"""The fields of `RunOptions` in the order of the help, each with its option and its default: importing that
class takes longer than help may."""


def takes_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of a run in its signature, in the place of its parameter `options`: it
    gets them as one `RunOptions`."""

    @functools.wraps(command)
    def with_options(*also: Any, **given: Any) -> None:
        from app.run_options import RunOptions

        options = {name: given.pop(name, default) for name, (_, default) in RUN_OPTIONS.items()}
        options["include"] = tuple(options["include"] or ())
        command(*also, **given, options=RunOptions(**options))

    own = inspect.signature(command).parameters.values()
    flat = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for parameter in own
        for name, (annotation, default) in (
            RUN_OPTIONS
            if parameter.name == "options"
            else {parameter.name: (parameter.annotation, parameter.default)}
        ).items()
    ]
    with_options.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return with_options


def settings_for(*, log_level: str | None = None, quiet: bool = False) -> "Settings":
    """The settings of this process, its logs switched on, and what is no setting told on standard error.
    `log_level` (warning or error) is for commands that a person reads, and that seldom log; None leaves it to
    TALLYHOOK_LOG_LEVEL. `quiet`: the caller tells of unknown settings."""
    from app.config import load_settings
    from app.local.running import who_runs

    settings = load_settings()
    if settings.embedded_provider and not settings.cloro_base_url and (up := who_runs(settings.data_dir)):
        # The emulator of `tallyhook up` may be elsewhere than by default.
        settings = settings.model_copy(update={"cloro_base_url": up.emulator})

    def switch_on() -> None:
        from app import log

        log.configure(settings.log_format, log_level or settings.log_level)

    if log_level is None:
        switch_on()
    else:
        configure_late(log_level, switch_on)
    if not quiet:
        _tell_unknown_settings()
    return settings


def _tell_unknown_settings() -> None:
    """On standard error, once for a command and all that it starts."""
    from app.config import unknown_settings
    from app.settings_text import TOLD

    if TOLD in os.environ:
        return
    os.environ[TOLD] = "1"
    for name, remedy in unknown_settings():
        from app.cli.terminal import draw_warning, error_console

        draw_warning(error_console(), f"{name} is no setting of this version: {remedy}")


def examples(*lines: str) -> str:
    """An epilog: each example on a line of its own."""
    return "[b]Examples[/b]\n\n" + "\n\n".join(f"  {line}" for line in lines)
