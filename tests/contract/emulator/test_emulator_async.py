"""C-G: the async endpoints and the helpers."""

import uuid
from typing import Any

import pytest
from emulator_harness import LIVE_KEY, Receiver

from app.emulator.billing.organization_spec import KeySpec, OrganizationSpec
from app.emulator.data import places
from app.emulator.engine.faults import FaultRates
from app.emulator.engine.options import Switches


async def test_g2_create(emulate: Any) -> None:
    """200, QUEUED, and exactly the documented keys."""
    provider = await emulate(edition="2026")
    payload = {"prompt": "Which CRM?", "country": "DE", "include": {"markdown": True, "searchQueries": True}}
    body = {"taskType": "CHATGPT", "priority": 5, "idempotencyKey": "run-42:item-7", "payload": payload}
    reply = await provider.post(
        "/v1/async/task", body | {"webhook": {"url": "https://receiver.example/hook"}}
    )
    assert reply.status == 200
    task = reply.body["task"]
    assert uuid.UUID(task.pop("id")).version == 4
    assert reply.body == {
        "success": True,
        "task": reply.body["task"],
        "credits": {"creditsToCharge": 7, "creditsCharged": None},
    }
    assert task == {
        "taskType": "CHATGPT",
        "status": "QUEUED",
        "priority": 5,
        "createdAt": "2025-01-15T12:00:00.000Z",
        "latencyMs": None,
        "idempotencyKey": "run-42:item-7",
    }


async def test_g2_defaults(emulate: Any) -> None:
    task = (
        await (await emulate()).post("/v1/async/task", {"taskType": "GOOGLE", "payload": {"query": "x"}})
    ).body
    assert (task["task"]["priority"], task["task"]["idempotencyKey"]) == (1, None)


async def test_g2_conflict(emulate: Any) -> None:
    """409 whatever the payload and whatever the outcome of the first (L24, L25), without the first one's
    id."""
    provider = await emulate(edition="2026", faults=FaultRates(fail=1.0))
    first = await provider.create("CHATGPT", idempotencyKey="k")
    await provider.step(3600)
    reply = await provider.post("/v1/async/task", provider.task("GEMINI", idempotencyKey="k"))
    assert reply.status == 409
    assert first not in reply.raw.decode()
    error = reply.error()
    assert (error["code"], error["message"]) == ("RESOURCE_ALREADY_EXISTS", "Task already exists")
    assert error["details"] == {"field": "idempotencyKey", "value": "k"}


async def test_g2_keys_are_bound_per_organization(emulate: Any) -> None:
    spec = OrganizationSpec(name="other", keys=(KeySpec(key=LIVE_KEY),))
    provider = await emulate(organizations=(spec,))
    await provider.create(idempotencyKey="k")
    await provider.create(idempotencyKey="k", key=LIVE_KEY)


async def test_g3_batch(emulate: Any) -> None:
    """Partial success in input order, 200 even so; a key repeated inside the batch fails the later item."""
    provider = await emulate(edition="2026")
    tasks = [
        provider.task("PERPLEXITY", priority=3, idempotencyKey="k-1"),
        provider.task("PERPLEXITY", idempotencyKey="k-1"),
        {"taskType": "CHATGPT", "payload": {"prompt": "x"}},
        "nonsense",
    ]
    reply = await provider.post("/v1/async/task/batch", tasks)
    assert reply.status == 200
    assert reply.body["summary"] == {"total": 4, "succeeded": 1, "failed": 3}
    results = reply.body["results"]
    assert [item["index"] for item in results] == [0, 1, 2, 3]
    assert [item["success"] for item in results] == [True, False, False, False]
    assert results[0]["task"]["status"] == "QUEUED"
    assert results[0]["credits"] == {"creditsToCharge": 4, "creditsCharged": None}
    assert [item["error"]["code"] for item in results[1:]] == [
        "RESOURCE_ALREADY_EXISTS",
        "VALIDATION_ERROR",
        "VALIDATION_ERROR",
    ]
    message = "Invalid input: expected string, received undefined"
    assert results[2]["error"]["details"] == {"errors": [{"field": "payload.country", "message": message}]}


@pytest.mark.parametrize(
    "body", [{}, [], "x", None, [0] * 501], ids=["object", "empty", "string", "null", "501"]
)
async def test_g3_whole_batch_refused(emulate: Any, body: Any) -> None:
    for edition, status in (("2025", 422), ("2026", 400)):
        provider = await emulate(edition=edition)
        raw = b"null" if body is None else body
        reply = await provider.post("/v1/async/task/batch", raw)
        assert (reply.status, reply.error()["code"]) == (status, "VALIDATION_ERROR")


