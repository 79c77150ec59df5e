"""C-H: states, order, internal retries, retention; and sync calls over time."""

from typing import Any

import pytest
from emulator_harness import Provider, Receiver

from app.emulator.engine.faults import FaultRates


async def statuses(provider: Provider, ids: list[str]) -> list[str]:
    return [(await provider.status(task_id))["task"]["status"] for task_id in ids]


async def test_h_states(emulate: Any) -> None:
    provider = await emulate(concurrency=1)
    ids = [await provider.create("CHATGPT"), await provider.create("CHATGPT")]
    assert await statuses(provider, ids) == ["PROCESSING", "QUEUED"]
    await provider.step(60)
    assert await statuses(provider, ids) == ["COMPLETED", "PROCESSING"]
    await provider.step(60)
    assert await statuses(provider, ids) == ["COMPLETED", "COMPLETED"]


async def test_h_priority_then_first_in_first_out(emulate: Any, receiver: Receiver) -> None:
    provider = await emulate(concurrency=1)
    blocker = await provider.create()
    wanted = []
    for number, priority in enumerate((1, 5, 1, 10, 5, 10)):
        task_id = await provider.create(priority=priority, webhook={"url": receiver.url})
        wanted.append((-priority, number, task_id))
    await provider.step(3600)
    assert (await provider.status(blocker))["task"]["status"] == "COMPLETED"
    assert [arrival.body["task"]["id"] for arrival in receiver.arrivals] == [
        item[2] for item in sorted(wanted)
    ]


async def test_h_terminal_states_never_change(emulate: Any) -> None:
    provider = await emulate()
    task_id = await provider.create()
    await provider.step(10)
    before = await provider.status(task_id)
    await provider.step(23 * 3600)
    assert await provider.status(task_id) == before


async def test_h_internal_retry_goes_back_to_queued(emulate: Any) -> None:
    faulty = FaultRates(internal_retry=1.0)
    provider = await emulate(faults=faulty, internal_backoff_s=100.0, requests_per_s=0)
    task_id = await provider.create("GOOGLE")
    seen = []
    for _ in range(2000):
        status = (await statuses(provider, [task_id]))[0]
        if not seen or seen[-1] != status:
            seen.append(status)
        if status == "COMPLETED":
            break
        await provider.step(2)
    assert seen == ["PROCESSING", "QUEUED"] * 4 + ["PROCESSING", "COMPLETED"]


async def test_h_failed_tasks_had_five_attempts(emulate: Any) -> None:
    provider = await emulate(edition="2026", faults=FaultRates(fail=1.0), internal_backoff_s=10.0)
    task_id = await provider.create("PERPLEXITY")
    await provider.step(3600)
    body = await provider.status(task_id)
    # Five attempts of 36 to 45 s and waits of 10, 20, 40 and 80 s; latencyMs counts from the first pick-up.
    assert body["task"]["status"] == "FAILED"
    assert (5 * 36 + 150) * 1000 <= body["task"]["latencyMs"] <= (5 * 45 + 150) * 1000


async def test_h_waiting_retries_count_against_the_queue_limit(emulate: Any) -> None:
    provider = await emulate(
        edition="2026", queue_max=1, faults=FaultRates(internal_retry=1.0), internal_backoff_s=1000.0
    )
    await provider.create("GOOGLE")
    await provider.step(10)
    assert (await provider.get("/v1/async/status")).body["queuedTasks"] == 1
    assert (await provider.post("/v1/async/task", provider.task())).status == 429


@pytest.mark.parametrize(
    ("task_type", "low", "high"),
    [
        ("GOOGLE", 2, 6),
        ("GOOGLE_NEWS", 2, 5),
        ("PERPLEXITY", 36, 45),
        ("CHATGPT", 30, 60),
        ("AIMODE", 30, 60),
    ],
)
async def test_h_latencies(emulate: Any, task_type: str, low: float, high: float) -> None:
    provider = await emulate(edition="2026")
    task_id = await provider.create(task_type)
    await provider.step(120)
    assert low * 1000 <= (await provider.status(task_id))["task"]["latencyMs"] <= high * 1000


async def test_h_grok_is_switched_off(emulate: Any) -> None:
    """K.4 and L40: off in 2026, on in 2025, and a switch either way; failures are free."""
    for edition, grok, status in (
        ("2026", None, "FAILED"),
        ("2026", True, "COMPLETED"),
        ("2025", None, "COMPLETED"),
        ("2025", False, "FAILED"),
    ):
        provider = await emulate(edition=edition, grok=grok)
        body = (await provider.post("/v1/async/task", provider.task("GROK"))).body
        assert body["credits"]["creditsToCharge"] == 4
        await provider.step(3600)
        body = await provider.status(body["task"]["id"])
        assert body["task"]["status"] == status
        assert body["credits"]["creditsCharged"] == (4 if status == "COMPLETED" else 0)


