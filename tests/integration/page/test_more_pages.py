"""Account, findings, schedules, engines, intake and relay: empty, usual, hostile, and who may act."""

import io
import json
import zipfile
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.task import new_id
from app.domain.time_format import DAY_MS
from app.page.engines.figures import by_engine
from app.page.schedules.markup import every_in_words
from app.store.tables import deliveries, findings, ledger, results, runs, tasks
from app.store.write.account_sheets import AccountSheet
from app.store.write.engine_days import EngineDay
from tests.integration.page.conftest import StartPage
from tests.integration.page.test_site import HOSTILE
from tests.integration.page.visiting import Visitor

PATHS = ("/account", "/findings", "/schedules", "/engines", "/intake", "/relay")
SAFE = HOSTILE.replace("\x00", "").replace("\ud83d\ude00", "")


async def insert(visitor: Visitor, table: sa.Table, *rows: dict[str, Any]) -> None:
    async def work(connection: AsyncConnection) -> None:
        await connection.execute(sa.insert(table), list(rows))

    await visitor.api.store.db.write(work)


async def task_ids(visitor: Visitor, run_id: str) -> list[str]:
    async def work(connection: AsyncConnection) -> list[str]:
        query = sa.select(tasks.c.id).where(tasks.c.run_id == run_id).order_by(tasks.c.ordinal)
        return list(await connection.scalars(query))

    return await visitor.api.store.db.read(work)


def finding(run_id: str | None, task_id: str | None, at_ms: int, **more: Any) -> dict[str, Any]:
    row = {"at_ms": at_ms, "run_id": run_id, "task_id": task_id, "attempt": 1, "verdict": "overcharged"}
    figures = {"expected": Decimal(5), "actual": Decimal(7), "detail": "5 expected", "delivery_id": None}
    return row | figures | more


def delivery(at_ms: int, **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"id": new_id(at_ms), "source": "delivery", "account": None}
    row |= {"received_at_ms": at_ms, "encoding": "identity", "body": b'{"a":1}', "state": "quarantined"}
    return row | {"tries": 3, "due_at_ms": at_ms, "error": "no such field", "repeats": 0} | more


@pytest.mark.parametrize("path", PATHS)
async def test_each_page_says_that_there_is_nothing_yet(path: str, stranger: Visitor) -> None:
    await stranger.sign_in("read")
    seen = await stranger.look(path)
    assert seen.status == 200
    assert seen.tree.css_first(".empty") is not None
    assert [node.text() for node in seen.tree.css("nav a[aria-current=page]")] != []
    wrong = await stranger.look(path + "?nonsense=1")
    assert wrong.status == 422
    assert wrong.tree.css_first(f"main a[href='{path}']") is not None


async def test_findings_are_newest_first_by_run_and_with_their_difference(visitor: Visitor) -> None:
    api = visitor.api
    run_id, other = await api.run("monday"), await api.run("tuesday")
    (one, _), (two, _) = await task_ids(visitor, run_id), await task_ids(visitor, other)
    rows = [finding(run_id, one, n) for n in range(60)]
    await insert(visitor, findings, *rows, finding(other, two, 99, verdict="conflict", actual=None))
    await insert(visitor, findings, finding(None, None, 100, verdict="unmatched", detail=SAFE))
    seen = await visitor.look("/findings")
    kinds, each = seen.tree.css("table")
    assert "overcharged 60" in " ".join(kinds.text(separator=" ").split())
    first = each.css("tbody tr")
    assert len(first) == 50 and "unmatched" in first[0].text() and "conflict" in first[1].text()
    assert "<script>alert" not in seen.body and "<script>alert(1)</script>" in seen.text
    following = seen.tree.css_first("a[rel=next]")
    assert following is not None
    second = await visitor.look(following.attributes["href"] or "")
    assert len(second.tree.css("table")[1].css("tbody tr")) == 12
    of_run = await visitor.look(f"/findings?run={other}")
    assert "conflict" in of_run.text and len(of_run.tree.css("table")[1].css("tbody tr")) == 1
    assert (await visitor.look("/findings?run=x")).status == 422


