"""Every command says the same of a run whose tasks were retried after they had cost something: a credit was
spent whichever attempt spent it.
"""

import asyncio
import csv
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from selectolax.lexbor import LexborHTMLParser

from app.cli.demo.demo import found_side
from app.cli.main import run
from app.provider.wire import read_answer
from app.services.certify import certify
from app.services.notice_triggers import Watcher
from app.store import Database, Store
from tests.integration.store.scenes import NOW, failed_on, report_on, rows, settle_all, start_run, submit_all
from tests.report_pages import cards

CHARGED, HELD, ESTIMATE = 25, 10, 45
VERDICTS = {"matched": 3, "charged_failure": 2, "free_failure": 1}


async def retried_run(store: Store) -> str:
    """Five tasks: one is answered; two failed and were charged, one failed for nothing, one is forgotten.
    Those four are retried: two are answered, one waits to be sent, one is out."""
    run_id, ids = await start_run(store, 5)
    answered, charged, unsent, free, forgotten = await submit_all(store)
    await settle_all(store, report_on(answered), failed_on(charged, 5), failed_on(unsent, 5), failed_on(free))
    await store.polls.expire_if_unreported([(forgotten.id, 1)], code="expired", reason="forgotten")
    assert await store.retries.retry_tasks_if_closed([ids[1], ids[3], ids[4]], NOW) == 3
    again = await submit_all(store)
    await settle_all(store, *(report_on(task) for task in again if task.id != forgotten.id))
    assert await store.retries.retry_tasks_if_closed([ids[2]], NOW) == 1
    return run_id


RunCommand = Callable[..., str]


@pytest.fixture
def run_command(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> RunCommand:
    """What a command prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", sqlite_url)

    async def prepare() -> None:
        store = Store(Database(sqlite_url), read_answer)
        try:
            await retried_run(store)
        finally:
            await store.close()

    asyncio.run(prepare())

    def called(*arguments: str, code: int = 0) -> str:
        assert run(list(arguments)) == code
        return capsys.readouterr().out

    return called


def test_every_command_says_the_same(run_command: RunCommand) -> None:
    status, report = (json.loads(run_command(name, "latest", "--json")) for name in ("status", "report"))
    made = json.loads(run_command("certificate", "latest", "--json", code=1))
    (listed,) = json.loads(run_command("runs", "--json"))["runs"]
    expected = {"charged": CHARGED, "held": HELD, "estimate": ESTIMATE}
    assert status["credits"] == listed["credits"] == expected
    assert report["credits"] == expected | {"posted": CHARGED, "voided": 5}
    assert {name: made["credits"][name] for name in ("charged", "posted", "open_holds", "estimated")} == {
        "charged": CHARGED,
        "posted": CHARGED,
        "open_holds": HELD,
        "estimated": ESTIMATE,
    }
    verdicts = {name: n for name, n in report["verdicts"].items() if n and name != "double_charged"}
    assert verdicts == made["verdicts"] == VERDICTS
    unknown = next(q for q in made["open_questions"] if "nobody has told" in q["question"])
    assert report["money_open"] == report["exposure"]["unknown"]["attempts"] == unknown["count"] == 1
    page = "page.html"
    run_command("report", "--html", page)
    at_a_glance = cards(LexborHTMLParser(Path(page).read_text()))
    assert (at_a_glance["Charged"], at_a_glance["Held"]) == (str(CHARGED), str(HELD))
    terminal = run_command("report")
    assert "charged 25" in terminal and "posted 25" in terminal, terminal


def test_what_is_exported_adds_up_to_it(run_command: RunCommand) -> None:
    results = [json.loads(line) for line in run_command("export").splitlines()]
    assert sum(row["credits_charged"] or 0 for row in results) == CHARGED
    assert [row["credits_charged"] for row in results] == [5, 10, 5, 5, None]
    run_command("export", "--format", "csv", "-o", "out.csv")
    with Path("out.csv").open(newline="") as file:
        assert sum(Decimal(row["credits_charged"] or 0) for row in csv.DictReader(file)) == CHARGED
    ledger = [json.loads(line) for line in run_command("export", "--what", "ledger").splitlines()]
    assert sum(entry["credits"] for entry in ledger if entry["kind"] == "post") == CHARGED


async def test_every_reader_of_the_store_says_the_same(store: Store) -> None:
    run_id = await retried_run(store)
    other, _ = await start_run(store, 2)
    (row,) = [row for row in await store.queries.list_runs() if row.id == run_id]
    progress, report = await store.queries.progress(run_id), await store.reports.report(row)
    assert (progress.charged, progress.held, progress.estimate) == (CHARGED, HELD, ESTIMATE)
    assert (progress.tasks, sum(progress.states.values()), progress.verdicts) == (5, 5, VERDICTS)
    many = await store.queries.progress_of_runs([run_id, other])
    assert many == {run_id: progress, other: await store.queries.progress(other)}
    assert found_side(report, unmatched=0)["credits_charged"] == CHARGED
    charges = await store.reports.charges(run_id)
    assert (len(charges), sum(charge or 0 for charge in charges.values())) == (8, CHARGED)
    assert (await certify(store, run_id, clock=lambda: NOW))["credits"]["charged"] == CHARGED
    full = await store.reports.full_report(row, 0)
    assert sum(one.posted for one in full.breakdown.engine_countries) == CHARGED
    assert sum(one.posted for one in full.breakdown.days) == CHARGED
    assert sum(burnt for *_, burnt in await store.charges.burn("default", 0)) == CHARGED
    # Sent and charged or held, by whichever attempt: the budget of a month counts nothing else.
    assert await store.accounts.spent_since("default", 0) == CHARGED + HELD


async def test_a_notice_says_the_same(store: Store) -> None:
    await retried_run(store)
    for task in await submit_all(store):
        await settle_all(store, report_on(task))
    out = await rows(store, "SELECT id, attempt FROM tasks WHERE state = 'submitted'")
    assert len(out) == 1
    (forgotten,) = [
        row
        async for row in store.exports.export((await store.queries.list_runs())[0].id)
        if row["attempt"] == 2
    ][-1:]
    await store.polls.expire_if_unreported([(forgotten["task_id"], 2)], code="expired", reason="forgotten")
    await Watcher(store, clock=lambda: NOW + 10_000).look()
    (notice,) = await rows(store, "SELECT body FROM notices WHERE kind = 'run.finished'")
    data = json.loads(notice["body"])["data"]
    assert (data["credits_charged"], data["credits_held"]) == (CHARGED + 5, HELD)
    assert data["verdicts"] == VERDICTS | {"matched": 4}
