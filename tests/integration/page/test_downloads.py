"""Each table of the page as a file: all of it, in each format; whose rows, and what others wrote in them."""

import csv
import io
import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pyarrow.parquet as pq
import pytest

from app.page.downloads import tables
from app.page.downloads.columns import shape_of_model
from app.page.downloads.tables import LISTINGS
from app.store.read.set_aside import InboxRow
from app.store.tables import deliveries, findings
from app.store.write.account_sheets import AccountSheet
from app.views.export_rows import ColumnKind
from tests.integration.api.test_reading import settled_run
from tests.integration.page.test_more_pages import delivery, finding, insert
from tests.integration.page.visiting import Visitor
from tests.integration.store.scenes import execute

FORMULA = '=HYPERLINK("http://evil.example","click")'
Row = dict[str, Any]


async def downloaded(visitor: Visitor, path: str) -> bytes:
    async with visitor.api.client.get(path, allow_redirects=False) as response:
        assert response.status == 200, (path, await response.text())
        assert response.headers["Content-Disposition"].startswith("attachment")
        assert response.headers["Cache-Control"] == "no-store"
        return await response.read()


async def rows_of(visitor: Visitor, name: str, query: str = "") -> Sequence[Row]:
    """As CSV has them, once it is seen that the others have as many."""
    as_csv = await downloaded(visitor, f"/downloads/{name}.csv{query}")
    rows = list(csv.DictReader(io.StringIO(as_csv.decode())))
    as_json = [
        json.loads(x) for x in (await downloaded(visitor, f"/downloads/{name}.jsonl{query}")).splitlines()
    ]
    as_parquet = pq.read_table(io.BytesIO(await downloaded(visitor, f"/downloads/{name}.parquet{query}")))
    assert len(rows) == len(as_json) == as_parquet.num_rows, name
    assert list(rows[0] if rows else as_parquet.column_names) == as_parquet.column_names, name
    return rows


async def fill(visitor: Visitor) -> str:
    """Something in each table; the run that all of it is about."""
    run_id = await settled_run(visitor.api)
    store, now_ms = visitor.api.store, visitor.api.clock()
    held_up = [delivery(now_ms, state="new", error="away", due_at_ms=now_ms + n // 3) for n in range(12)]
    await insert(visitor, deliveries, delivery(now_ms, error=FORMULA), *held_up)
    await store.refusals.add_refusals({"bad_signature": 7}, now_ms)
    await store.engine_days.count_results(1)
    await visitor.act("/bulk", {"verb": "retry", "q": "state:failed"})
    return run_id


FILLED = {
    "runs": 1,
    "accounts": 1,
    "ledger": 23,
    "balance-changes": 1,
    "findings": 1,
    "schedules": 0,
    "set-aside": 1,
    "held-up": 12,
    "refused": 1,
    "endpoints": 0,
    "bulk-changes": 1,
    "tokens": 1,
}


async def test_every_table_is_downloaded_whole_in_every_format(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "LIMIT_MAX", 5)  # several pages of each
    await fill(visitor)
    moved = {"from": "2026-11-01T00:00:00.000Z", "to": "2026-11-02T00:00:00.000Z", "actual": "-5"}
    figures = dict.fromkeys(("ours_lowest", "ours_highest", "foreign", "unexplained"), "0")
    sheet = {"audit": {"intervals": [moved | figures]}, "forecast": {"slots": {"max": 10, "used": 3}}}
    body = json.dumps(sheet)
    await visitor.api.store.account_sheets.keep_sheet(AccountSheet("default", visitor.api.clock(), body))
    found = {listing.name: await rows_of(visitor, listing.name) for listing in LISTINGS}
    assert {name: len(found[name]) for name in FILLED} == FILLED
    assert sum(int(day["answers"]) for day in found["engines"]) == 11
    (run,), (account,) = found["runs"], found["accounts"]
    assert (run["counts_total"], run["credits_charged"], run["created_at"][-1:]) == ("12", "52.5", "Z")
    assert account["balance_account"] == "default"
    assert sum(Decimal(row["credits"]) for row in found["ledger"] if row["kind"] == "post") == Decimal("52.5")
    assert found["set-aside"][0]["error"] == f"'{FORMULA}"
    assert "sha256" not in found["tokens"][0]


async def test_each_page_with_a_table_links_to_all_of_it(reader: Visitor) -> None:
    await fill(reader)
    links = set()
    for page in ("/", "/account", "/findings", "/engines", "/intake", "/actions", "/tokens", "/bulk"):
        for node in (await reader.look(page)).tree.css("a[download][href^='/downloads/']"):
            links.add((node.attributes["href"] or "").partition("?")[0])
    named = {one.name for one in LISTINGS if f"/downloads/{one.name}.csv" in links}
    filled = {name for name, count in FILLED.items() if count} | {"actions", "engines"}
    assert named == filled - {"balance-changes"}  # which an audit finds


async def test_what_is_tried_again_while_it_is_downloaded_stands_there_once(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "LIMIT_MAX", 2)
    now_ms, store = visitor.api.clock(), visitor.api.store
    rows = [delivery(now_ms + n, state="new", error="away", due_at_ms=now_ms + n) for n in range(5)]
    await insert(visitor, deliveries, *rows)
    read = store.set_aside.held_up_page

    async def read_and_tried(
        after: tuple[int, str] | None, limit: int, account: str | None
    ) -> list[InboxRow]:
        found = await read(after, limit, account)
        for row in found[:1]:
            later = deliveries.update().where(deliveries.c.id == row.id).values(due_at_ms=now_ms + 60_000)
            await execute(store, later)
        return found

    monkeypatch.setattr(store.set_aside, "held_up_page", read_and_tried)
    text = (await downloaded(visitor, "/downloads/held-up.jsonl")).decode()
    assert sorted(json.loads(line)["id"] for line in text.splitlines()) == sorted(row["id"] for row in rows)


async def test_findings_of_one_run_and_whose_rows_are_whose(stranger: Visitor) -> None:
    await stranger.sign_in()
    run_id = await fill(stranger)
    other = await stranger.api.run("of eu", account="eu")
    await insert(stranger, findings, finding(other, None, stranger.api.clock()))
    assert len(await rows_of(stranger, "findings")) == 2
    assert len(await rows_of(stranger, "findings", f"?run={run_id}")) == 1
    await stranger.sign_in("operate", "eu")
    assert [row["run_id"] for row in await rows_of(stranger, "findings")] == [other]
    assert [row["name"] for row in await rows_of(stranger, "runs")] == ["of eu"]
    assert {row["account"] for row in await rows_of(stranger, "tokens")} == {"eu"}
    for name in ("set-aside", "bulk-changes"):
        assert await rows_of(stranger, name) == [], name
    await stranger.sign_in("read")
    assert (await stranger.look("/downloads/tokens.csv")).status == 403
    assert (await stranger.look("/downloads/runs.xlsx")).status == 404
    assert (await stranger.look("/downloads/runs.csv?state=failed")).status == 422


def test_every_column_has_a_kind_that_each_format_writes() -> None:
    kinds = {name: kind for one in LISTINGS for name, kind in shape_of_model(one.model).columns.items()}
    assert kinds["counts_total"] is ColumnKind.WHOLE
    assert kinds["proposed_credits"] is ColumnKind.CREDITS
    assert kinds["finished_at"] is ColumnKind.TIME
    assert kinds["runs"] is ColumnKind.TEXTS
    assert kinds["forecast_warnings"] is ColumnKind.TEXT
