"""The provider's dialect, through real HTTP on a real store: shapes, refusals, keys, runs of a day."""

import asyncio
import contextlib
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from app.api.dialects.provider import monitor
from app.domain.accounting.balances import Balance
from app.domain.run_reason import ReasonCode, RunReason
from app.domain.task import RunState
from app.store.tables import actions, runs, task_keys, tasks
from tests.client_requests import APP_PAYLOADS, MCP_BODIES, N8N_BODIES
from tests.integration.api.asking import Answered, Api, until

PAYLOAD = {"prompt": "Which CRM suits a small firm?", "country": "DE"}


def task(**more: Any) -> dict[str, Any]:
    return {"taskType": "GEMINI", "payload": PAYLOAD} | more


async def create(api: Api, **more: Any) -> Answered:
    return await api.ask("/v1/async/task", "POST", json=task(**more))


async def rows(api: Api, table: sa.Table) -> list[Any]:
    async with api.store.db.engine.connect() as connection:
        return list((await connection.execute(sa.select(table))).all())


async def test_a_task_is_stored_before_it_is_acknowledged(api: Api) -> None:
    answered = await create(api, priority=5, idempotencyKey="k-1")
    assert answered.status == 200
    head = answered.document["task"]
    assert head | {"id": "", "createdAt": ""} == {
        "id": "",
        "taskType": "GEMINI",
        "status": "QUEUED",
        "priority": 5,
        "createdAt": "",
        "latencyMs": None,
        "idempotencyKey": "k-1",
    }
    assert answered.document["credits"] == {"creditsToCharge": 4, "creditsCharged": None}
    (row,) = await rows(api, tasks)
    (run,) = await rows(api, runs)
    assert (row.id, row.run_id, row.ordinal, row.priority) == (head["id"], run.id, 1, 5)
    assert (run.state, run.source) == (RunState.RUNNING, "api")
    assert run.name.startswith("api-operate ")
    action = (await rows(api, actions))[-1]
    assert (action.action, action.subject, action.status) == ("provider.task", head["id"], 200)
    for name in (head["id"], "k-1"):
        shown = await api.ask(f"/v1/async/task/{name}")
        assert shown.document == {"task": head, "credits": answered.document["credits"]}
    assert (await api.ask("/v1/async/task/k-1", scope="submit")).status == 404, "the key is another token's"


async def test_a_caller_that_repeats_itself_buys_nothing_twice(api: Api) -> None:
    await api.token()
    answers = await asyncio.gather(*(create(api, idempotencyKey="k") for _ in range(20)))
    assert sorted(answer.status for answer in answers) == [200, *[409] * 19]
    refused = next(answer for answer in answers if answer.status == 409).document
    assert refused["success"] is False
    assert refused["error"]["code"] == "RESOURCE_ALREADY_EXISTS"
    assert refused["error"]["details"] == {"field": "idempotencyKey", "value": "k"}
    other_body = await create(api, idempotencyKey="k", payload=PAYLOAD | {"country": "FR"})
    assert other_body.status == 409
    assert len(await rows(api, tasks)) == 1
    assert (
        await api.ask("/v1/async/task", "POST", scope="submit", json=task(idempotencyKey="k"))
    ).status == 200
    assert len(await rows(api, task_keys)) == 2


async def test_a_batch_is_judged_item_by_item(api: Api) -> None:
    items = [
        task(idempotencyKey="a"),
        task(idempotencyKey="a"),
        task(payload={"prompt": "x"}),
        {"taskType": "NONE", "payload": {}},
        7,
        task(),
    ]
    answered = await api.ask("/v1/async/task/batch", "POST", json=items)
    document = answered.document
    assert document["summary"] == {"total": 6, "succeeded": 2, "failed": 4}
    codes = [result.get("error", {}).get("code") for result in document["results"]]
    wrong = "VALIDATION_ERROR"
    assert codes == [None, "RESOURCE_ALREADY_EXISTS", wrong, wrong, wrong, None]
    assert [set(result) for result in document["results"][:2]] == [
        {"success", "index", "task", "credits"},
        {"success", "index", "error"},
    ]
    missing = document["results"][2]["error"]["details"]["errors"][0]
    assert (missing["field"], "missing" in missing["message"]) == ("payload.country", True)
    assert [row.ordinal for row in await rows(api, tasks)] == [1, 2]
    for body in ([], [task()] * 501, {"tasks": []}):
        whole = await api.ask("/v1/async/task/batch", "POST", json=body)
        assert (whole.status, whole.document["error"]["code"]) == (400, wrong)


