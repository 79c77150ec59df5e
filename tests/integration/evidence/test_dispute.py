"""The archive of a dispute: what is in it for each verdict; that a script which knows nothing of ours
verifies it, and not when a byte is altered. On both stores and in both formats."""

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.config import EMULATOR_WEBHOOK_SECRET, Settings
from app.domain.send_outcome import Answer
from app.domain.task import idempotency_key
from app.files.dispute_file import write_dispute
from app.ports import CreateAnswer
from app.services.dispute import Disputed
from app.store.tables import task_metadata, task_repeats
from app.views.report import full_report_document
from tests.integration.evidence.wronged import VERDICTS, Wronged, deliver, deliver_stray, wrong_everything
from tests.integration.services.pipeline import HOUR_MS, Pipeline

SCRIPT = Path(__file__).parents[3] / "examples" / "verify_dispute.py"
MADE_MS = 1_790_900_000_000
API_KEY = "sk_live_planted0123456789abcdef012345"
Files = dict[str, bytes]


@pytest.fixture
async def wronged(pipeline: Pipeline) -> Wronged:
    return await wrong_everything(pipeline)


def settings() -> Settings:
    return Settings(
        CLORO_API_KEY=API_KEY,
        CLORO_WEBHOOK_SECRET=EMULATOR_WEBHOOK_SECRET,
        CLORO_BASE_URL="http://localhost:1",
        PUBLIC_URL="https://hook.example",
        _env_file=None,
    )  # type: ignore[call-arg]


async def write(
    wronged: Wronged, path: Path, made_ms: int = MADE_MS, *, with_metadata: bool = False
) -> Disputed:
    store = wronged.pipeline.store
    return await write_dispute(store, settings(), wronged.run, path, made_ms, with_metadata=with_metadata)


