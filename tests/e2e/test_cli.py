"""The command line on an embedded SQLite file, without servers: what it prints, and how it ends."""

import asyncio
import codecs
import contextlib
import csv
import gzip
import io
import json
import logging
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from app.cli.main import app, run
from app.cli.store_access import opened_store
from app.config import load_settings
from app.domain.run_reason import ReasonCode, RunReason
from app.domain.task import RunState
from app.store import Store

COMMANDS = sorted(str(command.name) for command in app.registered_commands)
GOOD = "prompt,task_type,country\nIs Monzo safe?,GEMINI,GB\n=1+1 is what?,CHATGPT,US\n"
BAD = GOOD + "Who is it?,NOPE,US\n"
ENVIRONMENT = (
    "DATABASE_URL",
    "REDIS_URL",
    "PORT",
    "PUBLIC_URL",
    "CLORO_API_KEY",
    "CLORO_BASE_URL",
    "CLORO_WEBHOOK_SECRET",
)


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Its one JSON document."""
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """The commands send all logs to a standard error that is gone after the test."""
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**before)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory, and an environment in which nothing is set."""
    monkeypatch.chdir(tmp_path)
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "good.csv").write_text(GOOD)
    (tmp_path / "bad.csv").write_text(BAD)
    return tmp_path


@pytest.fixture
def cli(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ended]:
    """Runs a command line in this process."""

    def call(line: str, stdin: str = "") -> Ended:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        code = run(line.split())
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return call


Cli = Callable[..., Ended]


def on_store(work: Callable[[Store], Awaitable[Any]]) -> Any:
    """What the workers would have done."""

    async def opened() -> Any:
        async with opened_store(load_settings()) as store:
            return await work(store)

    return asyncio.run(opened())


def test_a_run_can_be_submitted_and_read(cli: Cli) -> None:
    submitted = cli("submit good.csv --name monday --json").document
    assert (submitted["tasks"], submitted["bad_lines"], submitted["woken"]) == (2, [], False)
    assert submitted["credits"] == {"estimate": 9}
    run_id = submitted["run"]["id"]

    (listed,) = cli("runs --json").document["runs"]
    status = cli("status monday --json").document
    worker, waits = status.pop("worker"), status.pop("waits")
    assert waits == [f"{worker['message']}: run tallyhook up, or start tallyhook worker"]
    assert (worker["running"], worker["last_seen_at"]) == (False, None)
    assert submitted["worker"] == worker
    assert f"{waits[0]}; nothing is sent before" in submitted["next"], "the same remedy everywhere"
    assert listed == status
    assert (status["run"]["id"], status["run"]["state"], status["open"]) == (run_id, "running", 2)
    assert status["states"]["pending"] == 2
    assert status["finished"] is False

    report = cli("report latest --json").document
    assert (report["tasks"], report["completed"], report["verdicts"]["matched"]) == (2, 0, 0)
    assert report["credits"] == {"estimate": 9, "charged": 0, "held": 0, "posted": 0, "voided": 0}
    assert report["findings"] == []


def test_a_person_reads_the_same(cli: Cli) -> None:
    submitted = cli("submit good.csv --name monday")
    assert submitted.code == 0
    assert "(monday): 2 tasks, 9 credits" in submitted.out
    assert "tallyhook watch" in submitted.out
    assert "run tallyhook up, or start tallyhook worker; nothing is sent before" in submitted.out
    assert "monday" in cli("runs").out
    assert "pending 2" in cli("status").out
    assert "posted 0" in cli("report monday").out


def test_before_the_first_run_the_commands_say_so(cli: Cli) -> None:
    assert "tallyhook submit FILE" in cli("runs").out
    ended = cli("status --json")
    assert (ended.code, ended.document["error"]["code"]) == (1, "run_not_found")


def test_bad_lines_are_named_and_the_rest_goes_on(cli: Cli) -> None:
    document = cli("submit bad.csv --json").document
    assert (document["tasks"], document["bad_lines_count"]) == (2, 1)
    (bad,) = document["bad_lines"]
    assert (bad["line"], bad["field"]) == (4, "task_type")
    assert "CHATGPT" in bad["remedy"]
    assert document["run"]["bad_lines"] == 1
    assert "line 4, task_type: 'NOPE'" in cli("submit bad.csv").out