async def test_g3_five_hundred_are_one_request(emulate: Any) -> None:
    provider = await emulate(frozen_wall=True)
    reply = await provider.post("/v1/async/task/batch", [provider.task() for _ in range(500)])
    assert reply.body["summary"]["succeeded"] == 500
    assert reply.header("X-RateLimit-Remaining") == "499"


async def test_g3_queue_overflow_stores_nothing(emulate: Any) -> None:
    provider = await emulate(edition="2026", queue_max=5, concurrency=1)
    reply = await provider.post("/v1/async/task/batch", [provider.task() for _ in range(6)])
    assert (reply.status, reply.error()["code"]) == (429, "QUEUE_LIMIT_EXCEEDED")
    assert (await provider.books())["totals"]["tasks"] == 0


@pytest.mark.parametrize(("against_balance", "accepted"), [(False, 2), (True, 3)])
async def test_g3_credits_per_item(emulate: Any, against_balance: bool, accepted: int) -> None:
    """C-L row L10, with its switch."""
    switches = Switches(batch_against_balance=against_balance)
    provider = await emulate(edition="2026", credits=6, switches=switches)
    reply = await provider.post("/v1/async/task/batch", [provider.task() for _ in range(3)])
    assert reply.body["summary"]["succeeded"] == accepted
    for item in reply.body["results"][accepted:]:
        assert item["error"]["code"] == "INSUFFICIENT_CREDITS"


async def test_g3_resending_a_batch(emulate: Any) -> None:
    provider = await emulate()
    tasks = [provider.task(idempotencyKey=f"k-{index}") for index in range(3)]
    await provider.post("/v1/async/task/batch", tasks)
    again = (await provider.post("/v1/async/task/batch", tasks)).body
    assert {item["error"]["code"] for item in again["results"]} == {"RESOURCE_ALREADY_EXISTS"}


async def test_g4_status_while_unfinished(emulate: Any) -> None:
    provider = await emulate(edition="2026", concurrency=1)
    first, second = await provider.create(), await provider.create()
    assert (await provider.status(first))["task"]["status"] == "PROCESSING"
    body = await provider.status(second)
    assert set(body) == {"task", "credits"}
    assert body["task"]["status"] == "QUEUED"


async def test_g4_completed_and_failed(emulate: Any) -> None:
    good, bad = await emulate(edition="2026"), await emulate(edition="2026", faults=FaultRates(fail=1.0))
    task_id = await good.create("GEMINI")
    await good.step(120)
    body = await good.status(task_id)
    assert set(body) == {"task", "credits", "response"}
    assert "text" in body["response"]
    assert "success" not in body["response"]
    task_id = await bad.create("GEMINI")
    await bad.step(3600)
    assert (await bad.status(task_id))["response"] == {
        "error": {"code": "INTERNAL_SERVER_ERROR", "message": "Task failed after max retries"}
    }


async def test_g4_not_found(emulate: Any) -> None:
    """Unknown ids and those of another organization alike (L35)."""
    provider = await emulate(organizations=(OrganizationSpec(name="other", keys=(KeySpec(key=LIVE_KEY),)),))
    other = await provider.create(key=LIVE_KEY)
    for task_id in (other, str(uuid.uuid4()), "nonsense"):
        reply = await provider.get(f"/v1/async/task/{task_id}")
        assert (reply.status, reply.error()["code"]) == (404, "RESOURCE_NOT_FOUND")
        assert reply.error()["message"] == "Task not found"
        assert reply.error()["details"] == {"id": task_id}


async def test_g4_lookup_by_idempotency_key(emulate: Any) -> None:
    """C-L row L5: off by default, a switch turns it on."""
    for switched, status in ((False, 404), (True, 200)):
        provider = await emulate(switches=Switches(lookup_by_key=switched))
        await provider.create(idempotencyKey="mine")
        assert (await provider.get("/v1/async/task/mine")).status == status


async def test_g4_repeated_polls_are_equal(emulate: Any) -> None:
    provider = await emulate(edition="2026")
    task_id = await provider.create("COPILOT")
    await provider.step(120)
    assert await provider.status(task_id) == await provider.status(task_id)


