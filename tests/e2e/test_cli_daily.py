"""The commands of everyday work on an embedded SQLite file: run control, resuming, schedules."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.config import EMULATOR_KEY
from app.services.load import CHUNK
from app.store import Store
from tests.e2e.stack import running_emulator
from tests.e2e.test_cli import Cli, cli, here, on_store, restored_logging
from tests.servers.processes import free_port

__all__ = ["cli", "here", "restored_logging"]


def fail_all(run_id: str) -> None:
    """What a worker and a provider that fails every task would have done."""
    from msgspec.structs import replace

    from tests.integration.store.scenes import ended, failed_on, settle_all

    async def work(store: Store) -> None:
        now = 1_900_000_000_000
        tasks = await store.submissions.claim_pending(
            limit=100, claim="me", now_ms=now, lease_until_ms=now + 1
        )
        await store.submissions.record_submissions([replace(ended(task), at_ms=now) for task in tasks])
        await settle_all(store, *(failed_on(task) for task in tasks), now_ms=now)

    on_store(work)


def test_pause_and_resume(cli: Cli) -> None:
    cli("submit good.csv --name one --json")
    paused = cli("pause one --json").document
    assert (paused["run"]["state"], paused["run"]["reason"]) == ("paused", "paused by hand")
    assert (paused["unsent"], paused["open"]) == (2, 2)
    assert cli("pause one --json").document["error"]["code"] == "not_running"
    assert cli("resume one --json").document["run"]["state"] == "running"


def test_resume_restored_takes_any_run_that_is_not_over(cli: Cli) -> None:
    cli("submit good.csv --name one --json")
    assert cli("resume one --json").document["error"]["code"] == "not_halted"
    assert cli("resume one --restored --json").document["run"]["state"] == "running", "before it was stopped"
    cli("pause one --json")
    assert cli("resume one --restored --json").document["run"]["state"] == "running"
    cli("cancel one --json")
    over = cli("resume one --restored --json")
    assert (over.code, over.document["error"]["code"]) == (1, "not_halted")


def test_cancel_says_what_it_cannot_take_back(cli: Cli) -> None:
    run_id = cli("submit good.csv --name one --json").document["run"]["id"]

    async def send_one(store: Store) -> None:
        await store.submissions.claim_pending(
            limit=1, claim="me", now_ms=2 * 10**12, lease_until_ms=3 * 10**12
        )

    on_store(send_one)
    done = cli("cancel one --json").document
    assert (done["cancelled"], done["still_running"], done["run"]["id"]) == (1, 1, run_id)
    assert "1 is running at the provider" in done["message"]
    assert cli("cancel one --json").document["error"]["code"] == "not_open"
    assert cli("retry one --json").document["error"]["code"] == "not_retryable"


def test_retry(cli: Cli) -> None:
    run_id = cli("submit good.csv --name one --json").document["run"]["id"]
    fail_all(run_id)
    assert cli("cancel one --json").document["error"]["code"] == "not_open"
    assert cli("retry one --state rejected --json").document["error"]["code"] == "nothing_to_retry"
    done = cli("retry one --json").document
    assert (done["retried"], done["left_held"], done["credits"]["estimate"]) == (2, 0, 9)
    assert cli("retry one --json").document["error"]["code"] == "nothing_to_retry"
    wrong = cli("retry one --state completed --json")
    assert (wrong.code, wrong.document["error"]["code"]) == (2, "bad_option")


def test_an_interrupted_submit_is_pointed_out_resumed_and_compared(cli: Cli, here: Path) -> None:
    many = [f"q{n};CHATGPT;US" for n in range(CHUNK + 99)]
    path = here / "many.csv.gz"
    whole = "\n".join(["prompt;task_type;country", *many, "Café ?;CHATGPT;FR"]) + "\n"
    path.write_bytes(gzip.compress(whole.encode("cp1252")))

    async def interrupted(store: Store) -> str:
        from app.prompts.reader import Defaults, read_prompts
        from app.services.load import NewRun, load_run
        from tests.integration.loading.reading import Interrupted

        source = Interrupted(iter(read_prompts(path, Defaults())), CHUNK + 50)
        with pytest.raises(InterruptedError):
            await load_run(store, source, NewRun("one", str(path)), sha256=str, clock=lambda: 1)
        return (await store.loading.loading_runs(str(path)))[0]

    run_id = on_store(interrupted)
    other = cli("submit many.csv.gz --json").document
    assert any(f"--resume {run_id[-8:]}" in line for line in other["next"])
    path.write_bytes(gzip.compress(whole.replace("q7;", "q seven;").encode("cp1252")))
    refused = cli("submit many.csv.gz --resume one --json")
    assert (refused.code, refused.document["error"]["code"]) == (1, "source_changed")
    assert "record 8 asks something else" in refused.document["error"]["message"]
    path.write_bytes(gzip.compress(whole.encode("cp1252")))
    wrong = cli("submit many.csv.gz --resume one --budget 5 --json")
    assert (wrong.code, wrong.document["error"]["code"]) == (2, "bad_option")
    resumed = cli("submit many.csv.gz --resume one --json").document
    assert (resumed["run"]["id"], resumed["tasks"], resumed["resumed_after"]) == (run_id, CHUNK + 100, CHUNK)


def test_repeated_lines(cli: Cli, here: Path) -> None:
    (here / "twice.csv").write_text("prompt,task_type,country\na,GEMINI,GB\na,GEMINI,GB\n")
    kept = cli("submit twice.csv --json").document
    assert (kept["tasks"], kept["duplicates"]) == (2, 1)
    merged = cli("submit twice.csv --duplicates merge --json").document
    assert (merged["tasks"], merged["duplicates"]) == (1, 1)
    refused = cli("submit twice.csv --duplicates error --json")
    assert (refused.code, refused.document["error"]["details"]) == (1, ["record 2 repeats record 1"])
    assert cli("submit twice.csv --duplicates never --json").code == 2


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ("--reuse-within 24", "bad_option"),
        ("--reuse-within soon", "bad_option"),
        ("--account nobody", "unknown_account"),
        ("--batch 501", "usage"),
        ("--batch 0", "usage"),
    ],
)
def test_wrong_options_store_nothing(cli: Cli, options: str, code: str) -> None:
    ended = cli(f"submit good.csv {options} --json")
    assert (ended.code, ended.document["error"]["code"]) == (2, code)
    assert cli("runs --json").document == {"runs": []}


def test_account_batch_and_reuse_are_kept_with_the_run(
    cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALLYHOOK_ACCOUNTS", json.dumps({"eu": {"api_key": "k", "webhook_secret": "s"}}))
    cli("submit good.csv --account eu --batch 50 --reuse-within 1d --json")
    assert cli("status --json").document["run"]["account"] == "eu"
    assert "eu" in cli("runs").out
    assert "paid by account eu" in cli("report").out

    async def row(store: Store) -> tuple[int, int]:
        from tests.books import read_books

        (run,) = (await read_books(store)).runs
        return run["batch_size"], run["reuse_within_ms"]

    assert on_store(row) == (50, 86_400_000)


def test_schedules(cli: Cli, here: Path) -> None:
    added = cli("schedule add good.csv --every 2h30m --budget 10 --include markdown --json").document
    assert (added["name"], added["every"], added["source"]) == ("good", "2h30m", str(here / "good.csv"))
    assert added["options"] == {"budget": "10", "include": ["markdown"]}
    again = cli("schedule add good.csv --every 1d --json")
    assert (again.code, again.document["error"]["code"]) == (1, "schedule_exists")
    assert cli("schedule add good.csv --every 1d --name daily --json").code == 0
    assert cli("schedule pause daily --json").document["state"] == "paused"
    assert cli("schedule pause daily --json").document["error"]["code"] == "unchanged"
    assert cli("schedule resume daily --json").document["state"] == "enabled"
    assert cli("schedule remove good --json").code == 0
    assert [row["name"] for row in cli("schedule list --json").document["schedules"]] == ["daily"]
    assert "daily" in cli("schedule list").out
    assert cli("schedule remove good --json").document["error"]["details"] == ["daily"]


@pytest.mark.parametrize(
    "line",
    [
        "schedule add good.csv --every 30s",
        "schedule add good.csv --every 6",
        "schedule add no.csv --every 1h",
        "schedule add good.csv --every 1h --country ZZ",
        "schedule add good.csv --every 1h --budget x",
        "schedule add good.csv --every 1h --account nobody",
    ],
)
def test_a_schedule_that_could_never_run_is_refused(cli: Cli, line: str) -> None:
    ended = cli(f"{line} --json")
    assert ended.code == 2, ended
    assert cli("schedule list --json").document == {"schedules": []}


def test_doctor_looks_at_every_account(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    account = {"api_key": "k", "base_url": f"http://127.0.0.1:{port}"}
    monkeypatch.setenv("TALLYHOOK_ACCOUNTS", json.dumps({"eu": account}))
    monkeypatch.setenv("PORT", str(port))
    checks = {check["name"]: check for check in cli("doctor --json").document["checks"]}
    for name in ("webhook secret of eu", "provider of eu", "webhook of eu"):
        assert checks[name]["state"] == "fault", checks
    assert f"127.0.0.1:{port}/webhooks/cloro/eu" in checks["webhook of eu"]["detail"]


@pytest.fixture
def emulator_url(tmp_path: Path) -> Iterator[str]:
    with running_emulator(tmp_path / "emulator.log", "--edition", "2026") as url:
        yield url


def test_ask(cli: Cli, monkeypatch: pytest.MonkeyPatch, emulator_url: str) -> None:
    monkeypatch.setenv("CLORO_BASE_URL", emulator_url)
    monkeypatch.setenv("CLORO_API_KEY", EMULATOR_KEY)
    asked = cli("ask CRM? --engine google/news --country US --json").document
    assert (asked["state"], asked["verdict"], asked["calls"]) == ("completed", "matched", 1)
    assert asked["credits"] == {"estimate": 5, "charged": 5, "unknown": False}
    assert isinstance(asked["answer"], dict)
    drawn = cli("ask CRM? --engine gemini --country DE --include markdown")
    assert (drawn.code, "charged 6 credits" in drawn.out) == (0, True), drawn
    books = cli("report latest --json").document
    assert (books["credits"]["posted"], books["verdicts"]["matched"], books["findings"]) == (6, 1, [])
    wrong = cli("ask CRM? --engine nobody --country US --json")
    assert (wrong.code, wrong.document["error"]["code"]) == (2, "bad_option")
