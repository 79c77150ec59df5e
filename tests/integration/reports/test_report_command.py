"""`tallyhook report` and `tallyhook export` as a person calls them, on a run that is in the database."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from selectolax.lexbor import LexborHTMLParser

from app.cli.main import run
from app.provider.wire import read_answer
from app.store import Database, Store
from app.views.export_rows import COLUMNS, ExportContent
from tests.integration.store.scenes import report_on, settle_all, start_run, submit_all
from tests.report_pages import cards


@pytest.fixture
def call(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    """Runs a command line in this process: (exit code, standard output, standard error)."""
    monkeypatch.setenv("DATABASE_URL", sqlite_url)
    monkeypatch.chdir(tmp_path)
    asyncio.run(_prepare(sqlite_url))

    def called(line: str) -> tuple[int, str, str]:
        code = run(line.split())
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return called


async def _prepare(url: str) -> None:
    store = Store(Database(url), read_answer)
    try:
        await start_run(store, 3)
        sent = await submit_all(store)
        await settle_all(store, report_on(sent[0]), report_on(sent[1], "7.5"))
    finally:
        await store.close()


def test_the_page_says_what_the_document_says(call: Any) -> None:
    code, out, _ = call("report latest --html page.html --json")
    document = json.loads(out)
    assert (code, document["output"], document["findings_count"]) == (0, "page.html", 1)
    assert document["exposure"]["in_flight"] == {"attempts": 1, "credits": 5}
    assert document["by_engine_country"] == [
        {
            "task_type": "CHATGPT",
            "country": "US",
            "tasks": 3,
            "completed": 2,
            "usable": 0,
            "short": 2,
            "unmeasured": 0,
            "failed": 0,
            "unanswered": 0,
            "open": 1,
            "posted": "12.5",
            "held": 5,
            "posted_per_usable": None,
            "reported": 2,
            "swept": 0,
            "p50_ms": 2_000,
            "p95_ms": 2_000,
        }
    ]
    shorter = json.loads(call("report latest --usable-chars 3 --json")[1])
    part = shorter["by_engine_country"][0]
    assert (part["usable"], part["short"], part["posted_per_usable"]) == (2, 0, "6.25")
    assert [(day["task_type"], day["posted"]) for day in document["by_day"]] == [("CHATGPT", "12.5")]
    assert document["latency"][0]["histogram"] == [{"below_ms": 5_000, "tasks": 2}]
    at_a_glance = cards(LexborHTMLParser(Path("page.html").read_text()))
    assert (at_a_glance["Charged"], at_a_glance["Held"]) == ("12.5", "5")
    code, out, _ = call("report latest --html page.html")
    assert (code, out) == (0, "Report on run written to page.html\n")


def test_a_person_reads_it_on_the_terminal(call: Any) -> None:
    _, out, _ = call("report")
    assert "5 credits of 1 attempt in flight" in out
    assert [line.split()[:8] for line in out.splitlines() if line.startswith("CHATGPT")] == [
        ["CHATGPT", "1", "3", "2", "0", "1", "12.5", "5"],
        ["CHATGPT", "US", "0", "%", "2", "2.0", "s", "2.0"],
    ]
    assert "overcharged" in out


def test_a_page_that_cannot_be_written_is_reported(call: Any) -> None:
    code, out, _ = call("report latest --html no/such/page.html --json")
    assert (code, json.loads(out)["error"]["code"]) == (2, "unwritable")


@pytest.mark.parametrize(("what", "rows"), [("results", 3), ("ledger", 5)])
def test_parquet_is_written_to_a_file(call: Any, what: str, rows: int) -> None:
    code, out, _ = call(f"export latest --what {what} --format parquet -o out.parquet --json")
    assert (code, json.loads(out)["rows"]) == (0, rows)
    table = pq.read_table("out.parquet")
    assert (table.num_rows, table.column_names) == (rows, list(COLUMNS[ExportContent(what)]))


def test_the_ledger_goes_to_standard_output_too(call: Any) -> None:
    lines = [json.loads(line) for line in call("export latest --what ledger")[1].splitlines()]
    assert [line["kind"] for line in lines] == ["hold", "hold", "hold", "post", "post"]
    header, *rows = call("export latest --what ledger --format csv")[1].splitlines()
    assert (header.split(",")[:3], len(rows)) == (["book", "entry_id", "booked_at"], 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--format parquet", "give --output FILE"),
        ("--what money", "is not one of: results, ledger"),
        ("--format xml", "is not one of: jsonl, csv, parquet"),
    ],
)
def test_what_cannot_be_exported_is_reported(call: Any, options: str, message: str) -> None:
    code, out, _ = call(f"export latest {options} --json")
    assert (code, json.loads(out)["error"]["code"]) == (2, "usage")
    assert message in json.loads(out)["error"]["message"]


def test_without_pyarrow_only_parquet_is_missing(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    code, out, _ = call("export latest --format parquet -o out.parquet --json")
    error = json.loads(out)["error"]
    assert (code, error["code"], error["remedy"]) == (
        2,
        "parquet_missing",
        "pip install 'tallyhook[parquet]', or choose jsonl or csv",
    )
    assert not Path("out.parquet").exists()
    assert call("export latest --format csv -o out.csv")[0] == 0