async def test_the_dispute_of_a_run_is_one_click_away(visitor: Visitor, start_page: StartPage) -> None:
    run_id, empty = await visitor.api.run(SAFE), await visitor.api.run("clean")
    (one, _) = await task_ids(visitor, run_id)
    await insert(visitor, findings, finding(run_id, one, 1))
    link = (await visitor.look("/findings")).tree.css_first("a[download][href^='/runs/']")
    assert link is not None and link.attributes["href"] == f"/runs/{run_id}/dispute.zip"
    async with visitor.api.client.get(f"/runs/{run_id}/dispute.zip") as response:
        assert response.headers["Content-Disposition"].startswith("attachment")
        names = zipfile.ZipFile(io.BytesIO(await response.read())).namelist()
    assert "README.txt" in names and "manifest.json" in names
    assert (await visitor.look(f"/runs/{empty}/dispute.zip")).status == 404
    hiding = await start_page(visitor.api.store, page_hide_prompts=True)
    await hiding.sign_in("read")
    assert (await hiding.look(f"/runs/{run_id}/dispute.zip")).status == 403
    assert (await hiding.look("/findings")).tree.css_first("a[download][href^='/runs/']") is None


async def test_the_ledger_of_an_account_is_its_own(visitor: Visitor, start_page: StartPage) -> None:
    api = visitor.api
    run_id, other = await api.run("monday"), await api.run("tuesday", account="eu")
    ours, theirs = (await task_ids(visitor, run_id))[0], (await task_ids(visitor, other))[0]
    rows = [(run_id, ours, 1, "hold"), (other, theirs, 2, "hold"), (run_id, ours, 3, "post")]
    entries = [
        {"at_ms": at, "run_id": run, "task_id": task, "attempt": 1, "kind": kind, "credits": Decimal("5.5")}
        for run, task, at, kind in rows
    ]
    await insert(visitor, ledger, *entries)
    accounts = {"eu": {"api_key": "k", "webhook_secret": "s" * 32}}
    page = await start_page(api.store, accounts=json.dumps(accounts))
    await page.sign_in("read")
    first = [node.text(strip=True) for node in (await page.look("/account")).tree.css("tbody tr td .badge")]
    assert first == ["posted", "held"]
    assert (await page.look("/account?account=eu")).text.count("held") == 1
    assert (await page.look("/account?account=other")).status == 404


async def test_an_account_is_shown_as_its_last_audit_found_it(visitor: Visitor) -> None:
    api = visitor.api
    forecast = await _forecast(visitor)
    body = json.dumps({"plan": PLAN, "audit": AUDIT, "forecast": forecast | {"warnings": [WARNING]}})
    await api.store.account_sheets.keep_sheet(AccountSheet("default", api.clock(), "{}"))
    await api.store.account_sheets.keep_sheet(AccountSheet("default", api.clock(), body))
    text = (await visitor.look("/account")).text
    for words in ("12,345.25", "1,000,000", "12 days", "unexplained", "0.5", "credits may not suffice"):
        assert words in text, words
    assert "This is old" not in text
    api.clock.advance(3_600_000)
    assert "This is old" in (await visitor.look("/account")).text


async def _forecast(visitor: Visitor) -> dict[str, Any]:
    answer = await visitor.api.ask("/v1/forecast")
    document: dict[str, Any] = answer.document
    return document | {"balance": {"remaining": "12345.25", "at": "2026-11-20T10:00:00.000Z"}}


