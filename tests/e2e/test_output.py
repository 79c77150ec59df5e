"""Output that cannot be written, of every command: what was done is told, and nothing counts as written that
is not."""

import json
import os
import re
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.e2e.forking import Forks, Ran
from tests.e2e.stack import TALLYHOOK

GOOD = "prompt,task_type,country\nIs Monzo safe?,GEMINI,GB\n"
MANY = 400
FULL = "/dev/full"
LOST = {
    "/dev/full": ({"out": FULL}, "No space left on device"),
    "closed": ({"out": "closed"}, "it is closed"),
    "pipe": ({"out": "broken"}, "nobody reads it any more"),
}
JSON = ((), ("--json",))


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Forks:
    """Commands in a directory with a run of many tasks, called `many`."""
    here = tmp_path_factory.mktemp("output")
    (here / "good.csv").write_text(GOOD)
    rows = "".join(f"Question {n} of these {MANY}?,GEMINI,GB\n" for n in range(MANY))
    (here / "many.csv").write_text(GOOD + rows)
    ready = Forks(here)
    assert ready.run("submit", "many.csv", "--name", "many").code == 0
    return ready


def runs_named(forked: Forks, name: str) -> list[str]:
    listed = json.loads(forked.run("runs", "--limit", "100", "--json").out)["runs"]
    return [one["run"]["id"] for one in listed if one["run"]["name"] == name]


FILES = (
    ("certificate many -o made.txt", "made.txt"),
    ("report many --html made.html", "made.html"),
    ("export many -o made.jsonl", "made.jsonl"),
)


@pytest.mark.parametrize("as_json", JSON, ids=("text", "json"))
@pytest.mark.parametrize("how", LOST)
@pytest.mark.parametrize(("line", "name"), FILES, ids=[line.split()[0] for line, _ in FILES])
def test_f8_a_file_is_whole_when_the_word_about_it_is_lost(
    forked: Forks, line: str, name: str, how: str, as_json: tuple[str, ...]
) -> None:
    redirected, reason = LOST[how]
    (forked.here / name).unlink(missing_ok=True)
    ran = forked.run(*line.split(), *as_json, **redirected)  # type: ignore[arg-type]
    assert (forked.here / name).stat().st_size > 0
    assert reason in checked_stderr(ran)
    assert ran.code == (0 if "Done: " in ran.err else 1)


@pytest.mark.parametrize("as_json", JSON, ids=("text", "json"))
def test_f7_a_question_that_was_asked_says_so_when_its_answer_is_lost(
    forked: Forks, as_json: tuple[str, ...]
) -> None:
    """Nobody listens where it is sent: it is in the books all the same, and is not to be asked again."""
    arguments = ("ask", "what?", "--engine", "chatgpt", "--country", "US", "--wait", "0", *as_json)
    env = {"CLORO_BASE_URL": "http://127.0.0.1:9", "CLORO_API_KEY": "sk_test_1"}
    ran = forked.run(*arguments, out=FULL, env=env)
    assert "has asked, and may be billed" in checked_stderr(ran)
    assert "No space left on device" in ran.err


def checked_stderr(ran: Ran) -> str:
    """Standard error, and that it blames neither a database nor a bug."""
    for word in ("database", "bug", "Traceback"):
        assert word not in ran.err, ran.err
    return ran.err


@pytest.mark.parametrize("as_json", JSON, ids=("text", "json"))
@pytest.mark.parametrize("how", LOST)
def test_f7_a_stored_run_is_reported_and_ends_with_0(
    forked: Forks, how: str, as_json: tuple[str, ...]
) -> None:
    name = f"{how}{as_json}"
    redirected, reason = LOST[how]
    ran = forked.run("submit", "good.csv", "--name", name, *as_json, **redirected)  # type: ignore[arg-type]
    (run_id,) = runs_named(forked, name)
    assert ran.code == 0
    assert f"run {run_id} is stored" in checked_stderr(ran)
    assert reason in ran.err


