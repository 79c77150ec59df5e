"""Every block of commands in a page is run by a test or says why not, and every `tallyhook …` in one is a
command with the options that it has."""

import re
import shlex
from typing import Any

import pytest
import typer

from tests.doc_commands import BLOCK, ROOT, all_blocks, blocks_of, pages

BLOCKS = all_blocks()
OF_MACHINES = {"docker", "kubectl", "systemctl"}
PIPED = {"|", ">", "&&", ";", "||"}


def words_of(line: str) -> list[list[str]]:
    """The commands of a line, as words, each up to what ends it."""
    words = shlex.split(line.replace("$(", " ; ").replace(")", " ; "), comments=True)
    commands: list[list[str]] = [[]]
    for word in words:
        if word in PIPED:
            commands.append([])
        elif commands[-1] or "=" not in word:  # variables before a command
            commands[-1].append(word)
    return [command for command in commands if command]


def tallyhook_commands() -> list[tuple[str, list[str]]]:
    return [
        (f"{block.page}:{block.line}", command[1:])
        for block in BLOCKS
        for line in block.lines
        if "tallyhook" in line and "python -c" not in line
        for command in words_of(line)
        if command[0].rpartition("/")[2] == "tallyhook"
    ]


def test_every_block_is_run_or_says_why_not() -> None:
    assert len(BLOCKS) > 50
    for block in BLOCKS:
        place = f"{block.page}:{block.line}"
        if block.how == "tested":
            assert (ROOT / block.what).is_file(), f"{place}: there is no {block.what}"
        elif block.how == "not run":
            assert len(block.what) > 10, f"{place}: say why"
        else:
            assert block.lines, f"{place}: no command; a transcript needs no language"


def test_what_no_test_can_run_is_said_to_be_run_by_none() -> None:
    """A test that only looks at a file runs no cluster and no service."""
    for block in BLOCKS:
        text = (ROOT / block.what).read_text() if block.how == "tested" else ""
        wanted = {word for line in block.lines for word in re.split(r"\W+", line)} & OF_MACHINES
        assert block.how == "not run" or all(f'"{word}"' in text for word in wanted), (
            f"{block.page}:{block.line}"
        )


def test_commands_are_in_blocks_that_say_so() -> None:
    """A block without a language is a transcript, which nobody runs."""
    typed = re.compile(r"(tallyhook|curl|claude|pip|docker) ")
    for path in pages():
        for found in BLOCK.finditer(path.read_text()):
            assert found["language"] or not typed.match(found["text"]), f"{path.name}: {found['text'][:60]}"


def test_a_block_that_nobody_runs_is_seen() -> None:
    why = "<!-- not run: it needs a cluster of its own -->"
    text = f"{why}\n```console\n$ a\n```\n\n```bash\nb 'c\nd'\n```\n\n```\nx\n```\n"
    found = blocks_of(text, "page")
    assert [(one.how, one.lines) for one in found] == [("not run", ("a",)), ("", ("b 'c", "d'"))]
    assert blocks_of("```console\n$ a 'b\nc'\nsaid\n# d\n```\n", "page")[0].lines == ("a 'b\nc'", "d")


@pytest.fixture(scope="module")
def command_line() -> Any:
    import app.cli.main

    return typer.main.get_command(app.cli.main.app)


def emulator_command() -> Any:
    from app.emulator.cli.command import emulator

    application = typer.Typer()
    application.command()(emulator)
    return typer.main.get_command(application)


def test_every_command_of_ours_is_one_with_the_options_it_has(command_line: Any) -> None:
    commands = tallyhook_commands()
    assert len(commands) > 80
    for place, words in commands:
        found = command_line
        while words and hasattr(found, "commands") and words[0] in found.commands:
            found, *words = found.commands[words[0]], *words[1:]
        assert found is not command_line or words[:1] in ([], ["--version"], ["--help"]), f"{place}: {words}"
        if found.name == "emulator":  # loaded when it is run
            found = emulator_command()
        options = {
            name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)
        }
        used = {word.partition("=")[0] for word in words if re.fullmatch(r"--?[a-z][\w-]*(=.*)?", word)}
        assert used <= options | {"--help"}, f"{place}: {found.name} has no {used - options}"
