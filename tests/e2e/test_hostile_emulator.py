"""The emulator's own options with values that nobody expects: asked for wrongly, in words, and before it
listens."""

import contextlib
import io
import sys
from pathlib import Path

import pytest

from app.cli.main import run
from tests.e2e.test_hostile_options import NUMBERS, TEXTS

NUMERIC = (
    "--port",
    "--time-scale",
    "--concurrency",
    "--rate-limit",
    "--credits",
    "--seed",
    "--fail",
    "--duplicate",
    "--drop",
    "--shuffle",
    "--wrong-charge",
    "--lose-response",
    "--internal-retry",
    "--delivery-timeout",
    "--deliveries-in-flight",
    "--queue-max",
    "--book-lines",
)
WRONG = (
    *(
        f"--switch={text}"
        for text in (
            "",
            "=",
            "__class__=1",
            "__init__=1",
            "leniency=1",
            "ladder_jitter=nan",
            "lookup_by_key=perhaps",
            "ladder_jitter=7",
        )
    ),
    *(
        f"--fault={text}"
        for text in (
            "",
            "__class__=x",
            "fail=nan",
            "fail=7",
            "fail=-1",
            "fail=",
            "seed=x",
            "shuffle_s=inf",
            "shuffle_s=-3",
            "retry_after_s=1e9",
            f"seed={2**63}",
        )
    ),
    "--host=",
    "--host=a b",
    f"--host={'x' * 300}",
    "--key=",
    "--key=a\nb",
    "--key=é",
    "--port=65536",
    "--port=-1",
    "--time-scale=1e308",
    f"--book-lines={'9' * 23}",
    f"--credits={'9' * 23}",
    "--shuffle=inf",
    "--delivery-timeout=inf",
    "--nonsense",
    "nonsense",
)
FILES = {
    "nested": b"[" * 100_000,
    "bytes": b"\xff\xfe",
    "empty": b"",
    "credits": b'{"organizations": [{"name": "a", "credits": 99999999999999999999999}]}',
    "digits": b'{"organizations": [{"name": "a", "credits": ' + b"9" * 5_000 + b"}]}",
    "slots": b'{"organizations": [{"name": "a", "slots": 0}]}',
    "prices": b'{"organizations": [{"name": "a", "prices": {"CHATGPT": -5}}]}',
    "key": b'{"organizations": [{"name": "a", "keys": [{"key": ""}]}]}',
    "plan": b'{"organizations": [{"name": "a", "plan": "\\u001b[31m"}]}',
}


def refused(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """What is said about what it does not begin with."""
    monkeypatch.setattr("app.emulator.cli.command.run", lambda *_: pytest.fail(f"{arguments} was taken"))
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(["emulator", *arguments])
        for stream in (sys.stdout, sys.stderr):
            drain = getattr(stream, "drain", None)
            assert drain is None or drain()
    text = out.getvalue() + err.getvalue()
    assert code == 2, (arguments, code, text)
    for word in ("Traceback", "bug", "\x1b", "\u202e"):
        assert word not in text, (arguments, text)
    return text


@pytest.mark.parametrize("option", NUMERIC)
def test_f26_no_number_of_the_emulator_is_out_of_range(monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    taken = {"--seed": ("-1",), "--credits": ("-1", "9223372036855")}.get(option, ())
    for value in (*NUMBERS, *TEXTS):
        # Which pydantic reads as Python does.
        if value in ("1_000", "२", *taken) or (option == "--seed" and value == "9223372036855"):
            continue
        refused(monkeypatch, f"{option}={value}")


@pytest.mark.parametrize("argument", WRONG)
def test_f26_the_emulator_says_what_it_does_not_take(monkeypatch: pytest.MonkeyPatch, argument: str) -> None:
    assert "Invalid" in refused(monkeypatch, argument) or "nonsense" in argument


@pytest.mark.parametrize("name", FILES)
def test_f26_a_file_of_organizations_that_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("setup.json").write_bytes(FILES[name])
    assert "setup.json: " in refused(monkeypatch, "--organizations", "setup.json")


def test_f26_a_file_of_organizations_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cannot read" in refused(monkeypatch, "--organizations", "/proc/self/mem")