def test_a_file_of_excel_is_read_and_what_was_taken_for_granted_is_said(cli: Cli, here: Path) -> None:
    sheet = "Prompt;Engine;Country\r\nWelches Café, in Köln?;chat gpt;DE\r\nx;grok;UK\r\n"
    (here / "umfrage.csv").write_bytes(sheet.encode("cp1252"))
    ended = cli("submit umfrage.csv --json")
    said = "umfrage.csv is read as Windows text (cp1252), columns separated by semicolons (--encoding and "
    assert ended.err == f"{said}--delimiter can say otherwise)\n"
    assert ended.document["read_as"] == ended.err.strip()
    (bad,) = ended.document["bad_lines"]
    assert bad["message"] == "line 3, country: 'UK' is not a country code; use GB"
    (task,) = [json.loads(text) for text in cli("export latest").out.splitlines()]
    assert (task["payload"]["prompt"], task["task_type"]) == ("Welches Café, in Köln?", "CHATGPT")
    forced = cli("submit umfrage.csv --encoding cp1252 --delimiter semicolon")
    assert forced.err == ""
    wrong = cli("submit umfrage.csv --encoding klingon --json").document["error"]
    assert wrong["message"].startswith(
        "encoding: 'klingon' is no encoding that can be read; use utf-8, cp1252"
    )
    assert cli("schedule add umfrage.csv --every 1h --delimiter ;; --json").code == 2


def test_a_packed_file_that_breaks_off_is_refused(cli: Cli, here: Path) -> None:
    (here / "cut.csv.gz").write_bytes(gzip.compress(GOOD.encode())[:-9])
    ended = cli("submit cut.csv.gz")
    assert ended.code == 2
    assert "cut.csv.gz: its gzip data breaks off after 0 bytes unpacked" in ended.err.replace("\n", " ")
    assert "Remedy: copy or make it again" in ended.err


def test_strict_sends_nothing_of_a_file_with_a_bad_line(cli: Cli) -> None:
    ended = cli("submit bad.csv --strict --json")
    assert ended.code == 1
    assert ended.document["error"]["code"] == "bad_lines"
    assert ended.document["error"]["details"][0]["line"] == 4
    assert cli("runs --json").document == {"runs": []}
    assert "line" not in cli("submit good.csv --strict").err


def test_standard_input_is_read(cli: Cli) -> None:
    line = json.dumps({"prompt": "Is Monzo safe?"}) + "\n"
    document = cli("submit - --task-type gemini --country GB --include markdown --json", line).document
    assert (document["tasks"], document["run"]["source"]) == (1, "-")
    (task,) = [json.loads(text) for text in cli("export latest").out.splitlines()]
    assert task["payload"] == {"prompt": "Is Monzo safe?", "country": "GB", "include": {"markdown": True}}


@pytest.mark.parametrize(
    ("line", "code", "name"),
    [
        ("submit nofile.csv", 2, "unreadable"),
        ("submit .", 2, "unreadable"),
        ("submit good.csv --budget many", 2, "bad_option"),
        ("submit good.csv --budget -1", 2, "bad_option"),
        ("submit good.csv --country XX", 2, "bad_option"),
        ("submit good.csv --priority 11", 2, "usage"),
        ("submit", 2, "usage"),
        ("submit -", 1, "no_prompts"),
        ("status nosuchrun", 1, "run_not_found"),
        ("export --format xml", 2, "usage"),
        ("export --format csv", 2, "usage"),
        ("demo --prompts nofile.csv", 2, "usage"),
        ("demo .", 2, "not_empty"),
        ("nosuchcommand", 2, "usage"),
    ],
)
def test_mistakes_are_reported_without_a_traceback(cli: Cli, line: str, code: int, name: str) -> None:
    ended = cli(f"{line} --json")
    assert (ended.code, ended.document["error"]["code"]) == (code, name), ended
    if "--format csv" not in line:  # fine without --json, were there a run
        ran = cli(line)
        assert (ran.code, ran.out) == (code, "")
        assert "Traceback" not in ran.err
        assert "Error" in ran.err or "Usage" in ran.err


def test_a_run_is_found_by_name_id_and_parts_of_it(cli: Cli) -> None:
    first = cli("submit good.csv --name monday --json").document["run"]["id"]
    second = cli("submit good.csv --name tuesday --json").document["run"]["id"]
    for wanted in (first, first.upper(), first[-8:], first.replace("-", "")[-12:], "monday"):
        assert cli(f"status {wanted} --json").document["run"]["id"] == first
    assert cli("status latest --json").document["run"]["id"] == second


def test_an_ambiguous_name_is_answered_with_candidates(cli: Cli) -> None:
    line = "submit good.csv --name monday --again --json"
    ids = {cli(line).document["run"]["id"] for _ in range(2)}
    error = cli("report monday --json").document["error"]
    assert error["code"] == "run_ambiguous"
    assert {candidate["id"] for candidate in error["details"]} == ids
    ran = cli("report monday")
    assert ran.code == 1
    assert all(run_id in ran.err for run_id in ids)