async def test_g5_status(emulate: Any) -> None:
    provider = await emulate(edition="2026", concurrency=2)
    for priority in (5, 5, 1, 5):
        await provider.create(priority=priority)
    assert (await provider.get("/v1/async/status")).body == {
        "queuedTasks": 2,
        "processingTasks": 2,
        "priorityBreakdown": [{"priority": 5, "count": 1}, {"priority": 1, "count": 1}],
        "concurrency": {"used": 2, "max": 2},
    }


async def test_g6_clear_queue(emulate: Any, receiver: Receiver) -> None:
    """QUEUED only, waiting retries included; 404 afterwards, the key free again, no webhook (L22)."""
    faulty = FaultRates(internal_retry=1.0)
    provider = await emulate(edition="2026", concurrency=1, faults=faulty, internal_backoff_s=1000.0)
    waiting = await provider.create("GOOGLE", webhook={"url": receiver.url})
    await provider.step(10)
    processing = await provider.create("GOOGLE")
    queued = await provider.create("GOOGLE", idempotencyKey="k", webhook={"url": receiver.url})
    assert (await provider.status(waiting))["task"]["status"] == "QUEUED"
    assert (await provider.call("DELETE", "/v1/async/queue")).body == {"success": True, "cleared": 2}
    assert (await provider.call("DELETE", "/v1/async/queue")).body == {"success": True, "cleared": 0}
    for task_id in (waiting, queued):
        assert (await provider.get(f"/v1/async/task/{task_id}")).status == 404
    assert (await provider.status(processing))["task"]["status"] == "PROCESSING"
    await provider.create("GOOGLE", idempotencyKey="k")
    await provider.step(100_000)
    assert receiver.arrivals == []
    lines = (await provider.books())["tasks"]
    assert [line["status"] for line in lines].count("CLEARED") == 2


async def test_g7_countries(emulate: Any) -> None:
    provider = await emulate(edition="2026")
    everywhere = (await provider.get("/v1/countries")).body
    assert everywhere[:5] == ["AF", "AX", "AL", "DZ", "AS"]
    assert len(everywhere) == 250
    blocked = {
        "chatgpt": {"CN", "HK", "IR", "MO", "RU", "VE"},
        "gemini": {"BY", "CN", "RU"},
        "grok": {"BY", "CN", "HK", "RU", "VE"},
        "copilot": {"BY", "CN", "RU", "SY", "VE"},
        "perplexity": {"CN"},
        "aimode": {"CN", "CU", "IR", "KP"},
        "google": set(),
    }
    for model, missing in blocked.items():
        assert set(everywhere) - set((await provider.get(f"/v1/countries?model={model}")).body) == missing
    assert len((await provider.get("/v1/countries?model=aioverview")).body) == 250 - 19
    reply = await provider.get("/v1/countries?model=bing")
    assert (reply.status, reply.fields()) == (400, ["model"])


async def test_g7_states(emulate: Any) -> None:
    provider = await emulate(edition="2026")
    states = (await provider.get("/v1/states?country=US")).body
    assert len(states) == 51
    assert {"code": "DC", "name": "District of Columbia"} in states
    assert (await provider.get("/v1/states?country=DE")).body == []
    for query in ("", "?country=us", "?country=USA"):
        assert (await provider.get(f"/v1/states{query}")).status == 400


@pytest.mark.parametrize(
    "url",
    [
        "https://news.google.com/goto?url=https://a.example",
        "https://www.google.com/search?q=x",
        "/goto?url=https://a.example",
        "https://www.google.de/goto?url=https://a.example",
        7,
    ],
)
async def test_g7_goto_refuses(emulate: Any, url: Any) -> None:
    provider = await emulate(edition="2026")
    assert (await provider.post("/v1/monitor/google/goto", {"url": url})).status == 400
    assert (
        await provider.post("/v1/monitor/google/goto", {"url": "https://google.com/goto", "x": 1})
    ).status == 400


async def test_g7_goto_that_leads_nowhere(emulate: Any) -> None:
    provider = await emulate(edition="2026")
    reply = await provider.post("/v1/monitor/google/goto", {"url": "https://www.google.com/goto?url=nowhere"})
    assert (reply.status, reply.error()["code"]) == (502, "EXTERNAL_SERVICE_ERROR")
    assert reply.error()["details"] == {"service": "google"}


def test_k10_countries() -> None:
    assert len(places.COUNTRIES) == 250
    assert "XK" in places.COUNTRIES
    assert "NO" in places.COUNTRIES
