"""Names, refusals and signals of a first hour, through the command line."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.cli.runs.submit_file import default_name
from app.services.load import CHUNK
from tests.e2e.stack import TALLYHOOK
from tests.e2e.test_cli import ENVIRONMENT, Cli, cli, here, restored_logging

__all__ = ["cli", "here", "restored_logging"]

HEADER = "prompt,task_type,country\n"
MANY = HEADER + "".join(f"q{n},CHATGPT,US\n" for n in range(CHUNK + 100))
LONG = MANY.replace(",CHATGPT", f" {'long' * 250},CHATGPT")
"""More than anybody reads ahead to find out what it is."""


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", ""),
        ("promt,tsk_type\nq,GEMINI\n", ""),
        (HEADER + "q,NOPE,US\n", ""),
        (MANY + "q,NOPE,US\n", "--strict"),
        (MANY + "q7,CHATGPT,US\n", "--duplicates error"),
        (MANY, "--name latest"),
        (MANY, "--name -x"),
        (MANY, "--task-type NOPE"),
        (MANY, "--resume latest"),
        (MANY, "--name taken"),
    ],
)
def test_a_submit_that_is_refused_changes_nothing(cli: Cli, here: Path, text: str, options: str) -> None:
    cli("submit good.csv --name taken")
    before = cli("runs --json").document
    (here / "p.csv").write_text(text)
    refused = cli(f"submit p.csv {options} --json")
    assert refused.code in (1, 2)
    error = refused.document["error"]
    assert error.get("remedy") or "; use" in error["message"] or error["code"] == "usage"
    assert cli("runs --json").document == before
    assert cli("status --json").document["run"]["name"] == "taken"


def test_a_name_is_one_run_s_unless_it_is_asked_for_again(cli: Cli) -> None:
    first = cli("submit good.csv --name monday --json").document["run"]["id"]
    error = cli("submit good.csv --name monday --json").document["error"]
    assert (error["code"], error["details"][0]["id"]) == ("name_taken", first)
    assert "--again" in error["remedy"]
    again = cli("submit good.csv --name monday --again --json").document["run"]
    assert (again["name"], again["id"] != first) == ("monday", True)
    names = {cli("submit good.csv --json").document["run"]["name"] for _ in range(3)}
    assert len(names) == 3, "by itself no run takes the name of another"


def test_a_file_that_is_not_there_is_answered_with_names_that_are(cli: Cli) -> None:
    assert cli("submit Godo.csv --json").document["error"]["remedy"].startswith("did you mean good.csv")
    assert "no directory" in cli("submit nowhere/good.csv --json").document["error"]["remedy"]
    assert "a file in it" in cli("submit . --json").document["error"]["remedy"]


def test_a_redis_that_is_not_there_is_named_and_loses_nothing(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://me:secret@127.0.0.1:1")
    submitted = cli("submit good.csv")
    assert submitted.code == 0
    assert "Redis at redis://me:***@127.0.0.1:1/ was not reached" in submitted.err
    assert "check REDIS_URL" in submitted.err and "wake_failed" not in submitted.err
    assert "secret" not in submitted.err + submitted.out


def test_an_export_into_no_directory_says_how_to_make_it(cli: Cli, here: Path) -> None:
    cli("submit good.csv")
    assert (
        f"mkdir -p {here / 'no'}" in cli("export latest --output no/file --json").document["error"]["remedy"]
    )


def test_a_run_is_called_by_one_state_everywhere(cli: Cli) -> None:
    run_id = cli("submit good.csv --name monday --json").document["run"]["id"]
    for change, word in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        cli(f"{change} {run_id}")
        [listed] = cli("runs --json").document["runs"]
        states = [listed["run"]["state"]]
        states += [cli(f"{name} {run_id} --json").document["run"]["state"] for name in ("status", "report")]
        assert states == [word] * 3
        assert all(word in cli(f"{line} {run_id}").out for line in ("status", "report")), word
        assert word in cli("runs").out
    assert word in cli(f"retry {run_id} --json").document["error"]["message"]


@contextlib.contextmanager
def command(here: Path, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A command in a process of its own, without a terminal."""
    env = {k: v for k, v in os.environ.items() if k not in ENVIRONMENT and not k.startswith("TALLYHOOK_")}
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen(
        [TALLYHOOK, *arguments],
        cwd=here,
        env=env,
        # Whatever these tests themselves were started by: a shell has Ctrl-C ignored in its background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **pipes,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until_loading(cli: Cli) -> None:
    """Wait until a run has its first tasks."""
    deadline = time.monotonic() + 30
    while not any(run["tasks"] for run in cli("runs --json").document["runs"]):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_submit_that_is_ended_while_it_reads_can_be_gone_on_with(
    cli: Cli, here: Path, number: signal.Signals
) -> None:
    with command(here, "submit", "-", "--name", "monday") as process:
        assert process.stdin is not None
        process.stdin.write(LONG.encode())
        process.stdin.flush()
        until_loading(cli)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    short = cli("runs --json").document["runs"][0]["run"]["id"][-8:]
    if number is signal.SIGTERM:
        assert process.returncode == 128 + number
        assert f"submit FILE --resume {short} goes on with it" in err.decode()
    assert f"submit FILE --resume {short} goes on" in cli("runs").out
    assert cli("status --json").document["error"]["code"] == "run_not_found", "nothing was sent yet"
    assert "--resume" in cli("submit good.csv --name monday --json").document["error"]["remedy"]
    resumed = cli("submit - --resume latest --json", LONG).document
    assert (resumed["run"]["name"], resumed["run"]["state"]) == ("monday", "running")
    assert (resumed["tasks"], resumed["resumed_after"]) == (CHUNK + 100, CHUNK)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow)]
)
def test_watching_ends_with_a_word_about_the_run_that_goes_on(
    cli: Cli, here: Path, number: signal.Signals, code: int
) -> None:
    run_id = cli("submit good.csv --name monday --json").document["run"]["id"]
    with command(here, "watch", "monday", "--json") as process:
        assert process.stderr is not None
        first = process.stderr.readline().decode()
        assert "monday: running, 0 of 2 tasks in (0 %); 2 to send, 0 credits; no worker" in first
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
    error = json.loads(out)["error"]
    assert (process.returncode, error["code"]) == (code, "interrupted")
    assert "run monday goes on: 0 of 2 tasks are in" in error["message"]
    assert f"tallyhook watch {run_id[-8:]}" in error["remedy"]


@pytest.mark.parametrize(
    ("file", "begins"),
    [("monday.csv.gz", "monday-2026"), ("v1.2.csv", "v1.2-2026"), ("a.GZ", "a-2026"), (".gz", ".gz-2026")],
)
def test_a_run_is_named_after_its_file_without_its_endings(file: str, begins: str) -> None:
    assert default_name(Path(file), 1_790_000_000_000).startswith(begins)
