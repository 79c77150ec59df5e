"""The commands, a process that is killed in the middle of them, and the worker's duty."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from app.cli import main
from app.domain.retention import DONE, OPEN
from app.domain.time_format import DAY_MS, iso_day
from app.provider.wire import read_answer
from app.store import Database, Store
from tests.clock import SteppedClock, wait_out_midnight
from tests.integration.prune.test_prune import receipts, standing, verify
from tests.integration.verify.scene import SECRET, Scene, make_scene

SLOWLY = """
import app.cli.retention
from app.cli import main
from app.store.write import pruning
pruning.BATCH, app.cli.retention.PAUSE_S = 1, 0.3
main.run(["prune"])
"""


@pytest.fixture
def environment(store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Old books in a database of the user's own, and a policy."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", store_url)
    monkeypatch.setenv("CLORO_API_KEY", "sk_test")
    monkeypatch.setenv("CLORO_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("TALLYHOOK_KEEP_BODIES_DAYS", "10")
    return store_url


async def with_store(url: str, work: Any) -> Any:
    store = Store(Database(url), read_answer)
    try:
        return await work(store)
    finally:
        await store.close()


def old_scene(url: str) -> Scene:
    wait_out_midnight()
    clock = SteppedClock(round(time.time() * 1000) // DAY_MS * DAY_MS - 40 * DAY_MS)
    scene: Scene = asyncio.run(with_store(url, lambda store: make_scene(store, clock)))
    return scene


def documents(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    assert main.run([*arguments, "--json"]) == code
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_the_commands(environment: str, capsys: pytest.CaptureFixture[str]) -> None:
    old_scene(environment)
    retained = documents(capsys, "retain", "second")
    assert documents(capsys, "retain", "second")["run"] == retained["run"], "asking twice changes nothing"
    assert documents(capsys, "status", "second")["run"]["retained_at"] is not None
    assert main.run(["status", "second"]) == 0
    assert "nothing of it is pruned" in capsys.readouterr().out
    digests = documents(capsys, "certificate", "scene", code=1)

    planned = documents(capsys, "prune", "--dry-run")
    assert planned["days"][0]["kept"] == {"disputed": 6, "open": 1, "retained": 1}
    assert documents(capsys, "prune", "--dry-run")["days"] == planned["days"]
    pruned = documents(capsys, "prune")
    assert pruned["days"] == [planned["days"][0] | {"credits_charged": pruned["days"][0]["credits_charged"]}]
    assert documents(capsys, "prune")["days"] == [], "all that may go is gone"
    assert documents(capsys, "retain", "second", "--release")["run"]["retained_at"] is None
    assert main.run(["prune"]) == 0
    assert "1 row with" in capsys.readouterr().out

    verified = documents(capsys, "verify", "--all")
    assert (verified["equal"], verified["pruned"]["tasks"]) == (True, verified["counts"]["pruned"])
    assert "are verified until pruned on 20" in verified["message"]
    after = documents(capsys, "certificate", "scene", code=1)
    assert after["certificate_sha256"] == digests["certificate_sha256"], "hashes are of what stays"
    assert ("pruned" in digests, after["pruned"]["answers"]) == (False, 11)
    assert documents(capsys, "report", "scene")["pruned"]["answers"] == 11
    assert main.run(["report", "scene"]) == 0
    assert f"pruned   11 answers, since {today()}" in capsys.readouterr().out
    check_exports(capsys)
    # Of the overcharge that an adjustment answered.
    assert main.run(["dispute", "scene", "-o", "dispute.zip"]) == 1
    assert f"1 pruned on {today()}" in capsys.readouterr().err


def today() -> str:
    return str(iso_day(round(time.time() * 1000)))


def check_exports(capsys: pytest.CaptureFixture[str]) -> None:
    """Each row whose body was pruned says so, and so does the command."""
    assert main.run(["export", "scene", "--format", "jsonl"]) == 1
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    gone = [row for row in rows if row["response_note"] is not None]
    assert {row["response_note"] for row in gone} == {f"pruned on {today()}"}
    assert all(row["response"] is None and row["answer_sha256"] for row in gone)
    assert {row["response_note"] for row in rows if row["response"] is not None} == {None}
    assert f"{len(gone)} of " in err
    assert f"{len(gone)} pruned on {today()}" in err
    assert main.run(["export", "scene", "--format", "csv", "-o", "rows.csv"]) == 1
    assert Path("rows.csv").read_text().count(f"pruned on {today()}") == len(gone), "the file is whole"
    assert main.run(["export", "scene", "--what", "ledger"]) == 0
    capsys.readouterr()


def test_without_a_policy_nothing_goes(
    environment: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TALLYHOOK_KEEP_BODIES_DAYS")
    old_scene(environment)
    before = asyncio.run(with_store(environment, standing))
    assert "no policy is set" in documents(capsys, "prune")["message"]
    assert asyncio.run(with_store(environment, standing)) == before
    monkeypatch.setenv("TALLYHOOK_KEEP_BODIES_DAYS", "3")
    monkeypatch.setenv("TALLYHOOK_RETENTION_S", "200000")
    refused = documents(capsys, "prune", code=2)["error"]
    assert "set it to 5 or more" in json.dumps(refused)


def test_killed_in_the_middle_it_loses_and_doubles_nothing(
    environment: str, capsys: pytest.CaptureFixture[str]
) -> None:
    old_scene(environment)
    planned = documents(capsys, "prune", "--dry-run")["days"][0]
    process = subprocess.Popen([sys.executable, "-c", SLOWLY], env=os.environ | {"PYTHONPATH": _top()})
    try:
        deadline = time.monotonic() + 60
        while not (found := asyncio.run(with_store(environment, receipts))) or found[0].row_count < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (receipt,) = asyncio.run(with_store(environment, receipts))
    assert (receipt.state, receipt.kept) == (OPEN, None)
    assert 3 <= receipt.row_count < planned["rows"]
    assert asyncio.run(with_store(environment, verify)).differences == [], "in the middle"

    rest = documents(capsys, "prune")["days"][0]
    assert rest["rows"] == planned["rows"] - receipt.row_count
    (now,) = asyncio.run(with_store(environment, receipts))
    assert (now.id, now.state, now.row_count) == (receipt.id, DONE, planned["rows"])
    assert now.body_bytes == planned["bytes"]
    totals = asyncio.run(with_store(environment, verify))
    assert totals.differences == []


def _top() -> str:
    return str(Path(main.__file__).parents[2])


def test_archive_says_what_went_and_why_nothing_does(
    environment: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TALLYHOOK_ARCHIVE_URL", str(tmp_path / "archive"))
    old_scene(environment)
    assert main.run(["archive"]) == 0
    out = capsys.readouterr().out
    assert "bytes archived" in out and "left out is" not in out
    assert main.run(["archive"]) == 0
    assert "A day goes when it is over for 2 days." in " ".join(capsys.readouterr().out.split())
