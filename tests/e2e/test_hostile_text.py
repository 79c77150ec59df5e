"""What other people wrote (names, sources, reasons) is shown as it stands, and obeyed by no terminal."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from app.cli.main import run
from app.cli.store_access import opened_store
from app.config import load_settings
from app.domain.text import json_text, sanitize
from app.store import Store

HOSTILE = "[red]x[/red] [/] [link=http://x]\\ :warning: \x1b[31m\x1b]0;title\x07\x9b2J\u202etxt.exe\u2066\r"
SHOWN = r"[red]x[/red] [/] [link=http://x]\ :warning: \x1b[31m\x1b]0;title\x07\x9b2J\u202etxt.exe\u2066\x0d"
OBEYED = ("\x1b", "\x07", "\x9b", "\u202e", "\u2066", "\r")
COMMANDS = (
    "runs",
    "status {run}",
    "report {run}",
    "certificate {run}",
    "forecast {run}",
    "export {run} -o out.csv",
    "dispute {run}",
    "pause {run}",
    "resume {run}",
    "retry {run}",
    "watch {run}",
    "cancel {run}",
    "adjust {run} --credits 1 --reason x",
    "schedule list",
    "verify {run}",
    "notices",
    "doctor",
)
WITHOUT_NAME = (
    "verify",
    "notices",
    "doctor",
    "adjust",
    "certificate",
    "forecast",
    "watch",
    "export",
    "schedule",
)
"""Or with it broken over lines."""


@pytest.fixture
def run_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run and a schedule of that name, as a version that took any name left them."""
    monkeypatch.chdir(tmp_path)
    for name in ("DATABASE_URL", "REDIS_URL", "PUBLIC_URL", "CLORO_API_KEY", "CLORO_WEBHOOK_SECRET"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "good.csv").write_text("prompt,task_type,country\nIs Monzo safe?,GEMINI,GB\n")
    assert run(["submit", "good.csv", "--name", "plain"]) == 0

    async def rename(store: Store) -> str:
        import sqlalchemy as sa

        from app.store.tables import runs

        (found,) = await store.queries.find_runs("plain")
        await store.db.write(lambda c: c.execute(sa.update(runs).values(name=HOSTILE, source=HOSTILE)))
        await store.schedules.add_schedule(
            name=HOSTILE, source=HOSTILE, options="{}", every_ms=86_400_000, next_at_ms=0, now_ms=0
        )
        return found.id

    async def opened() -> str:
        async with opened_store(load_settings(_env_file=None)) as store:
            return await rename(store)

    return asyncio.run(opened())


def test_f27_no_command_lets_a_name_reach_a_terminal(
    run_id: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.terminal.WIDTH", 2_000)
    capsys.readouterr()
    for command in COMMANDS:
        line = command.format(run=run_id).split()
        if command.startswith("watch"):
            assert run(["pause", run_id]) in (0, 1)
        code = run(line)
        text = "".join(capsys.readouterr())
        assert code in (0, 1), (command, text)
        assert not [mark for mark in OBEYED if mark in text], (command, text)
        if command.split()[0] not in WITHOUT_NAME:
            assert SHOWN in text.replace("\n", " "), (command, text)


def test_f27_json_says_the_same_in_escapes(run_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(["status", run_id, "--json"]) == 0
    text = capsys.readouterr().out
    assert not [mark for mark in OBEYED if mark in text]
    assert json.loads(text)["run"]["name"] == HOSTILE


def test_f27_a_usage_error_quotes_nothing_that_is_obeyed(
    run_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in (
        ["runs", HOSTILE],
        [HOSTILE],
        ["status", HOSTILE + "!"],
        ["submit", HOSTILE],
        ["watch", HOSTILE[2:]],
    ):
        capsys.readouterr()
        assert run(line) in (1, 2)
        text = "".join(capsys.readouterr())
        assert not [mark for mark in OBEYED if mark in text], (line, text)


@pytest.mark.parametrize(
    "character", ["\ud83d", "\x7f", "\u2028", "\x00", "é", "日", "😀", "\u200d", "\t", "\n"]
)
def test_f27_what_is_escaped_in_json_is_what_it_was(character: str) -> None:
    for encoding in ("utf-8", "latin-1", "ascii"):
        text = json_text({"name": f"a{character}b"}, encoding)
        assert json.loads(text.encode(encoding).decode(encoding))["name"] == f"a{character}b"
    kept = character in "é日😀\u200d\t\n"
    assert (sanitize(character) == character) == kept


def test_f27_logs_on_a_terminal_are_clean(capsys: pytest.CaptureFixture[str]) -> None:
    import io

    import structlog

    from app.log import configure

    before = structlog.get_config()
    out = io.StringIO()
    try:
        for format_ in ("console", "json"):
            configure(format_, stream=out)
            structlog.get_logger().warning("task_rejected", reason=HOSTILE)
    finally:
        structlog.configure(**before)
    assert "task_rejected" in out.getvalue()
    assert not [mark for mark in OBEYED if mark in out.getvalue()]
    assert sys.stderr is not out
