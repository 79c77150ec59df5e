"""What the API reads of runs that went in all ways: tasks, books, evidence, accounts, schedules."""

from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.accounting.balances import Balance
from app.domain.own_columns import OwnColumns
from app.domain.task import TaskSpec, new_id
from app.services.certify import certify
from app.store.read import books_pages, task_pages
from app.store.tables import deliveries
from tests.integration.api.asking import Api
from tests.integration.store.scenes import ended, failed_on, report_on, settle_all

ENGINES = ("CHATGPT", "GEMINI", "PERPLEXITY")
MINUTE_MS, DAY_MS = 60_000, 86_400_000


async def settled_run(api: Api, account: str = "default", tasks: int = 12) -> str:
    """A run of three engines and two countries: one failed, one was overcharged, one is open."""
    store, now = api.store, api.clock
    run_id = await store.runs.create_run(
        name="r", source="p.csv", budget=None, now_ms=now.advance(1), account=account
    )
    specs = [
        (
            TaskSpec(
                n,
                ENGINES[n % 3],
                {"prompt": f"secret {n}", "country": "GB" if n % 2 else "DE"},
                own=OwnColumns(n, f"row-{n}", '{"theme": "banks"}'),
            ),
            Decimal(5),
        )
        for n in range(1, tasks + 1)
    ]
    await store.runs.add_tasks(run_id, specs, now())
    await store.runs.start_run_if_loading(run_id, sha256="0", bad_lines=0)
    sent = await store.submissions.claim_pending(
        limit=tasks, claim="me", now_ms=now(), lease_until_ms=now() + 60_000, account=account
    )
    await store.submissions.record_submissions([ended(task) for task in sent])
    reports = [report_on(task) for task in sent]
    reports[0], reports[1] = failed_on(sent[0]), report_on(sent[1], "7.5")
    await settle_all(store, *reports[:-1])
    return run_id


async def pages(api: Api, path: str, **how: Any) -> tuple[list[Any], int]:
    """All that is on the pages of a list, and how many pages there were."""
    found: list[Any] = []
    count = 0
    while path:
        page = await api.ask(path, **how)
        assert page.status == 200, page.document
        found += page.document["data"]
        count += 1
        path = page.headers["Link"][1:].partition(">")[0] if "Link" in page.headers else ""
    return found, count