async def test_h_grok_sync_is_500(emulate: Any) -> None:
    provider = await emulate(edition="2026")
    reply = await provider.sync("grok", {"prompt": "x", "country": "US"})
    assert (reply.status, reply.error()["code"]) == (500, "INTERNAL_SERVER_ERROR")
    assert reply.error()["message"] == "Maximum retries exceeded"


async def test_h_sync_time_cap(emulate: Any) -> None:
    """No new attempt starts after five minutes."""
    provider = await emulate(edition="2026", faults=FaultRates(fail=1.0), internal_backoff_s=200.0)
    started_s = provider.emulator.clock.now()
    reply = await provider.finish(provider.begin_sync("gemini", {"prompt": "x", "country": "US"}), 5)
    assert reply.error()["message"] == "Maximum timeout (5 minutes) exceeded"
    assert 300 <= provider.emulator.clock.now() - started_s < 900
    assert provider.emulator.organizations["default"].slots_used == 0


async def test_h_retention_frees_the_key(emulate: Any) -> None:
    """Afterwards the key would create a second, billed task."""
    provider = await emulate(edition="2026")
    await provider.create(idempotencyKey="k")
    await provider.step(24 * 3600 - 1)
    assert (await provider.post("/v1/async/task", provider.task(idempotencyKey="k"))).status == 409
    await provider.step(1)
    await provider.create(idempotencyKey="k")
    books = await provider.books()
    assert len(books["tasks"]) == 2


async def test_h_memory_is_bounded_by_retention(emulate: Any) -> None:
    provider = await emulate(requests_per_s=0, book_lines_max=10, concurrency=50)
    organization = provider.emulator.organizations["default"]
    for _ in range(3):
        for _ in range(20):
            await provider.create(idempotencyKey=f"k{next(provider.numbers)}")
        await provider.step(25 * 3600)
    assert (len(organization.tasks), len(organization.bound_keys)) == (0, 0)
    assert len(organization.archive) == 10
    assert all(task.payload is None for task in organization.archive)
    assert (await provider.books())["totals"]["tasks"] == 60


async def test_h_scaled_clock(emulate: Any, receiver: Receiver) -> None:
    """With time running 2,000 times as fast, an answer of 30 to 60 s takes some hundredths of a second."""
    provider = await emulate(scale=2000.0)
    await provider.create("CHATGPT", webhook={"url": receiver.url})
    books = await provider.quiet()
    assert books["totals"]["completed"] == 1
    assert len(receiver.arrivals) == 1


async def test_h_validated_again_at_pick_up(emulate: Any) -> None:
    """A country that is withdrawn while the task waits: failed, free, never started."""
    provider = await emulate(edition="2026", concurrency=1)
    await provider.create("CHATGPT")
    waiting = await provider.create("CHATGPT", payload={"country": "CZ"})
    await provider.control("availability", {"CHATGPT": ["CZ"]})
    reply = await provider.post("/v1/async/task", provider.task("CHATGPT", payload={"country": "CZ"}))
    assert (reply.status, reply.fields()) == (400, ["payload.country"])
    assert (await provider.post("/v1/monitor/chatgpt", {"prompt": "x", "country": "CZ"})).status == 400
    await provider.step(120)
    body = await provider.status(waiting)
    assert (body["task"]["status"], body["task"]["latencyMs"]) == ("FAILED", None)
    assert body["response"]["error"]["code"] == "VALIDATION_ERROR"
    assert body["credits"]["creditsCharged"] == 0
    await provider.control("availability", {})
    await provider.create("CHATGPT", payload={"country": "CZ"})
    assert (await provider.post("/_emulator/availability", {"BING": ["US"]}, key=None)).status == 400


async def test_h_a_failed_task_is_run_again_under_a_new_key(emulate: Any) -> None:
    provider = await emulate(edition="2026", faults=FaultRates(fail=1.0))
    await provider.create(idempotencyKey="k-1")
    await provider.step(600)
    assert (await provider.post("/v1/async/task", provider.task(idempotencyKey="k-1"))).status == 409
    await provider.create(idempotencyKey="k-2")


async def test_h_sync_calls_know_no_idempotency(emulate: Any) -> None:
    provider = await emulate(edition="2026", credits=100)
    for _ in range(2):
        headers = {"Idempotency-Key": "same"}
        body = {"prompt": "x", "country": "US"}
        assert (await provider.sync("gemini", body, headers=headers)).status == 200
    assert (await provider.books())["remaining"] == 100 - 2 * 6