def test_an_export_is_what_its_file_is_called(cli: Cli, here: Path) -> None:
    cli("submit good.csv --name monday")
    for name, begins in (
        ("a.csv", b"ordinal,"),
        ("A.CSV", b"ordinal,"),
        ("a.jsonl", b"{"),
        ("a.txt", b"{"),
        ("a.parquet", b"PAR1"),
    ):
        assert cli(f"export monday -o {name}").code == 0
        assert (here / name).read_bytes().startswith(begins), name
    assert cli("export monday -o b.csv --format jsonl").code == 0
    assert (here / "b.csv").read_bytes().startswith(b"{"), "what is asked for counts more"
    for options in ("--excel", "--format csv", ""):
        refused = cli(f"export monday {options} -o a.xlsx")
        assert refused.code == 2 and "let it end in .csv" in refused.err and not (here / "a.xlsx").exists()


def test_a_file_for_excel_begins_with_a_mark_and_says_what_excel_cuts(cli: Cli, here: Path) -> None:
    notes = ["  =1+1", "＝1+1", "＠x", "\u00a0-x", "plain = x"]
    rows = [{"prompt": "p", "engine": "grok", "country": "US", "note": note} for note in notes]
    (here / "notes.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    cli("submit notes.jsonl")
    assert cli("export latest --excel --format jsonl").code == 2
    ended = cli("export latest --excel --output notes.csv")
    assert (ended.code, ended.err) == (0, "")
    text = (here / "notes.csv").read_bytes()
    assert text.startswith(codecs.BOM_UTF8)
    found = [row["note"] for row in csv.DictReader(io.StringIO(text.decode("utf-8-sig")))]
    assert found == ["'  =1+1", "'＝1+1", "'＠x", "'\u00a0-x", "plain = x"]


def test_export_as_csv_keeps_formulas_out(cli: Cli, here: Path) -> None:
    cli("submit good.csv")
    written = cli("export latest --format csv --output out.csv --json").document
    assert (written["rows"], written["output"]) == (2, "out.csv")
    text = (here / "out.csv").read_text()
    assert text == cli("export latest --format csv").out
    first, second = csv.DictReader(io.StringIO(text))
    assert (first["prompt"], first["country"], first["credits_estimate"]) == ("Is Monzo safe?", "GB", "4")
    assert second["prompt"] == "'=1+1 is what?"
    assert (first["credits_charged"], first["state"]) == ("", "pending")
    assert list(here.glob("*.part")) == []


def test_export_to_a_place_that_is_not_there(cli: Cli) -> None:
    cli("submit good.csv")
    ended = cli("export latest --output no/such/file --json")
    assert (ended.code, ended.document["error"]["code"]) == (2, "unwritable")


def test_watch_ends_with_the_run(cli: Cli) -> None:
    run_id = cli("submit good.csv --json").document["run"]["id"]
    on_store(lambda store: store.runs.cancel_run(run_id, "not wanted"))
    ended = cli(f"watch {run_id} --json")
    assert ended.code == 0
    assert (ended.document["finished"], ended.document["states"]["cancelled"]) == (True, 2)


def test_watch_says_when_a_run_needs_a_person_and_resume_lets_it_go_on(cli: Cli) -> None:
    run_id = cli("submit good.csv --json").document["run"]["id"]
    refused = cli(f"resume {run_id} --json")
    assert (refused.code, refused.document["error"]["code"]) == (1, "not_halted")
    on_store(
        lambda store: store.runs.halt_run_if_running(
            run_id, RunState.PAUSED, RunReason(ReasonCode.BY_HAND, "no credits left")
        )
    )
    halted = cli("watch latest")
    assert halted.code == 1
    assert "no credits left" in halted.out
    resumed = cli(f"resume {run_id} --json").document
    assert (resumed["run"]["state"], resumed["run"]["reason"]) == ("running", None)


def test_a_database_of_the_users_own_is_left_to_migrate(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "sqlite:///own.db")
    unmigrated = cli("runs --json")
    assert (unmigrated.code, unmigrated.document["error"]["code"]) == (1, "database_not_migrated")
    assert "tallyhook migrate" in unmigrated.document["error"]["remedy"]
    migrated = cli("migrate --json").document
    assert migrated["from"] is None
    assert migrated["to"] == cli("migrate --json").document["from"]
    assert cli("runs --json").document == {"runs": []}


def test_a_database_of_another_program_is_left_alone(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "sqlite:///other.db")
    cli("migrate --json")
    with contextlib.closing(sqlite3.connect("other.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = 'ae1027a6acf0'")
        database.commit()
    for command, code in (("runs", "database_not_migrated"), ("migrate", "migration_failed")):
        ended = cli(f"{command} --json")
        assert (ended.code, ended.document["error"]["code"]) == (1, code)
    assert "ae1027a6acf0" in ended.document["error"]["message"]


@pytest.mark.parametrize("url", ["postgresql://tally:hush@127.0.0.1:1/none", "sqlite:////no/such/place/x.db"])
def test_a_database_that_does_not_answer(cli: Cli, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    ended = cli("runs --json")
    assert (ended.code, ended.document["error"]["code"]) == (1, "database_unreachable")
    assert "DATABASE_URL" in ended.document["error"]["remedy"]
    assert "hush" not in ended.out + ended.err


def test_a_wrong_setting_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "many")
    ended = cli("runs --json")
    assert (ended.code, ended.document["error"]["code"]) == (2, "configuration")
    assert "PORT" in cli("runs").err


def test_doctor_finds_what_is_missing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLORO_API_KEY", "sk_live_x")
    monkeypatch.setenv("CLORO_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("PORT", "1")
    ended = cli("doctor --json")
    states = {check["name"]: check["state"] for check in ended.document["checks"]}
    assert ended.code == 1
    assert ended.document["healthy"] is False
    assert states == {
        "API key": "ok",
        "webhook secret": "fault",
        "public URL": "fault",
        "database": "ok",
        "redis": "fault",
        "provider": "fault",
        "balance": "warning",
        "webhook": "fault",
    }
    assert all(check["remedy"] for check in ended.document["checks"] if check["state"] == "fault")
    assert "set PUBLIC_URL" in cli("doctor").out


# What mcp writes is the protocol's, and JSON already.
@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "mcp"])
def test_every_command_takes_json_and_explains_itself(cli: Cli, command: str) -> None:
    ended = cli(f"{command} --help")
    assert ended.code == 0
    assert "--json" in ended.out


def test_the_commands_are_those_of_the_documentation() -> None:
    assert set(COMMANDS) >= {
        "demo",
        "submit",
        "watch",
        "runs",
        "status",
        "report",
        "export",
        "resume",
        "web",
        "worker",
        "emulator",
        "migrate",
        "doctor",
    }


def test_help_does_not_wait_for_what_it_does_not_need() -> None:
    script = (
        "import sys; from app.cli.main import run; run(['--help']); "
        "sys.exit(bool({'sqlalchemy', 'aiohttp', 'arq', 'pydantic_settings'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0


def test_nobody_reads_the_output_any_more(here: Path) -> None:
    (here / "many.csv").write_text("prompt,task_type,country\n" + "x" * 5_000 + ",GEMINI,GB\n")
    tallyhook = [sys.executable, "-m", "app.cli.main"]
    subprocess.run([*tallyhook, "submit", "many.csv", "--json"], check=True, capture_output=True)
    with subprocess.Popen(
        [*tallyhook, "export"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as export:
        assert export.stdout is not None
        assert export.stderr is not None
        export.stdout.close()
        assert "Traceback" not in export.stderr.read()


def test_a_misspelt_setting_is_said_once_by_whatever_reads_settings(here: Path) -> None:
    (here / ".env").write_text("CLORO_APIKEY=sk_test_0123456789abcdef\n")
    environment = {"PATH": os.environ["PATH"], "HOME": str(here), "TALLYHOOK_SENDRES": "2"}
    for command in ("runs", "schedule list", "migrate"):
        told = subprocess.run(
            [sys.executable, "-m", "app.cli.main", *command.split()],
            env=environment, check=False, capture_output=True, text=True,
        ).stderr  # fmt: skip
        assert told.count("CLORO_APIKEY is no setting of this version: did you mean CLORO_API_KEY?") == 1
        assert told.count("TALLYHOOK_SENDRES is no setting of this version: did you mean") == 1


def test_to_retry_nothing_is_refused_in_words(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "one.csv").write_text("prompt,task_type,country\nx,GEMINI,GB\n")
    assert run(["submit", "one.csv", "--name", "one"]) == 0
    for line in ("retry one", "inbox retry --all", "pause one", "pause one"):
        last = run(line.split())
    capsys.readouterr()
    assert [run(line.split()) for line in ("retry one", "inbox retry --all", "pause one")] == [1, 1, 1]
    assert last == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "no task of run one that is expired, failed or rejected can be sent again" in told
    assert "nothing is set aside, and nothing is held up" in told


def test_what_is_one_is_told_as_one(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "one.csv").write_text("prompt,task_type,country\nx,GEMINI,GB\n")
    for line in ("submit one.csv --name one", "pause one", "export one -o o.csv", "verify", "cancel one"):
        assert run(line.split()) == 0
    assert run(["export", "one", "--remaining", "-o", "r.csv"]) == 0
    told = capsys.readouterr()
    assert re.search(r"\b1 (tasks|credits|runs|lines|records|rows|entries)\b", told.out + told.err) is None
    assert "1 task waits to be sent" in told.out
