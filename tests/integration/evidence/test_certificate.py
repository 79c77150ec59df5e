"""A certificate of a real run on both stores, checked by reading the tables in another way; the commands."""

import hashlib
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.domain.credits import to_json_number
from app.domain.submission import ClaimedTask
from app.domain.time_format import iso_utc
from app.services.certify import certify
from app.store import Store
from app.store.read import certificates
from app.store.tables import ledger
from tests.books import Books, Row
from tests.e2e.test_cli import Cli, cli, here, on_store, restored_logging
from tests.integration.evidence.wronged import wrong_everything
from tests.integration.services.pipeline import Pipeline
from tests.integration.store.scenes import claim, ended, report_on, settle_all

__all__ = ["cli", "here", "restored_logging"]


async def certified(pipeline: Pipeline) -> dict[str, Any]:
    return await certify(pipeline.store, pipeline.run_id, clock=pipeline.clock)


def lines_sha256(lines: list[dict[str, Any]]) -> str:
    text = "".join(
        json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n" for line in lines
    )
    return hashlib.sha256(text.encode()).hexdigest()


def results_sha256(books: Books) -> str:
    """The recipe of docs/evidence.md, on rows read in another way."""
    answers = {(r["task_id"], r["attempt"]): r["response"] for r in books.results}

    def line(task: Row) -> dict[str, Any]:
        answer = answers.get((task["id"], task["attempt"]))
        sha256 = None if answer is None else hashlib.sha256(answer.encode()).hexdigest()
        return {
            "ordinal": task["ordinal"],
            "task_id": task["id"],
            "attempt": task["attempt"],
            "state": task["state"],
            "verdict": task["verdict"],
            "charged": to_json_number(task["credits_charged"]),
            "response_sha256": sha256,
        }

    return lines_sha256([line(task) for task in sorted(books.tasks, key=lambda t: t["ordinal"])])


def ledger_sha256(books: Books) -> str:
    ordinal = {task["id"]: task["ordinal"] for task in books.tasks}
    rows = sorted(books.ledger, key=lambda e: (ordinal[e["task_id"]], e["attempt"], e["kind"]))
    names = ("task_id", "attempt", "kind", "delivery_id", "reason")
    return lines_sha256(
        [
            {n: e[n] for n in names} | {"at": iso_utc(e["at_ms"]), "credits": to_json_number(e["credits"])}
            for e in rows
        ]
    )


LATER_MS = 1_900_000_000_000


def finish_all() -> list[ClaimedTask]:
    """What a worker and the provider would have done."""

    async def work(store: Store) -> list[ClaimedTask]:
        claimed = await claim(store, now_ms=LATER_MS)
        due = {task.id: task.credits_estimate for task in claimed}
        await store.submissions.record_submissions(
            [ended(t, credits_to_charge=due[t.id], at_ms=LATER_MS) for t in claimed]
        )
        reports = [report_on(t, due[t.id], to_charge=due[t.id]) for t in claimed]
        await settle_all(store, *reports, now_ms=LATER_MS)
        return claimed

    found: list[ClaimedTask] = on_store(work)
    return found


def contradict(task: ClaimedTask) -> None:
    """The provider says something else about a task that is settled."""
    due = task.credits_estimate

    async def work(store: Store) -> None:
        await settle_all(store, report_on(task, due + 1, to_charge=due), now_ms=LATER_MS)

    on_store(work)


async def test_every_figure_and_hash_is_the_books(pipeline: Pipeline) -> None:
    await wrong_everything(pipeline)
    books = await pipeline.books()
    document = await certified(pipeline)
    every = books.every_attempt()
    assert document["hashes"]["results_sha256"] == results_sha256(books)
    assert document["hashes"]["ledger_sha256"] == ledger_sha256(books)
    assert document["input"]["prompts"] == len(books.tasks) == sum(document["ends"].values())
    assert document["retried_attempts"] == len(books.attempts) == 1
    for figure, column in (("charged", "credits_charged"), ("estimated", "credits_estimate")):
        assert document["credits"][figure] == to_json_number(
            sum((row[column] or Decimal(0) for row in every), Decimal(0))
        )
    for figure, kind in (("posted", "post"), ("voided", "void"), ("holds", "hold")):
        of_kind = [e["credits"] for e in books.ledger if e["kind"] == kind]
        assert document["credits"][figure] == to_json_number(sum(of_kind, Decimal(0)))
    assert document["credits"]["open_holds"] == 5
    # One charge is unknown; the eight other discrepancies are known, and open nothing.
    assert document["statement"] == "Not complete: 1 task whose charge nobody has told, up to 5 credits."
    assert sum(document["discrepancies"].values()) == len([f for f in books.findings if f["run_id"]])


async def test_a_run_of_several_pages(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "PAGE", 10)
    count = 21
    await pipeline.start(count)
    await pipeline.submit()
    assert (await certified(pipeline))["open_questions"][0]["count"] == count
    await pipeline.deliver(*(pipeline.provider.finish(key) for key in pipeline.provider.sends))
    document = await certified(pipeline)
    assert document["complete"] is True
    assert document["ends"]["completed"] == count
    assert document["credits"]["charged"] == document["credits"]["posted"] == 5 * count
    books = await pipeline.books()
    assert document["hashes"]["results_sha256"] == results_sha256(books)
    assert document["hashes"]["ledger_sha256"] == ledger_sha256(books)


async def test_an_entry_moved_to_another_run_is_missed(sqlite_pipeline: Pipeline) -> None:
    pipeline = sqlite_pipeline
    await pipeline.start(2)
    await pipeline.submit()
    await pipeline.deliver(*(pipeline.provider.finish(key) for key in pipeline.provider.sends))
    other = await pipeline.store.runs.create_run(
        name="other", source="-", budget=None, now_ms=pipeline.clock()
    )
    moved = sa.update(ledger).where(ledger.c.kind == "post").values(run_id=other)
    await pipeline.store.db.write(lambda connection: connection.execute(moved))
    document = await certified(pipeline)
    assert document["statement"] == "Not complete: ledger entries of no task of the run: 2."


def test_the_commands(cli: Cli, here: Path) -> None:
    cli("submit good.csv --name monday --json")
    ran = cli("certificate monday --json")
    assert ran.code == 1
    document = ran.document
    assert document["statement"] == "Not complete: 2 tasks without an end yet."
    assert document["input"]["source"] == str(here / "good.csv")
    assert document["hashes"]["source_sha256"] == hashlib.sha256((here / "good.csv").read_bytes()).hexdigest()
    ran = cli("certificate monday")
    assert ran.code == 1 and document["certificate_sha256"] in ran.out
    tasks = finish_all()
    ran = cli("certificate monday --json -o c.json")
    assert ran.code == 0
    assert ran.out.startswith("Complete: each of the 2 prompts has an end (2 completed)")
    written = json.loads((here / "c.json").read_text())
    assert written["complete"] is True and written["made_at"] > document["made_at"]
    nothing = cli("dispute monday --json")
    assert nothing.code == 0 and nothing.document["discrepancies"] == 0
    contradict(tasks[0])
    one = cli("dispute monday -o d.tar.gz --json").document
    assert one["verdicts"]["conflict"]["count"] == one["discrepancies"] == 1
    assert (here / "d.tar.gz").is_file()
    assert cli("dispute monday -o d.rar").code == 2
    assert cli("dispute monday --made-at noon").code == 2