WARNING = {"kind": "credits", "sure": False, "run_id": None, "message": "credits may not suffice"}
PLAN = {
    "account": "default",
    "cycle": {
        "starts_at": "2026-11-01T00:00:00.000Z",
        "ends_at": "2026-12-01T00:00:00.000Z",
        "days_left": 12,
    },
    "allocation": 1_000_000,
    "used": 10,
    "foreign": 0,
    "held": {"tasks": 1, "credits": "5.5"},
    "unknown": {"tasks": 0, "credits": 0},
    "remaining": 999_990,
    "available": 999_984,
    "overage": 0,
    "audited": True,
    "provider": None,
    "burn": {"hours": 24, "credits_per_day": "1.5", "by": []},
}
AUDIT = {
    "explained": False,
    "unexplained": "0.5",
    "books": 999_990,
    "balance": None,
    "intervals": [
        {
            "from": "2026-11-20T10:00:00.000Z",
            "to": "2026-11-20T10:01:00.000Z",
            "actual": -7,
            "ours_lowest": -7,
            "ours_highest": -7,
            "foreign": 0,
            "unexplained": "0.5",
        }
    ],
}


@pytest.mark.parametrize(
    ("ms", "words"),
    [(DAY_MS, "every day"), (6 * 3_600_000, "every 6 hours"), (9_000_000, "every 2 hours 30 minutes")],
)
def test_a_step_of_time_is_said_in_words(ms: int, words: str) -> None:
    assert every_in_words(ms) == words


async def test_schedules_show_their_last_runs(visitor: Visitor) -> None:
    api = visitor.api
    schedule_id = await api.store.schedules.add_schedule(
        name=SAFE, source="/srv/p.csv", options="{}", every_ms=9_000_000, next_at_ms=10, now_ms=1
    )
    for n in range(22):
        run_id = await api.run(f"slot {n}", tasks=1)
        values = {"schedule_id": schedule_id, "slot_ms": n}

        async def work(connection: AsyncConnection, run_id: str = run_id, values: Any = values) -> None:
            await connection.execute(sa.update(runs).where(runs.c.id == run_id).values(**values))

        await api.store.db.write(work)
    seen = await visitor.look("/schedules")
    assert "every 2 hours 30 minutes" in seen.text and "slot 21" in seen.text
    assert len(seen.tree.css("svg.spark rect")) == 20
    assert "20 runs: 0 of 20 tasks completed" in seen.text
    assert "<script>alert" not in seen.body


async def test_results_are_counted_once_by_day_engine_and_time(visitor: Visitor) -> None:
    api, day_ms = visitor.api, 20_000 * DAY_MS
    run_id = await api.run(tasks=4)
    ids = await task_ids(visitor, run_id)
    times = (None, 500, 1_500, 90_000_000)
    charges = (None, Decimal(5), Decimal(5), Decimal("2.5"))
    for n, (task_id, took, charge) in enumerate(zip(ids, times, charges, strict=True), start=1):
        row = {"submitted_at_ms": None if took is None else day_ms, "credits_charged": charge}
        row["settled_at_ms"] = day_ms + (took or 0)

        async def work(connection: AsyncConnection, task_id: str = task_id, row: Any = row) -> None:
            await connection.execute(sa.update(tasks).where(tasks.c.id == task_id).values(**row))

        await api.store.db.write(work)
        result = {"task_id": task_id, "attempt": 1, "delivery_id": new_id(n), "stored_at_ms": day_ms + n}
        status = "failed" if n == 4 else "completed"
        more = {"status": status, "answer_bytes": 100, "answer_chars": 3 if n == 3 else 100, "seq": n}
        await insert(visitor, results, result | more | {"answer_sha256": b"0" * 32})
    counted = [await api.store.engine_days.count_results(20) for _ in range(2)]
    assert counted == [4, 0]
    days = await api.store.engine_days.engine_days(day_ms, None)
    (engine,) = by_engine(days)
    figures = engine.all
    assert (figures.answers, figures.completed, figures.usable, figures.charge_known) == (4, 3, 2, 3)
    assert (figures.charged, figures.per_usable) == (Decimal("12.5"), Decimal("6.25"))
    assert (figures.timed, figures.within_ms(33), figures.within_ms(66), figures.within_ms(99)) == (
        3,
        1_000,
        2_000,
        None,
    )
    assert await api.store.engine_days.engine_days(day_ms, "eu") == []
    api.clock.advance(day_ms + 5_000 - api.clock())
    await visitor.sign_in("read")
    text = (await visitor.look("/engines")).text
    assert "GEMINI" in text and "2 of 4 answers" in text and "6.25" in text and "over 1 d" in text