@pytest.mark.parametrize(
    ("query", "ordinals"),
    [
        ("", list(range(1, 13))),
        ("state=failed", [1]),
        ("state=submitted", [12]),
        ("engine=gemini", [1, 4, 7, 10]),
        ("engine=GEMINI&country=de", [4, 10]),
        ("verdict=overcharged", [2]),
        ("verdict=overcharged&state=failed", []),
        ("custom_id=row-7", [7]),
        ("custom_id=row-7&engine=CHATGPT", []),
        ("custom_id=none", []),
        ("custom_id=%00%FF", []),
    ],
)
async def test_tasks_by_every_filter(
    query: str, ordinals: list[int], api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = await settled_run(api)
    found, _ = await pages(api, f"/v1/runs/{run_id}/tasks?limit=3&{query}")
    assert [task["ordinal"] for task in found] == ordinals
    monkeypatch.setattr(task_pages, "RANGE", 2)
    monkeypatch.setattr(task_pages, "RANGES_MAX", 2)
    monkeypatch.setattr(task_pages, "WITHIN_S", 60.0)
    again, count = await pages(api, f"/v1/runs/{run_id}/tasks?{query}")
    assert again == found
    assert count == (1 if "custom_id" in query else 3), "each page looks through four tasks"


async def test_filters_that_are_none(api: Api) -> None:
    run_id = await settled_run(api)
    for query, field in (("status=failed", "status"), ("state=done", "state"), ("engine=bing", "engine")):
        answered = await api.ask(f"/v1/runs/{run_id}/tasks?{query}")
        (error,) = answered.document["errors"]
        assert (answered.status, error["field"]) == (422, field)
    misnamed = (await api.ask(f"/v1/runs/{run_id}/tasks?country=UK")).document["errors"][0]
    assert (misnamed["field"], misnamed["remedy"]) == ("country", "is no country code: use GB")
    assert "state, engine, country, verdict, custom_id" in str(
        (await api.ask(f"/v1/runs/{run_id}/tasks?status=failed")).document
    )


async def test_a_task_with_everything_that_is_known_of_it(api: Api) -> None:
    run_id = await settled_run(api)
    listed, _ = await pages(api, f"/v1/runs/{run_id}/tasks?custom_id=row-2")
    task = (await api.ask(f"/v1/tasks/{listed[0]['id']}")).document
    assert task["payload"]["prompt"] == "secret 2"
    assert (task["custom_id"], task["metadata"]) == ("row-2", {"theme": "banks"})
    assert task["credits"] == {"estimated": "5", "to_charge": "5", "held": "5", "charged": "7.5"}
    (attempt,) = task["attempts"]
    assert [send["answer"] for send in attempt["sends"]] == ["accepted"]
    (report,) = attempt["deliveries"]
    assert (report["source"], report["effect"], len(report["body_sha256"])) == ("delivery", "settled", 64)
    assert [(entry["kind"], entry["credits"]) for entry in task["ledger"]] == [("hold", "5"), ("post", "7.5")]
    (finding,) = task["findings"]
    assert (finding["verdict"], finding["expected"], finding["actual"]) == ("overcharged", "5", "7.5")
    assert finding["verdict"] == task["verdict"]
    assert task["settled_at"].endswith("Z")


async def test_the_books_entry_by_entry(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = await settled_run(api), await settled_run(api, "eu")
    monkeypatch.setattr(books_pages, "RANGE", 7)
    monkeypatch.setattr(books_pages, "RUN_TASKS", 5)
    everything, _ = await pages(api, "/v1/ledger?limit=5")
    assert len(everything) == 2 * (12 + 11)
    assert [entry["id"] for entry in everything] == sorted({entry["id"] for entry in everything})
    of_account, _ = await pages(api, "/v1/ledger?limit=5", account="eu")
    assert of_account == [entry for entry in everything if entry["run_id"] == theirs]
    of_run, _ = await pages(api, f"/v1/ledger?run_id={ours}&limit=4")
    assert sorted(entry["id"] for entry in of_run) == [e["id"] for e in everything if e["run_id"] == ours]
    found, _ = await pages(api, "/v1/findings?limit=1")
    assert [(finding["run_id"], finding["verdict"]) for finding in found] == [
        (ours, "overcharged"),
        (theirs, "overcharged"),
    ]
    assert (await pages(api, "/v1/findings", account="eu"))[0] == found[1:]
    assert (await pages(api, f"/v1/findings?run_id={ours}"))[0] == found[:1]


async def test_report_and_certificate_are_those_of_the_commands(api: Api) -> None:
    run_id = await settled_run(api)
    report = (await api.ask(f"/v1/runs/{run_id}/report")).document
    assert (report["tasks"], report["open"], report["failed"]) == (12, 1, 1)
    assert report["credits"]["posted"] == "52.5"
    certificate = (await api.ask(f"/v1/certificates/{run_id}")).document
    assert certificate == await certify(api.store, run_id, clock=api.clock)
    assert not certificate["complete"]


async def test_accounts(api: Api) -> None:
    assert (await api.ask("/v1/balance")).document["remaining"] is None
    now = api.clock()
    told = Balance(now, Decimal("99.5"), Decimal(1000), now + 1000)
    await api.store.accounts.store_balance("default", told)
    balance = (await api.ask("/v1/balance")).document
    assert (balance["account"], balance["remaining"], balance["per_cycle"]) == ("default", "99.5", "1000")
    await settled_run(api)
    forecast = (await api.ask("/v1/forecast")).document
    assert (forecast["account"], forecast["queued"]["tasks"]) == ("default", 1)
    assert (await api.ask("/v1/balance?account=none")).status == 404
    assert (await api.ask("/v1/balance?account=eu", account="default")).status == 404


async def test_what_only_the_time_changes_is_not_sent_again(api: Api) -> None:
    """Report, certificate and forecast, until something moves that they are made of."""
    now = api.clock()
    told = Balance(now, Decimal(900), Decimal(1000), now + 30 * DAY_MS)
    await api.store.accounts.store_balance("default", told)
    run_id = await api.run()
    paths = (f"/v1/runs/{run_id}/report", f"/v1/certificates/{run_id}", "/v1/forecast", "/v1/balance")
    known = {path: (await api.ask(path)).headers["ETag"] for path in paths}
    assert [etag.startswith("W/") for etag in known.values()] == [False, True, True, False]
    api.clock.advance(MINUTE_MS)
    for path, etag in known.items():
        again = await api.ask(path, headers={"If-None-Match": etag})
        assert (again.status, again.body, again.headers["ETag"]) == (304, b"", etag), path
    await api.store.runs.cancel_run(run_id, "by hand")
    await api.store.accounts.store_balance("default", Balance(now + 1, Decimal(800), None, None))
    for path, etag in known.items():
        assert (await api.ask(path, headers={"If-None-Match": etag})).status == 200, path


async def test_what_is_of_another_account_is_not_there(api: Api) -> None:
    theirs = await settled_run(api, "us")
    task_id = (await api.ask(f"/v1/runs/{theirs}/tasks?limit=1")).document["data"][0]["id"]
    for path in (
        f"/v1/runs/{theirs}",
        f"/v1/runs/{theirs}/tasks",
        f"/v1/runs/{theirs}/report",
        f"/v1/certificates/{theirs}",
        f"/v1/tasks/{task_id}",
        f"/v1/ledger?run_id={theirs}",
        f"/v1/findings?run_id={theirs}",
        "/v1/balance?account=us",
    ):
        assert (await api.ask(path, account="eu")).status == 404, path
        assert (await api.ask(path)).status == (404 if "balance" in path else 200), path


async def test_schedules(api: Api) -> None:
    for name, options in (("a", "{}"), ("b", '{"account": "eu"}')):
        await api.store.schedules.add_schedule(
            name=name, source="/p.csv", options=options, every_ms=60_000, next_at_ms=0, now_ms=api.clock()
        )
    assert [s["name"] for s in (await pages(api, "/v1/schedules"))[0]] == ["a", "b"]
    assert [s["name"] for s in (await pages(api, "/v1/schedules", account="eu"))[0]] == ["b"]


async def test_the_inbox_is_listed_and_looked_at_again_by_who_may(api: Api) -> None:
    now = api.clock()
    rows = [set_aside(now + n) for n in range(3)]
    waiting = [set_aside(now, state="new") for _ in range(3)]

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(sa.insert(deliveries), [*rows, *waiting])

    await api.store.db.write(work)
    first = (await api.ask("/v1/inbox?limit=2", scope="read")).document
    assert [row["id"] for row in first["data"]] == [rows[2]["id"], rows[1]["id"]]
    rest = (await api.ask(f"/v1/inbox?cursor={first['next_cursor']}", scope="read")).document
    assert [(row["id"], row["state"]) for row in rest["data"]] == [(rows[0]["id"], "set_aside")]
    first = (await api.ask("/v1/inbox/held-up?limit=2", scope="read")).document
    (last,) = (await api.ask(f"/v1/inbox/held-up?cursor={first['next_cursor']}", scope="read")).document[
        "data"
    ]
    assert [row["id"] for row in [*first["data"], last]] == sorted(row["id"] for row in waiting)
    assert (last["state"], last["next_try_at"] is not None) == ("held_up", True)
    path = f"/v1/inbox/{rows[0]['id']}/retry"
    assert (await api.ask(path, "POST", scope="submit")).status == 403
    assert (await api.ask(path, "POST", account="eu")).status == 404
    key = {"Idempotency-Key": "once"}
    for _ in range(2):
        assert (await api.ask(path, "POST", headers=key)).document == {"deliveries": 1}
    assert (await api.ask(path, "POST")).document == {"deliveries": 0}


def set_aside(at_ms: int, **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"id": new_id(at_ms), "source": "delivery", "received_at_ms": at_ms}
    row |= {"encoding": "identity", "body": b"{}", "state": "quarantined", "tries": 3, "due_at_ms": at_ms}
    return row | {"error": "no such field", "repeats": 0} | more
