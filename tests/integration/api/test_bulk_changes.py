"""Bulk changes and single tasks over HTTP: tried out, confirmed once, refused; who may."""

from typing import Any

import pytest
import sqlalchemy as sa

from app.domain.task import TaskState
from app.services.bulk_changes import carry_out
from app.store.tables import actions, tasks
from tests.integration.api.asking import Answered, Api

PATH = "/v1/bulk-changes"


async def propose(api: Api, verb: str = "retry", filter: object = None, **asked: Any) -> Answered:
    return await api.ask(PATH, "POST", json={"verb": verb, "filter": filter or {}}, **asked)


async def confirm(api: Api, change: Answered, **body: object) -> Answered:
    proposed = change.document["proposed"]
    figures = {"matched": proposed["matched"], "credits": proposed["credits"]}
    path = f"{PATH}/{change.document['id']}/confirm"
    return await api.ask(path, "POST", json=figures | body)


async def failed_run(api: Api, tasks_: int = 3, account: str = "default") -> str:
    run_id = await api.run(tasks=tasks_, account=account)
    async with api.store.db.engine.begin() as connection:
        failed = {"state": TaskState.FAILED, "reported": "failed"}
        await connection.execute(sa.update(tasks).where(tasks.c.run_id == run_id).values(**failed))
    api.clock.advance(1)
    return run_id


async def test_what_is_confirmed_is_done_once(api: Api) -> None:
    run_id = await failed_run(api)
    asked = {"run_id": run_id, "state": "failed", "text": "QUESTION"}
    tried = await propose(api, filter=asked)
    assert (tried.status, tried.document["state"]) == (201, "proposed")
    assert tried.headers["Location"] == f"{PATH}/{tried.document['id']}"
    assert tried.document["filter"] == f"state:failed run:{run_id} text:QUESTION"
    assert tried.document["proposed"] == {
        "matched": 3,
        "credits": "15",
        "left_held": 0,
        "left_answered": 0,
        "held": "0",
    }
    assert (await confirm(api, tried, matched=2)).document["errors"][0]["code"] == "other_figures"
    assert (await confirm(api, tried, filter="state:failed")).document["errors"][0]["code"] == "other_filter"
    for _ in range(2):
        begun = await confirm(api, tried, filter=tried.document["filter"])
        assert (begun.status, begun.document["state"], begun.document["lapses_at"]) == (202, "running", None)
    await carry_out(api.store, tried.document["id"], clock=api.clock)
    shown = await api.ask(tried.headers["Location"], scope="read")
    assert (shown.document["state"], shown.document["done"]["matched"]) == ("finished", 3)
    assert (await confirm(api, tried)).document == shown.document
    assert (await api.ask(PATH, scope="read")).document["data"] == [shown.document]
    async with api.store.db.engine.connect() as connection:
        kept = await connection.execute(sa.select(actions.c.action, actions.c.subject, actions.c.status))
        assert {tuple(row) for row in kept} >= {("bulk_change.confirm", tried.document["id"], 202)}
        assert set(await connection.scalars(sa.select(tasks.c.attempt))) == {2}


async def test_it_is_stopped_and_lapses(sqlite_api: Api) -> None:
    api = sqlite_api
    await failed_run(api)
    tried = await propose(api)
    stop = f"{PATH}/{tried.document['id']}/stop"
    assert (await api.ask(stop, "POST")).document["errors"][0]["code"] == "not_running"
    await confirm(api, tried)
    assert (await api.ask(stop, "POST")).document["state"] == "stopped"
    late = await propose(api)
    api.clock.advance(3_600_000)
    assert (await confirm(api, late)).document["errors"][0]["code"] == "lapsed"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"verb": "delete"}, "verb"),
        ({"verb": "retry", "filter": {"states": "failed"}}, "filter.states"),
        ({"verb": "retry", "filter": {"state": "completed"}}, "filter.state"),
        ({"verb": "retry", "filter": {"text": "x"}}, "filter.text"),
        ({"verb": "pause", "filter": {"country": "GB"}}, "filter.country"),
        ({"verb": "retry", "filter": {"run_id": "00000000-0000-7000-8000-000000000000"}}, "filter.run_id"),
    ],
)
async def test_what_cannot_be_meant_is_refused(sqlite_api: Api, body: object, field: str) -> None:
    refused = await sqlite_api.ask(PATH, "POST", json=body)
    assert (refused.status, refused.document["errors"][0]["field"]) == (422, field)


async def test_who_may_and_of_what(sqlite_api: Api) -> None:
    api = sqlite_api
    await failed_run(api, 1)
    run_id = await failed_run(api, 2, account="eu")
    theirs = await propose(api, account="eu")
    assert (theirs.document["proposed"]["matched"], theirs.document["account"]) == (2, "eu")
    everyone = await propose(api)
    assert everyone.document["proposed"]["matched"] == 3
    for path in (everyone.headers["Location"], f"{everyone.headers['Location']}/confirm"):
        method = "POST" if path.endswith("confirm") else "GET"
        body = {"matched": 3, "credits": "15"} if method == "POST" else None
        assert (await api.ask(path, method, account="eu", json=body)).status == 404
    for scope in ("read", "submit"):
        assert (await propose(api, scope=scope)).status == 403
        task_id = (await api.ask(f"/v1/runs/{run_id}/tasks")).document["data"][0]["id"]
        for verb in ("retry", "cancel"):
            assert (await api.ask(f"/v1/tasks/{task_id}/{verb}", "POST", scope=scope)).status == 403
        for verb in ("confirm", "stop"):
            path = f"{everyone.headers['Location']}/{verb}"
            assert (await api.ask(path, "POST", scope=scope)).status == 403


async def test_one_task_is_sent_again_or_never(api: Api) -> None:
    run_id = await failed_run(api, 2)
    listed = (await api.ask(f"/v1/runs/{run_id}/tasks")).document["data"]
    first, second = (f"/v1/tasks/{task['id']}" for task in listed)
    key = {"Idempotency-Key": "k"}
    again = await api.ask(f"{first}/retry", "POST", headers=key)
    assert (again.status, again.document["state"], again.document["attempt"]) == (200, "pending", 2)
    assert (await api.ask(f"{first}/retry", "POST", headers=key)).body == again.body
    refused = await api.ask(f"{first}/retry", "POST")
    assert (refused.status, refused.document["errors"][0]["code"]) == (409, "not_retryable")
    assert (await api.ask(f"{second}/cancel", "POST")).document["errors"][0]["code"] == "not_open"
    assert (await api.ask(f"{first}/cancel", "POST")).document["state"] == "cancelled"
    async with api.store.db.engine.begin() as connection:
        await connection.execute(sa.update(tasks).where(tasks.c.ordinal == 2).values(state="expired"))
    held = await api.ask(f"{second}/retry", "POST")
    assert (held.status, held.document["errors"][0]["code"]) == (409, "may_be_charged")
    paid = await api.ask(f"{second}/retry", "POST", json={"even_if_held": True})
    assert paid.document["attempt"] == 2
    assert (await api.ask(f"{second}/retry", "POST", account="eu")).status == 404