@pytest.mark.parametrize("as_json", JSON, ids=("text", "json"))
def test_f7_a_script_that_tries_again_pays_once(forked: Forks, as_json: tuple[str, ...]) -> None:
    for _ in range(3):
        name = f"once{as_json}"
        if forked.run("submit", "good.csv", "--name", name, *as_json, out="closed", err="closed").code == 0:
            break
    assert len(runs_named(forked, name)) == 1
    # Standard output alone says it, too.
    heard = f"heard{as_json}"
    ran = forked.run("submit", "good.csv", "--name", heard, *as_json, err="closed")
    assert ran.code == 0
    assert runs_named(forked, heard)[0].encode() in ran.out


@pytest.mark.parametrize("as_json", JSON, ids=("text", "json"))
@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "ascii:strict", "cp1252"])
def test_f7_a_character_that_the_encoding_has_not_loses_nothing(
    forked: Forks, encoding: str, as_json: tuple[str, ...]
) -> None:
    name = f"q3 → q4 😀 {encoding}{len(as_json)}"
    env = {"PYTHONIOENCODING": encoding}
    encoding = encoding.partition(":")[0]
    env["PYTHONIOENCODING"] = encoding
    ran = forked.run("submit", "good.csv", "--name", name, *as_json, env=env)
    assert (ran.code, ran.err) == (0, "")
    text = ran.out.decode(encoding)
    if as_json:
        assert json.loads(text)["run"]["name"] == name
    else:
        assert r"q3 \u2192 q4 \U0001f600" in text


