"""Options that several commands share, and what all commands do first."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from app.config import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document; logs go to stderr.")]
RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="Name or id of a run, the beginning or end of an id, or [b]latest[/b]."
    ),
]


def settings_for(*, log_level: str | None = None) -> "Settings":
    """The settings of this process, its logs switched on. `log_level` is for commands that a person reads;
    None leaves it to TALLYHOOK_LOG_LEVEL."""
    from app import log
    from app.config import load_settings

    settings = load_settings()
    log.configure(settings.log_format, log_level or settings.log_level)
    return settings


def examples(*lines: str) -> str:
    """An epilog: each example on a line of its own."""
    return "[b]Examples[/b]\n\n" + "\n\n".join(f"  {line}" for line in lines)