REFUSED: list[tuple[Any, str]] = [
    (task(payload={"prompt": "", "country": "DE"}), "payload.prompt"),
    (task(payload=PAYLOAD | {"country": "de"}), "payload.country"),
    (task(payload=PAYLOAD | {"country": PAYLOAD["prompt"]}), "payload.country"),
    (task(payload=PAYLOAD | {"include": {"ads": True}}), "payload.include"),
    (task(payload=PAYLOAD | {"colour": "red"}), "payload.colour"),
    (task(priority=11), "priority"),
    (task(priority="5"), "priority"),
    (task(idempotencyKey=""), "idempotencyKey"),
    (task(idempotencyKey="a\nb"), "idempotencyKey"),
    (task(webhook={"url": "https://a.example", "secret": "s"}), "webhook.secret"),
    (task(webhook={"url": "https://10.0.0.7/hooks"}), "webhook.url"),
    (task(webhook={"url": "ftp://a.example"}), "webhook.url"),
    (task(taskType="gemini"), "taskType"),
    (task(extra=1), "extra"),
    ({"taskType": "GEMINI"}, "payload"),
]


async def test_what_the_provider_refuses_is_refused(sqlite_api: Api) -> None:
    for body, field in REFUSED:
        answered = await sqlite_api.ask("/v1/async/task", "POST", json=body)
        error = answered.document["error"]
        assert (answered.status, error["code"]) == (400, "VALIDATION_ERROR")
        assert [detail["field"] for detail in error["details"]] == [field]
        assert PAYLOAD["prompt"] not in answered.body.decode()


async def test_codes_of_keys_and_scopes(sqlite_api: Api) -> None:
    api = sqlite_api
    for header, code in (
        ({"Authorization": ""}, "MISSING_API_KEY"),
        ({"Authorization": "Bearer sk_live_0"}, "INVALID_API_KEY_FORMAT"),
        ({"Authorization": f"Bearer thk_{'0' * 9}_{'0' * 43}"}, "INVALID_OR_EXPIRED_API_KEY"),
    ):
        answered = await api.ask("/v1/credits", headers=header)
        assert (answered.status, answered.document["error"]["code"]) == (401, code)
    answered = await api.ask("/v1/async/task", "POST", scope="read", json=task())
    assert (answered.status, answered.document["error"]["code"]) == (403, "INSUFFICIENT_PERMISSIONS")
    answered = await api.ask("/v1/async/task/none")
    assert (answered.status, answered.document["error"]["code"]) == (404, "RESOURCE_NOT_FOUND")
    answered = await api.ask("/v1/monitor/GEMINI", "POST", json=PAYLOAD)
    assert answered.status == 404
    assert "'gemini'" in answered.document["error"]["message"]


async def test_credits_are_the_balance_less_what_is_queued(api: Api) -> None:
    assert (await api.ask("/v1/credits")).status == 404
    balance = Balance(api.clock(), Decimal(10), Decimal(500), api.clock() + 86_400_000)
    await api.store.accounts.store_balance("default", balance)
    assert (await create(api)).status == 200
    api.clock.advance(3_000)
    shown = (await api.ask("/v1/credits")).document
    assert (shown["remaining"], shown["perCycle"]) == (6, 500)
    batch = (await api.ask("/v1/async/task/batch", "POST", json=[task(), task()])).document
    assert [result["success"] for result in batch["results"]] == [True, False]
    assert batch["results"][1]["error"]["code"] == "INSUFFICIENT_CREDITS"
    refused = await create(api)
    assert (refused.status, refused.document["error"]["code"]) == (403, "INSUFFICIENT_CREDITS")
    queue = (await api.ask("/v1/async/status")).document
    assert queue == {
        "queuedTasks": 2,
        "processingTasks": 0,
        "priorityBreakdown": [{"priority": 1, "count": 2}],
        "concurrency": None,
    }


async def test_a_standing_run_lasts_a_day_and_goes_on_after_its_end(api: Api) -> None:
    first = (await create(api)).document["task"]["id"]
    (run,) = await rows(api, runs)
    await api.store.runs.cancel_run(run.id, "enough")
    answered = (await api.ask(f"/v1/async/task/{first}")).document
    assert (answered["task"]["status"], answered["credits"]["creditsCharged"]) == ("FAILED", 0)
    assert "cancelled" in answered["response"]["error"]["message"]
    # What was cancelled takes no more.
    api.clock.advance(1)
    await create(api)
    second = max(await rows(api, runs), key=lambda row: row.id)
    assert second.id != run.id
    await api.store.runs.halt_run_if_running(
        second.id, RunState.PAUSED, RunReason(ReasonCode.NO_CREDITS, "no credits")
    )
    assert (await create(api)).status == 200, "a paused one waits with its tasks"
    async with api.store.db.engine.begin() as connection:
        await connection.execute(sa.update(tasks).values(state="completed"))
    assert await api.store.run_ends.finish_runs(api.clock()) == 1, "the cancelled one"
    api.clock.advance(26 * 3_600_000)
    assert await api.store.run_ends.finish_runs(api.clock()) == 1
    await create(api)
    assert len(await rows(api, runs)) == 3
    # Found as finished by a clock that runs ahead, or by the version before.
    async with api.store.db.engine.begin() as connection:
        await connection.execute(sa.update(runs).values(state="finished", finished_at_ms=1))
    await create(api)
    newest = max(await rows(api, runs), key=lambda row: row.id)
    assert (newest.state, newest.finished_at_ms) == ("running", None)