def test_f7_a_run_that_is_watched_ends_otherwise_than_one_that_is_not_stored(forked: Forks) -> None:
    """It is paused meanwhile, as by a worker that finds no credits left."""
    command = [TALLYHOOK, "submit", "good.csv", "--name", "watched", "--watch"]
    with subprocess.Popen(
        command, cwd=forked.here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as submit:
        assert submit.stdout is not None
        assert submit.stderr is not None
        assert "watched" in submit.stdout.readline()
        assert forked.run("pause", "watched").code == 0
        assert submit.wait(60) == 3
        assert f"run {runs_named(forked, 'watched')[0]} is stored" in submit.stderr.read()


CHANGES = {
    "cancel": ("cancel {run}",),
    "pause": ("pause {run}",),
    "resume": ("pause {run}", "resume {run}"),
    "adjust": ("adjust {run} --credits 4 --reason refund",),
    "schedule add": ("schedule add good.csv --every 1d --name {name}",),
    "schedule pause": ("schedule add good.csv --every 1d --name {name}", "schedule pause {name}"),
    "schedule resume": (
        "schedule add good.csv --every 1d --name {name}",
        "schedule pause {name}",
        "schedule resume {name}",
    ),
    "schedule remove": ("schedule add good.csv --every 1d --name {name}", "schedule remove {name}"),
    "migrate": ("migrate",),
    "retry": ("retry {run}",),
    "inbox retry": ("inbox retry {run}",),
}
BEFOREHAND = {
    "retry": "UPDATE tasks SET state = 'rejected' WHERE run_id = ?",
    "inbox retry": "INSERT INTO deliveries (id, source, received_at_ms, encoding, body, state, tries, "
    "due_at_ms, error) VALUES (?, 'delivery', 1, 'identity', x'7b7d', 'quarantined', 1, 1, 'cut')",
}
"""What the commands find: nobody sends or delivers here."""


@pytest.mark.parametrize("command", CHANGES)
def test_f7_every_command_that_changes_something_says_so(forked: Forks, command: str) -> None:
    name = command.replace(" ", "-")
    run = json.loads(forked.run("submit", "good.csv", "--name", name, "--json").out)["run"]["id"]
    *before, last = [line.format(run=run, name=name).split() for line in CHANGES[command]]
    for arguments in before:
        assert forked.run(*arguments).code == 0
    if command in BEFOREHAND:
        # The delivery gets the id of the run: ids are ids.
        with sqlite3.connect(forked.here / ".tallyhook" / "tallyhook.db") as database:
            database.execute(BEFOREHAND[command], (run.replace("-", ""),))
    ran = forked.run(*last, out=FULL)
    assert ran.code == 0
    assert "Done: " in checked_stderr(ran)
    assert run in ran.err or command == "migrate" or (command.startswith("schedule") and name in ran.err)


READS = (
    "--help",
    "runs --help",
    "runs",
    "status many",
    "report many",
    "export many",
    "export many --format csv",
    "certificate many",
    "verify many",
    "schedule list",
    "notices",
    "dispute many",
    "runs --limit x --json",
    "export many -o whole.jsonl",
    "report many --html whole.html",
    "emulator --help",
    "forecast many",
    "watch halted-for-good",
    "plan",
    "audit --account none --json",
    "doctor",
)
EITHER_WAY = ("--help", "runs --help", "emulator --help", "export many --format csv", "watch halted-for-good")


@pytest.mark.parametrize("line", READS)
def test_f8_no_command_ends_with_0_when_its_output_is_lost(forked: Forks, line: str) -> None:
    if "halted" in line:
        forked.run("submit", "good.csv", "--name", "halted-for-good")
        forked.run("cancel", "halted-for-good")
    arguments = line.split()
    as_json = [] if "--json" in line or line in EITHER_WAY else ["--json"]
    ran = forked.run(*arguments, *as_json, out=FULL)
    assert ran.code in (1, 2)
    assert "standard output could not be written: No space left on device" in checked_stderr(ran).replace(
        "\n", " "
    )


@pytest.mark.parametrize("line", ["export many", "export many --format csv", "export many --what ledger"])
def test_f8_an_export_is_whole_or_ends_with_1(forked: Forks, line: str) -> None:
    whole = forked.run(*line.split()).out
    # The run of 400 has no ledger yet: its export is short enough to be written.
    limit = 20 * 1024
    # Somebody else is at the database, or SQLite could not even make its own files under this limit.
    with sqlite3.connect(forked.here / ".tallyhook" / "tallyhook.db") as held:
        held.execute("SELECT count(*) FROM runs").fetchall()
        for env in ({}, {"PYTHONUNBUFFERED": "1"}):
            ran = forked.run(*line.split(), file_bytes_max=limit, env=env)
            assert ran.out == whole[:limit]
            assert ran.code == (1 if len(whole) > limit else 0)
            assert ("File too large" in checked_stderr(ran)) == (len(whole) > limit)


def test_f8_a_pipe_that_does_not_block_is_waited_for(forked: Forks) -> None:
    whole = forked.run("export", "many").out
    assert len(whole) > 128 * 1024
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    (forked.here / "slow").unlink(missing_ok=True)
    with subprocess.Popen([TALLYHOOK, "export", "many"], cwd=forked.here, stdout=writer) as export:
        os.close(writer)
        with os.fdopen(reader, "rb", buffering=0) as pipe:
            taken = b""
            while part := pipe.read(4096):
                taken += part
    assert (export.returncode, taken) == (0, whole)


@pytest.mark.parametrize("line", ["submit - --name nothing", "submit - --name nothing --json"])
def test_f26_standard_input_that_is_closed_is_a_usage_error(forked: Forks, line: str) -> None:
    ran = forked.run(*line.split(), stdin="closed")
    assert ran.code == 2
    assert "cannot read standard input: it is closed" in checked_stderr(ran) + ran.out.decode()
    assert runs_named(forked, "nothing") == []


def test_f7_through_the_shell(forked: Forks) -> None:
    """The same by the console script itself, as people meet it."""
    script = f"{TALLYHOOK} submit good.csv --name shell --json | true; echo ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", script], cwd=forked.here, capture_output=True, text=True, check=True)
    (run_id,) = runs_named(forked, "shell")
    assert ran.stdout == "0\n"
    # Unless it was faster than `true`, which then has read nothing either.
    assert ran.stderr == "" or re.search(f"run {run_id} is stored", ran.stderr)


def test_the_databases_descriptor_is_never_standard_output(forked: Forks, tmp_path: Path) -> None:
    """With all three closed, the database would be opened as descriptor 0, 1 or 2, and be printed into."""
    for name in ("a", "b"):
        ran = forked.run("submit", "good.csv", "--name", name, out="closed", err="closed", stdin="closed")
        assert ran.code == 0
    for name in ("a", "b"):  # not --all: other tests alter rows of their runs
        assert json.loads(forked.run("verify", name, "--json").out)["equal"]
