"""Options of the command line: those that two commands share, and how a number is written in any."""

from dataclasses import fields

import pytest
import typer
from typer.main import get_group
from typer.testing import CliRunner

from app.cli.numbers import read_digits_only
from app.cli.options import RUN_OPTIONS
from app.run_options import RunOptions


def test_the_options_of_a_run_are_the_fields_of_what_is_stored_with_it() -> None:
    defaults = {name: () if name == "include" else default for name, (_, default) in RUN_OPTIONS.items()}
    stored = {field.name: field.default for field in fields(RunOptions)}
    assert stored.pop("webhook_url") == "", "of schedules alone: a submitted run has its endpoint at once"
    assert defaults == stored


def said_to(kind: type, text: str) -> tuple[int, str]:
    """Exit code and words of a command that has one option of this kind."""
    app = typer.Typer()

    @app.callback()
    def root() -> None: ...

    def command(number: object = None, several: object = None) -> None:
        typer.echo(f"{number} {several}")

    command.__annotations__ = {"number": kind, "several": list[kind]}  # type: ignore[valid-type]
    app.command()(command)
    group = get_group(app)
    read_digits_only(group)
    ended = CliRunner().invoke(app, ["--help"])
    assert ended.exit_code == 0
    try:
        group(["command", f"--number={text}", f"--several={text}"], standalone_mode=False)
    except typer.BadParameter as error:
        return 2, error.format_message()
    return 0, ""


@pytest.mark.parametrize("text", ["1_0", "١٠", "1e3", " 10", "0x10", "1.0", "", "+", "²", "９"])
def test_a_whole_number_is_digits(text: str) -> None:
    code, words = said_to(int, text)
    assert code == 2
    assert "not a whole number: write digits only" in words


@pytest.mark.parametrize("text", ["1_0", "١٠.5", "inf", "nan", "0x1p3", " 1", "1.", ".", "", "1e5"])
def test_a_number_with_a_point_is_digits_too(text: str) -> None:
    code, words = said_to(float, text)
    assert code == 2
    assert "not a number: write digits, with a point if need be" in words


@pytest.mark.parametrize(
    ("kind", "text"), [(int, "10"), (int, "-3"), (int, "007"), (float, "1.50"), (float, "2")]
)
def test_plain_numbers_are_read(kind: type, text: str) -> None:
    assert said_to(kind, text) == (0, "")


@pytest.mark.parametrize(
    "typed",
    [
        ["submit", "prompts.csv", "--budget", ""],
        ["submit", "prompts.csv", "--reuse-within", ""],
        ["token", "create", "ci", "--scope", "read", "--expires", ""],
        ["token", "create", "ci", "--scope", "read", "--account="],
        ["mcp", "--account="],
    ],
)
def test_a_bound_that_is_empty_is_no_bound_that_was_meant(typed: list[str]) -> None:
    """As a script writes it whose variable is not set."""
    from app.cli.main import app

    with pytest.raises(typer.BadParameter, match="it is empty: give a value, or leave the option out"):
        get_group(app)(typed, standalone_mode=False)
