"""`tallyhook init`: a .env that sets nothing, for its owner alone, and never in the place of another."""

import json
import os
import stat
from pathlib import Path

import pytest
import typer

from app.cli.init import command
from app.cli.init.command import fault_of
from app.cli.init.dotenv import SECTIONS, dotenv_text
from app.cli.main import run
from app.config import known_variables, load_settings

SECRET = "sk_live_hush5ecret"


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in known_variables():
        monkeypatch.delenv(name, raising=False)


def test_it_sets_nothing_and_belongs_to_its_owner(capsys: pytest.CaptureFixture[str]) -> None:
    unset = load_settings(_env_file=None)
    assert run(["init", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["set"], told["path"]) == ([], str(Path(".env").absolute()))
    assert stat.S_IMODE(os.stat(".env").st_mode) == 0o600
    assert load_settings() == unset


def test_what_is_there_stays(capsys: pytest.CaptureFixture[str]) -> None:
    Path(".env").write_text("PORT=9001\n")
    assert run(["init"]) == 1
    assert "tallyhook doctor says what is missing" in capsys.readouterr().err.replace("\n", " ")
    assert Path(".env").read_text() == "PORT=9001\n"
    Path(".env").unlink()
    Path(".env").symlink_to("elsewhere")
    assert run(["init"]) == 1
    assert not Path("elsewhere").exists()


def test_each_example_is_a_setting_that_can_be_used() -> None:
    names = [name for _, settings in SECTIONS for name, _, _ in settings]
    assert set(names) <= known_variables().keys()
    lines = dotenv_text({}).splitlines()
    examples = [line[1:] for line in lines if line.startswith("#") and line[1:2].isupper()]
    assert len(examples) == len(names)
    Path(".env").write_text("\n".join(examples))
    settings = load_settings()
    assert settings.model_fields_set >= {known_variables()[name] for name in names}
    assert max(map(len, lines)) <= 120


def test_a_terminal_is_asked_until_the_answer_can_be_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = iter([f"{SECRET} and more", SECRET, "", "hooks.example", "https://hooks.example"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr(command, "_typed", lambda *_, **__: next(answers))
    assert run(["init"]) == 0
    told = capsys.readouterr()
    assert "CLORO_API_KEY has a blank" in told.err
    assert "PUBLIC_URL is not an http address" in told.err
    assert SECRET not in told.err + told.out
    settings = load_settings()
    assert settings.api_key == SECRET
    assert settings.public_url == "https://hooks.example"
    assert not settings.webhook_secrets


def test_whoever_ends_the_questions_finds_nothing_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ended(*_: object, **__: object) -> str:
        raise typer.Abort

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.prompt", ended)
    assert run(["init"]) == 130
    assert ".env is not written" in capsys.readouterr().err
    assert not Path(".env").exists()


@pytest.mark.parametrize("value", ["a$b", 'a"b', "a#b", "a\\b", "a'b"])
def test_what_the_file_would_read_otherwise_is_not_written(value: str) -> None:
    assert "write it into .env yourself" in fault_of("CLORO_API_KEY", value)