def read(path: Path) -> Files:
    """Every file of an archive."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    with tarfile.open(path) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive.getmembers()}  # type: ignore[union-attr]


def run_script(path: Path, secret: str = EMULATOR_WEBHOOK_SECRET) -> subprocess.CompletedProcess[str]:
    """The script as anybody would run it: without our code on its path."""
    return subprocess.run(
        [sys.executable, "-I", str(SCRIPT), str(path), "--secret-env", "HOOK_SECRET"],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "HOOK_SECRET": secret},
        cwd=path.parent,
    )


def check(path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """The same in this process, for the many ways to alter an archive."""
    spec = importlib.util.spec_from_file_location("verify_dispute", SCRIPT)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setenv("HOOK_SECRET", EMULATOR_WEBHOOK_SECRET)
    capsys.readouterr()
    code: int = script.main([str(path), "--secret-env", "HOOK_SECRET"])
    return code, capsys.readouterr().out


@pytest.mark.parametrize("option", ["--secret-env", "--secret"])
def test_a_secret_in_the_place_of_its_name_is_not_printed(option: str) -> None:
    command = [sys.executable, str(SCRIPT), "any.zip", option, EMULATOR_WEBHOOK_SECRET]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert EMULATOR_WEBHOOK_SECRET not in ran.stdout + ran.stderr


async def test_the_script_verifies_it_and_each_verdict_has_its_evidence(
    wronged: Wronged, tmp_path: Path
) -> None:
    for suffix in (".zip", ".tar.gz"):
        done = await write(wronged, tmp_path / f"d{suffix}")
        # One for each verdict but the first; the double charge was a charged failure before.
        assert (done.count, done.withheld) == (len(VERDICTS) + 1, 0)
        assert done.deliveries >= done.count
        ended = run_script(tmp_path / f"d{suffix}")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        message = f" {done.deliveries} deliveries signed by the secret, 0 unsigned, 0 withheld, 0 faults"
        assert message in ended.stdout
    wrong = run_script(tmp_path / "d.zip", "whsec_another")
    assert wrong.returncode == 1
    assert f"{done.deliveries} faults" in wrong.stdout
    check_verdicts(read(tmp_path / "d.tar.gz"), wronged)


async def test_own_columns_stay_with_their_author_unless_they_are_asked_for(
    wronged: Wronged, tmp_path: Path
) -> None:
    own = {"custom_id": "row 2", "metadata": '{"margin":1.10,"exact":0.12345678901234567890123}'}
    row = {"run_id": wronged.run.id, "ordinal": VERDICTS.index("overcharged") + 1, "line": 3} | own
    store = wronged.pipeline.store
    await store.db.write(lambda connection: connection.execute(sa.insert(task_metadata).values(**row)))
    samples = {"run_id": wronged.run.id, "first_ordinal": row["ordinal"], "repeats": 2}
    await store.db.write(lambda connection: connection.execute(sa.insert(task_repeats).values(**samples)))
    metadata = {"margin": 1.1, "exact": "0.12345678901234567890123"}
    for wanted in (False, True):
        await write(wronged, tmp_path / f"{wanted}.zip", with_metadata=wanted)
        files = read(tmp_path / f"{wanted}.zip")
        lines = [json.loads(line) for line in files["discrepancies.jsonl"].splitlines()]
        (found,) = (line for line in lines if line["verdict"] == "overcharged")
        assert (found["custom_id"], found.get("metadata")) == ("row 2", metadata if wanted else None)
        assert (found["sample"], found["repeats"]) == (1, 2), "whoever reads one sample knows it is one"
        assert b"row 2,1,2," in files["discrepancies.csv"]
        assert wanted or not any(b"margin" in content for content in files.values())
    report = full_report_document(await store.reports.full_report(wronged.run, 100))
    about = {f["verdict"]: (f["custom_id"], f["metadata"]) for f in report["findings"]}
    assert about["overcharged"] == ("row 2", metadata)
    assert about["undercharged"] == about["overcharged"], "the other sample of the same record"
    assert about["conflict"] == (None, None)


def check_verdicts(files: Files, wronged: Wronged) -> None:
    """Each finding with its figures, its words and its files."""
    lines = [json.loads(line) for line in files["discrepancies.jsonl"].splitlines()]
    found = {line["verdict"]: line for line in lines}
    assert found.keys() == {*VERDICTS, "unmatched"} - {"matched"}
    figures = {v: (d["expected"], d["actual"], d["difference"]) for v, d in found.items()}
    assert figures["overcharged"] == (5, 7, 2)
    assert figures["undercharged"] == (5, "3.5", "-1.5")
    assert figures["charged_failure"] == (0, 5, 5)
    assert figures["unknown"] == (5, None, None)
    assert figures["conflict"] == (5, 9, 4)
    assert figures["repriced"] == (5, 6, 1)
    assert figures["double_charged"] == (0, 5, 5)
    assert figures["unmatched"] == (None, 4, None)
    assert figures["lost_after_ack"] == (None, None, None)
    for verdict, line in found.items():
        assert json.loads(files[f"{line['folder']}/discrepancy.json"]) == line
        assert line["in_words"].endswith((".", ")")), line["in_words"]
        if verdict != "unmatched":
            assert line["task_id"] == wronged.tasks[verdict] or verdict == "charged_failure"
            assert line["arithmetic"]["line"] == "CHATGPT 5 = 5"
    _check_folder(files, found["overcharged"], wronged)
    assert found["repriced"]["request_ids"] == ["rid-7"]
    assert found["double_charged"]["attempts"] == [1, 2]
    conflicting = [
        name for name in files if name.startswith(found["conflict"]["folder"]) and name.endswith(".body")
    ]
    assert len([name for name in conflicting if "/deliveries/" in name]) == 2
    assert f"{found['lost_after_ack']['folder']}/attempt-1/polls/1.body" in files
    assert f"{found['unmatched']['folder']}/deliveries/1.body" in files
    readme = files["README.txt"].decode()
    assert "overcharged" in readme and "Prompts and answers are in this archive of necessity" in readme


def _check_folder(files: Files, line: dict[str, Any], wronged: Wronged) -> None:
    folder = f"{line['folder']}/attempt-1"
    request = json.loads(files[f"{folder}/request.json"])
    assert (request["method"], request["path"]) == ("POST", "/v1/async/task")
    assert json.loads(files[request["body"]]) == {
        "taskType": "CHATGPT",
        "priority": 1,
        "idempotencyKey": f"{wronged.tasks['overcharged']}.1",
        "payload": {"prompt": "p2", "country": "DE"},
        "webhook": {"url": "https://hook.example/webhooks/cloro"},
    }
    [answer] = json.loads(files[f"{folder}/answers.json"])
    assert (answer["end"], answer["http_status"], answer["creditsToCharge"]) == ("accepted", 200, 5)
    body = json.loads(files[f"{folder}/deliveries/1.body"])
    assert body["credits"] == {"creditsToCharge": 5, "creditsCharged": 7}
    assert line["credits"] == {"our_estimate": 5, "creditsToCharge": 5, "held": 5, "creditsCharged": 7}


async def test_the_same_books_make_the_same_bytes(sqlite_pipeline: Pipeline, tmp_path: Path) -> None:
    wronged = await wrong_everything(sqlite_pipeline)
    for suffix in (".zip", ".tar.gz"):
        paths = [tmp_path / f"{n}{suffix}" for n in range(3)]
        for path, made_ms in zip(paths, (MADE_MS, MADE_MS, MADE_MS + 5_000), strict=True):
            await write(wronged, path, made_ms)
        first, second, later = (path.read_bytes() for path in paths)
        assert first == second != later
        if suffix == ".tar.gz":
            assert int.from_bytes(first[4:8], "little") == MADE_MS // 1000, "no moment but the one given"


def alter(files: Files, name: str, *, listed: bool = False) -> Files:
    """One byte of a file changed; `listed`: and the manifest made to agree."""
    data = bytearray(files[name])
    data[len(data) // 2] ^= 1
    changed = {**files, name: bytes(data)}
    if listed:
        manifest = json.loads(files["manifest.json"])
        entry = next(e for e in manifest["files"] if e["path"] == name)
        entry["sha256"] = hashlib.sha256(data).hexdigest()
        changed["manifest.json"] = json.dumps(manifest).encode()
    return changed


def pack(files: Files, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


async def test_an_altered_byte_is_found(
    sqlite_pipeline: Pipeline,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wronged = await wrong_everything(sqlite_pipeline)
    await write(wronged, tmp_path / "good.zip")
    files = read(tmp_path / "good.zip")
    assert check(pack(files, tmp_path / "same.zip"), capsys, monkeypatch)[0] == 0
    # One file of each kind.
    kinds = {re.sub(r"[0-9]+(-\w+)?", "", path): path for path in files if path != "manifest.json"}
    assert len(kinds) > 10
    for name in kinds.values():
        code, out = check(pack(alter(files, name), tmp_path / "x.zip"), capsys, monkeypatch)
        assert code == 1 and f"{name}: is not what the manifest says" in out
    for name in [name for name in files if "/deliveries/" in name and name.endswith(".body")][-2:]:
        code, out = check(pack(alter(files, name, listed=True), tmp_path / "x.zip"), capsys, monkeypatch)
        assert code == 1 and f"{name}: no secret given made this signature" in out
    cuts: dict[str, Callable[[Files], Files]] = {
        "is missing": lambda f: {n: d for n, d in f.items() if n != "README.txt"},
        "is not in the manifest": lambda f: {**f, "more.txt": b"x"},
        "there is no manifest.json": lambda f: {n: d for n, d in f.items() if n != "manifest.json"},
    }
    for message, cut in cuts.items():
        code, out = check(pack(cut(files), tmp_path / "x.zip"), capsys, monkeypatch)
        assert code == 1 and message in out
    (tmp_path / "no.zip").write_bytes(b"PK nothing")
    assert check(tmp_path / "no.zip", capsys, monkeypatch)[0] == 1


async def test_no_secret_is_in_it(pipeline: Pipeline, tmp_path: Path) -> None:
    await pipeline.start(2)
    # Something echoes the key into the request ids; below, an answer holds it.
    for n in (1, 2):
        key = idempotency_key(pipeline.task_ids[n - 1], 1)
        known = pipeline.provider.accept(key, Decimal(5)).id
        answer = CreateAnswer(Answer.ACCEPTED, 200, None, None, known, Decimal(5), None, f"rid {API_KEY}")
        pipeline.provider.tell(answer)
    await pipeline.submit(submit_in_flight=1)
    charged, quiet = pipeline.provider.sends
    over = [pipeline.provider.finish(key, charged=Decimal(9)) for key in (charged, quiet)]
    await deliver(pipeline, over[0].body(response={"text": f"my key is {API_KEY}"}), over[1])
    [run] = await pipeline.store.queries.find_runs(pipeline.run_id)
    done = await write(Wronged(pipeline, run), tmp_path / "d.zip")
    assert (done.count, done.deliveries, done.withheld) == (2, 2, 1)
    files = read(tmp_path / "d.zip")
    for secret in (API_KEY, EMULATOR_WEBHOOK_SECRET):
        assert not [name for name, data in files.items() if secret.encode() in data]
    ended = run_script(tmp_path / "d.zip")
    assert ended.returncode == 0
    assert "1 deliveries signed by the secret, 0 unsigned, 1 withheld" in ended.stdout
    assert b"left out" in files["README.txt"]


async def test_what_is_settled_or_not_of_this_run_is_not_in_it(wronged: Wronged, tmp_path: Path) -> None:
    pipeline = wronged.pipeline
    before = await write(wronged, tmp_path / "a.zip")
    # The charge came after all; and later, or at another account's address, reports came about nothing.
    done = pipeline.provider.accepted[f"{wronged.tasks['unknown']}.1"][-1]
    await deliver(pipeline, done)
    await deliver_stray(pipeline, "pt-elsewhere", account="eu")
    pipeline.clock.advance(3 * HOUR_MS)
    await deliver_stray(pipeline, "pt-later")
    after = await write(wronged, tmp_path / "b.zip")
    assert before.verdicts["unknown"].count == 1
    assert after.verdicts.keys() == before.verdicts.keys() - {"unknown"}
    assert after.verdicts["unmatched"].count == 1


async def test_a_run_without_discrepancies_makes_no_file(pipeline: Pipeline, tmp_path: Path) -> None:
    await pipeline.start(1)
    await pipeline.submit()
    await deliver(pipeline, pipeline.provider.finish(pipeline.provider.sends[0]))
    [run] = await pipeline.store.queries.find_runs(pipeline.run_id)
    assert (await write(Wronged(pipeline, run), tmp_path / "d.zip")).count == 0
    assert "d.zip" not in os.listdir(tmp_path)