def test_figures_without_a_charge_or_an_answer_are_unknown_and_not_zero() -> None:
    (engine,) = by_engine([EngineDay("GEMINI", 0, -1, 1, 0, 0, Decimal(0), 0)])
    assert (engine.all.per_usable, engine.all.within_ms(50), engine.all.timed) == (None, None, 0)


async def test_what_is_set_aside_is_shown_with_its_evidence_and_looked_at_again(visitor: Visitor) -> None:
    api = visitor.api
    now = api.clock()
    rows = [delivery(now + n, body=SAFE.encode()) for n in range(26)]
    held = [delivery(now, state="new", error="the database was away", account="eu") for _ in range(26)]
    await insert(visitor, deliveries, *rows, *held)
    seen = await visitor.look("/intake")
    aside, waiting = seen.tree.css("table")
    assert len(aside.css("tbody tr")) == 25 and "the database was away" in waiting.text()
    for _ in range(2):  # of what is set aside, then of what is held up, beside each other
        following = seen.tree.css("a[rel=next]")[0]
        seen = await visitor.look(following.attributes["href"] or "")
    assert [len(one.css("tbody tr")) for one in seen.tree.css("table")] == [1, 1]
    shown = await visitor.look(f"/intake/{rows[0]['id']}")
    assert "<script>alert" not in shown.body and "<script>alert(1)</script>" in shown.text
    assert (await visitor.act(f"/intake/{rows[0]['id']}/retry")).status == 303
    assert await api.store.set_aside.set_aside_count() == 25
    listed, _ = await api.store.access.actions_before(None, 9)
    assert "inbox.retry" in [one.action for one in listed]


async def test_who_may_read_only_acts_nowhere(stranger: Visitor) -> None:
    row = delivery(stranger.api.clock())
    await insert(stranger, deliveries, row)
    await stranger.sign_in("read")
    assert (await stranger.look("/intake")).tree.css("main form") == []
    for path in (f"/intake/{row['id']}/retry", f"/relay/{row['id']}/retry"):
        assert (await stranger.act(path)).status == 403
    assert await stranger.api.store.set_aside.set_aside_count() == 1


async def test_another_account_s_deliveries_are_nobody_else_s(stranger: Visitor) -> None:
    row = delivery(stranger.api.clock(), account="eu")
    await insert(stranger, deliveries, row)
    await stranger.sign_in("operate", "default")
    assert "Nothing is set aside" in (await stranger.look("/intake")).text
    assert (await stranger.look(f"/intake/{row['id']}")).status == 404
    assert (await stranger.act(f"/intake/{row['id']}/retry")).status == 404


async def test_refusals_are_added_up_by_hour_and_forgotten(visitor: Visitor) -> None:
    refusals, now = visitor.api.store.refusals, visitor.api.clock()
    await refusals.add_refusals({"bad_signature": 2, "stale": 1}, now)
    await refusals.add_refusals({"bad_signature": 3}, now)
    found = await refusals.refused_since(0)
    assert [(one.reason, one.count) for one in found] == [("bad_signature", 5), ("stale", 1)]
    text = (await visitor.look("/intake")).text
    assert "bad signature" in text
    await refusals.add_refusals({"stale": 1}, now + 40 * DAY_MS)
    assert [(one.reason, one.count) for one in await refusals.refused_since(0)] == [("stale", 1)]


async def test_endpoints_are_shown_with_what_waits(visitor: Visitor) -> None:
    assert "Nothing is pushed anywhere yet" in (await visitor.look("/relay")).text
