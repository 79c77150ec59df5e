"""`tallyhook init`: writes a commented .env; on a terminal it asks for what a real run needs."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from app.cli.options import AsJson, examples
from app.cli.streams import done
from app.errors import UserError, interrupted

PATH = ".env"


def init(
    ask: Annotated[
        bool, typer.Option("--ask/--no-ask", help="Ask for key, secret and address; only on a terminal.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Write a commented .env into this directory, for this user alone; one that is there stays as it is.

    On a terminal it asks for the three settings of a real run, and Enter leaves each out: without a key
    everything runs against the local emulator. Every command reads the file from the directory it is run in.
    """
    from app.cli.init.dotenv import dotenv_text
    from app.cli.terminal import draw_line, show

    if os.path.lexists(PATH):
        raise already_there()
    asks = ask and not as_json and sys.stdin.isatty() and sys.stderr.isatty()
    given = asked_for() if asks else {}
    write_new(Path(PATH), dotenv_text(given))
    done(f"{PATH} is written")
    names = ", ".join(given) or "nothing"
    message = f"Wrote {PATH}, which sets {names}. Next: tallyhook up; in another terminal: tallyhook doctor."
    show(
        {"path": str(Path(PATH).absolute()), "set": sorted(given), "message": message},
        as_json=as_json,
        draw=draw_line,
    )


def already_there() -> UserError:
    """What is there holds somebody's keys."""
    return UserError(
        "exists",
        f"there is a {PATH} here already, and it stays as it is",
        "edit it; tallyhook doctor says what is missing or wrong",
    )


def write_new(path: Path, text: str) -> None:
    """A file that was not there, for this user alone. Raises UserError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise already_there() from None
    except OSError as error:
        raise UserError(
            "cannot_write", f"cannot write {path.absolute()}: {error.strerror}", "go to a directory of yours"
        ) from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def asked_for() -> dict[str, str]:
    """What a person says at a terminal, each as it may be; what is left out is not in it."""
    from app.cli.init.dotenv import ASKED, SECRET, described

    given: dict[str, str] = {}
    typer.echo("Enter leaves a setting out.", err=True)
    for name in ASKED:
        while value := _typed(f"{name} ({described(name)})", hidden=name in SECRET):
            fault = fault_of(name, value)
            if not fault:
                given[name] = value
                break
            typer.echo(fault, err=True)
    return given


def _typed(question: str, *, hidden: bool) -> str:
    try:
        answer = typer.prompt(question, default="", show_default=False, hide_input=hidden, err=True)
    except typer.Abort:  # Ctrl-C, Ctrl-D, or a terminal that went away
        typer.echo("", err=True)
        remedy = "tallyhook init asks again; with --no-ask it asks nothing"
        raise interrupted(f"{PATH} is not written", remedy) from None
    return str(answer).strip()


def fault_of(name: str, value: str) -> str:
    """What is wrong with a setting, as every command would say it; empty: nothing. Never quotes it."""
    from app.config import load_settings
    from app.settings_text import ConfigError

    if any(char in value for char in "'\"#$\\"):
        return f"{name} has a character that such a file reads as its own: write it into {PATH} yourself"
    try:
        load_settings(_env_file=None, **{name: value})
    except ConfigError as error:
        own = [problem for problem in error.problems if problem.setting == name]
        return "; ".join(f"{problem.setting} {problem.text}" for problem in own)
    return ""


INIT_EXAMPLES = examples("tallyhook init", "tallyhook init --no-ask && $EDITOR .env && tallyhook doctor")
