"""Every option and argument of every command, with values that nobody expects: a clear word, never a bug."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import app.cli.main
from app.cli.main import run

NUMBERS = ("9223372036855", "9223372036854775808", "1e13", "nan", "inf", "-inf", "-1", "9" * 30, "1_000", "२")
TEXTS = ("\udcff", "\x1b[31mred", "a\nb", "\u202ex", "[/red]", "x" * 5_000, "999999999w", "2026-13-45")
MOMENTS = ("9999-12-31T23:59:59-14:00", "0001-01-01", "1e20")
HOSTILE = (*NUMBERS, *TEXTS, *MOMENTS)
BASE = {
    "submit": ["good.csv", "--name", "again"],
    "ask": ["what?", "--engine", "chatgpt", "--country", "US"],
    "adjust": ["done", "--credits", "1", "--reason", "x"],
    "token create": ["ci", "--scope", "read"],
    "schedule add": ["good.csv", "--every", "1d"],
}
"""What else a command must be given; every other one is content with the name of a run."""
OF_NO_RUN = ("", "runs", "plan", "notices", "token list", "actions")
PROCESSES = ("api", "up", "web", "worker", "demo", "emulator")
CODES = (0, 1, 2)
NUMERIC = (
    "limit",
    "findings",
    "batch",
    "priority",
    "processes",
    "timeout",
    "wait",
    "budget",
    "credits",
    "every",
    "reuse_within",
    "cycle",
    "made_at",
)


def options() -> Iterator[tuple[str, Any]]:
    """(command, parameter) of everything that takes a value."""

    def walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        for parameter in command.params:
            if not getattr(parameter, "is_flag", False):
                yield " ".join(path), parameter
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, (*path, name))

    yield from walk(typer.main.get_command(app.cli.main.app), ())


OPTIONS = [(path, parameter) for path, parameter in options() if path not in PROCESSES]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with a file of prompts and a run called `done`, on one open store."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "good.csv").write_text("prompt,task_type,country\nIs Monzo safe?,GEMINI,GB\n")
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        _nothing_set(patch)
        assert run(["submit", "good.csv", "--name", "done"]) == 0
        yield folder


def _nothing_set(patch: pytest.MonkeyPatch) -> None:
    ours = ("TALLYHOOK_", "CLORO_", "DATABASE_", "REDIS_URL", "PORT", "PUBLIC_URL")
    for name in [name for name in os.environ if name.startswith(ours)]:
        patch.delenv(name)


def ended(arguments: list[str]) -> tuple[int, str]:
    """Exit code and all that was printed. A bug raises."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace")
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(out))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
        code = run(arguments)
    out.flush()
    return code, out.buffer.getvalue().decode()  # type: ignore[attr-defined]


def arguments_of(path: str, parameter: Any, value: str) -> list[str]:
    given = list(BASE.get(path, [] if path in OF_NO_RUN else ["done"]))
    if parameter.param_type_name == "argument":
        return [*path.split(), "--", value] if path not in BASE else [*path.split(), value, *given[1:]]
    option = parameter.opts[0]
    if option in given:
        del given[given.index(option) : given.index(option) + 2]
    once = ["--once"] if option == "--follow" else []  # the run has open tasks, so it would be followed on
    return [*path.split(), *given, *once, f"{option}={value}"]


@pytest.mark.parametrize(("path", "parameter"), OPTIONS, ids=[f"{path} {p.name}" for path, p in OPTIONS])
def test_f26_no_option_ends_in_a_bug(here: Path, path: str, parameter: Any) -> None:
    """Of each kind of value one tries; which one, goes by the place, so that all are tried somewhere."""
    turn = OPTIONS.index((path, parameter))
    values = HOSTILE if parameter.name in NUMERIC else [*TEXTS[turn % 4 :: 4], NUMBERS[turn % len(NUMBERS)]]
    for value in values:
        arguments = arguments_of(path, parameter, value)
        code, text = ended(arguments)
        assert code in CODES, (arguments, code, text)
        for word in ("reach the database", "Traceback", "\x1b", "\u202e", "bug"):
            assert word not in text, (arguments, text)


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("submit good.csv --budget 9223372036855", "--budget"),
        ("submit good.csv --budget 1e13", "--budget"),
        ("submit good.csv --budget nan", "--budget"),
        ("submit good.csv --budget 1_000", "--budget"),
        ("submit good.csv --budget 0.0000001", "--budget"),
        ("submit good.csv --batch 1e3", "--batch"),
        ("submit good.csv --priority 9e9", "--priority"),
        ("submit good.csv --name a\tb", "--name"),
        (f"submit good.csv --name {'x' * 201}", "--name"),
        ("submit good.csv --name \x1b[31m", "--name"),
        ("submit good.csv --reuse-within 999999999w", "--reuse-within"),
        ("submit \udcff.csv", "argument 2"),
        ("schedule add good.csv --every 999999999w", "--every"),
        ("report done --findings 1e20", "--findings"),
        ("report done --findings 99999999999999999999", "--findings"),
        ("runs --limit 10001", "--limit"),
        ("notices --limit 9223372036854775808", "--limit"),
        ("statement --cycle 2026-13-45", "--cycle"),
        ("dispute done --made-at 9999-12-31T23:59:59-14:00", "--made-at"),
        ("ask x --engine chatgpt --country US --timeout inf", "--timeout"),
        ("ask x --engine chatgpt --country US --wait 1e300", "--wait"),
        ("adjust done --reason x --credits 1e13", "--credits"),
        ("adjust done --reason x --credits nan", "--credits"),
        ("verify --processes 99999999999999999999", "--processes"),
        ("demo --seed 1e20", "--seed"),
    ],
)
def test_f26_what_is_out_of_range_is_asked_for_wrongly(here: Path, line: str, field: str) -> None:
    code, text = ended(line.split(" "))
    assert code == 2, text
    assert field in text
    code, text = ended([*line.split(" "), "--json"])
    assert (code, text.count("\n")) == (2, 1)


def test_f26_a_name_of_blanks_is_none(here: Path) -> None:
    code, text = ended(["submit", "good.csv", "--name", "  "])
    assert (code, "--name" in text) == (2, True), text


def test_f26_a_file_name_with_escapes_makes_a_name_without(here: Path) -> None:
    name = "\x1b[31mred\n.csv"
    (here / name).write_text("prompt,task_type,country\nIs Monzo safe?,GEMINI,GB\n")
    code, text = ended(["submit", name])
    assert (code, "\x1b" in text) == (0, False)
    assert r"(\x1b[31mred-" in text


def test_f26_a_bug_is_reported_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not by `run`, from which tests hear of it as it is."""

    def broken(_arguments: list[str]) -> int:
        raise ZeroDivisionError("Which bank is best?")

    monkeypatch.setattr(app.cli.main, "run", broken)
    monkeypatch.setattr(app.cli.main.streams, "take_streams", lambda: None)
    monkeypatch.setattr(sys, "argv", ["tallyhook", "runs"])
    umask = os.umask(0o22)
    try:
        with pytest.raises(SystemExit) as end:
            app.cli.main.main()
    finally:
        os.umask(umask)
    assert end.value.code == 70
    printed = capsys.readouterr().err
    assert "bug of Tallyhook: ZeroDivisionError" in printed
    assert "Traceback" not in printed
    assert "bank" not in printed