async def test_countries_and_states(sqlite_api: Api) -> None:
    everywhere = (await sqlite_api.ask("/v1/countries")).document
    chatgpt = (await sqlite_api.ask("/v1/countries?model=chatgpt")).document
    overview = (await sqlite_api.ask("/v1/countries?model=aioverview")).document
    assert (len(everywhere), len(chatgpt), len(overview)) == (250, 244, 231)
    states = (await sqlite_api.ask("/v1/states?country=US")).document
    assert (await sqlite_api.ask("/v1/states")).document == states, "as the vendor's client asks"
    assert (len(states), states[0]) == (51, {"code": "AL", "name": "Alabama"})
    assert (await sqlite_api.ask("/v1/states?country=FR")).document == []
    for wrong in ("/v1/states?country=usa", "/v1/countries?model=bing"):
        answered = await sqlite_api.ask(wrong)
        assert (answered.status, answered.document["error"]["code"]) == (400, "VALIDATION_ERROR")


async def test_what_shipped_clients_send_is_taken(sqlite_api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample apps, the n8n node and the vendor's own tools: each request is stored as a task."""
    for n, (task_type, payload) in enumerate(APP_PAYLOADS):
        more = {"idempotencyKey": f"k-{n}", "webhook": {"url": "https://example.com/hook?token=t"}}
        taken = await sqlite_api.ask(
            "/v1/async/task", "POST", json={"taskType": task_type, "payload": payload} | more
        )
        assert taken.status == 200, (task_type, taken.body)
        shown = await sqlite_api.ask(f"/v1/async/task/{taken.document['task']['id']}")
        assert (shown.document["task"]["status"], shown.document["credits"]["creditsCharged"]) == (
            "QUEUED",
            None,
        )
    monkeypatch.setattr(monitor, "WAIT_S", 0)
    news = [("google-news", body) for path, body in N8N_BODIES if path == "google/news"]
    for path, body in [*N8N_BODIES, *MCP_BODIES, *news]:
        answer = await sqlite_api.ask(f"/v1/monitor/{path}", "POST", json=body)
        # Nobody answers it here: it was waited for.
        assert (answer.status, answer.document["error"]["message"]) == (500, monitor.TIMED_OUT), (path, body)
    assert len(await rows(sqlite_api, tasks)) >= len(APP_PAYLOADS) + len(N8N_BODIES)


async def test_one_request_that_cannot_be_stored_fails_alone(sqlite_api: Api) -> None:
    api = sqlite_api
    await api.token()
    store_all = api.store.standing.take_tasks
    calls: list[int] = []

    async def refuse_secret(takings: Any, now_ms: int) -> set[str]:
        calls.append(len(takings))
        if any(task.key == "bad" for taking in takings for task in taking.tasks):
            raise ValueError("a row that no database takes")
        return await store_all(takings, now_ms)

    api.store.standing.take_tasks = refuse_secret  # type: ignore[method-assign]
    keys = ["a", "b", "bad", "c", "d"]
    answers = await asyncio.gather(*(create(api, idempotencyKey=key) for key in keys))
    assert [answer.status for answer in answers] == [200, 200, 500, 200, 200]
    assert answers[2].document["error"]["code"] == "INTERNAL_SERVER_ERROR"
    assert max(calls) > 1, "they shared a commit"


async def test_a_question_asked_again_after_a_cut_connection_is_one_task(sqlite_api: Api) -> None:
    api = sqlite_api
    token = await api.token()
    ask = partial(
        api.client.post, "/v1/monitor/gemini", json=PAYLOAD, headers={"Authorization": f"Bearer {token}"}
    )
    cut = asyncio.create_task(ask())

    async def tasks_stored() -> int:
        return len(await rows(api, tasks))

    await until(tasks_stored, 1)
    cut.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await cut
    again, other = asyncio.create_task(ask()), asyncio.create_task(ask())
    # Of two who ask beside each other one gets the task whose caller is gone, the other its own.
    await until(tasks_stored, 2)
    async with api.store.db.engine.begin() as connection:
        await connection.execute(sa.update(tasks).values(state="failed", error_message="no answer"))
    for response in (await again, await other):
        error = (await response.json())["error"]
        assert (response.status, error["message"]) == (500, "no answer")
    assert await tasks_stored() == 2
    assert (await api.ask("/v1/monitor/bing", "POST", json=PAYLOAD)).status == 404
