"""C-E.4 to C-E.6: when credits move, when a charge differs from the estimate, and the balance endpoint."""

from typing import Any

import pytest
from emulator_harness import CHATGPT, LIVE_KEY, Receiver, eventually

from app.emulator.billing.organization_spec import KeySpec, OrganizationSpec
from app.emulator.engine.faults import FaultRates
from app.emulator.engine.options import Switches


async def test_e4_sync_200_costs_the_full_price(emulate: Any) -> None:
    provider = await emulate(edition="2026", credits=100)
    assert (await provider.sync()).status == 200
    assert (await provider.books())["remaining"] == 93


async def test_e4_sync_4xx_and_5xx_are_free(emulate: Any) -> None:
    provider = await emulate(edition="2026", credits=100, faults=FaultRates(fail=1.0))
    assert (await provider.post("/v1/monitor/chatgpt", {})).status == 400
    assert (await provider.sync()).status == 500
    assert (await provider.books())["remaining"] == 100


async def test_e4_accepted_is_free_completed_is_charged(emulate: Any) -> None:
    provider = await emulate(edition="2026", credits=100)
    task_id = await provider.create("CHATGPT")
    assert (await provider.books())["remaining"] == 100
    await provider.step(61)
    assert (await provider.status(task_id))["credits"] == {"creditsToCharge": 5, "creditsCharged": 5}
    assert (await provider.books())["remaining"] == 95


async def test_e4_failed_is_free(emulate: Any) -> None:
    provider = await emulate(edition="2026", credits=100, faults=FaultRates(fail=1.0))
    task_id = await provider.create("CHATGPT")
    await provider.step(3600)
    assert (await provider.status(task_id))["credits"]["creditsCharged"] == 0
    assert (await provider.books())["remaining"] == 100


async def test_e4_retries_inside_cost_nothing_more(emulate: Any) -> None:
    provider = await emulate(edition="2026", credits=100, faults=FaultRates(internal_retry=1.0))
    await provider.create("CHATGPT")
    await provider.step(3600)
    books = await provider.books()
    assert (books["totals"]["completed"], books["remaining"]) == (1, 95)


async def test_e4_clearing_polling_duplicates_and_409_are_free(emulate: Any, receiver: Receiver) -> None:
    provider = await emulate(
        edition="2026", credits=100, concurrency=1, faults=FaultRates(duplicate=1.0, internal_retry=0)
    )
    task_id = await provider.create("CHATGPT", idempotencyKey="k", webhook={"url": receiver.url})
    await provider.create("CHATGPT")
    assert (await provider.call("DELETE", "/v1/async/queue")).body["cleared"] == 1
    await provider.step(3600)
    for _ in range(3):
        await provider.status(task_id)
    assert (await provider.post("/v1/async/task", provider.task(idempotencyKey="k"))).status == 409
    assert len(receiver.arrivals) == 2
    assert (await provider.books())["remaining"] == 95


async def test_e4_repeating_a_sync_call_is_billed_again(emulate: Any) -> None:
    provider = await emulate(edition="2026", credits=100)
    for _ in range(2):
        await provider.sync()
    assert (await provider.books())["remaining"] == 86


async def test_e4_refusals_of_the_engine_are_billed(emulate: Any) -> None:
    provider = await emulate(requests_per_s=0, concurrency=300)
    ids = [await provider.create("CHATGPT") for _ in range(200)]
    await provider.step(3600)
    bodies = [await provider.status(task_id) for task_id in ids]
    empty = [body for body in bodies if not body["response"]["sources"]]
    assert empty
    assert all(len(body["response"]["text"]) < 160 for body in empty)
    assert all(body["credits"]["creditsCharged"] == 5 for body in empty)


async def test_e4_gate_at_submission(emulate: Any) -> None:
    provider = await emulate(edition="2026", credits=5)
    assert (await provider.post("/v1/async/task", provider.task("CHATGPT"))).status == 200
    dear = provider.task("CHATGPT", payload={"include": {"shopping": True}})
    assert (await provider.post("/v1/async/task", dear)).status == 403


async def test_e4_recheck_at_pick_up_fails_the_task(emulate: Any, receiver: Receiver) -> None:
    """C-L row L7: failed, 0 charged, never started, and reported so by the webhook."""
    provider = await emulate(edition="2026", credits=5, concurrency=1)
    await provider.create("CHATGPT")
    second = await provider.create("CHATGPT", webhook={"url": receiver.url})
    await provider.step(120)
    body = await provider.status(second)
    assert (body["task"]["status"], body["task"]["latencyMs"]) == ("FAILED", None)
    assert body["response"]["error"]["code"] == "INSUFFICIENT_CREDITS"
    assert receiver.arrivals[0].body["task"]["status"] == "FAILED"
    assert (await provider.books())["remaining"] == 0


async def test_e4_recheck_at_pick_up_may_wait_instead(emulate: Any) -> None:
    provider = await emulate(credits=5, concurrency=1, switches=Switches(wait_for_credits=True))
    await provider.create("CHATGPT")
    second = await provider.create("CHATGPT")
    await provider.step(120)
    assert (await provider.status(second))["task"]["status"] == "QUEUED"
    await provider.control("organizations/default", {"topUp": 5})
    await provider.step(120)
    assert (await provider.status(second))["task"]["status"] == "COMPLETED"


async def test_e4_public_plans_stop_and_overdraft_is_hidden(emulate: Any) -> None:
    """L8: what ran in parallel may overdraw; it is reported as 0, and nothing more is accepted."""
    provider = await emulate(edition="2026", credits=6)
    for _ in range(3):
        await provider.create("CHATGPT")
    await provider.step(120)
    assert (await provider.books())["remaining"] == -9
    assert (await provider.get("/v1/credits")).body["remaining"] == 0
    assert (await provider.post("/v1/async/task", provider.task())).status == 403


async def test_e5_ai_mode_clusters(emulate: Any) -> None:
    provider = await emulate(edition="2026", requests_per_s=0, concurrency=200)
    ids = [await provider.create("AIMODE", payload={"include": {"expandProducts": True}}) for _ in range(60)]
    await provider.step(3600)
    seen = set()
    for task_id in ids:
        body = await provider.status(task_id)
        clusters = len(body["response"].get("productResults", []))
        extra = body["credits"]["creditsCharged"] - body["credits"]["creditsToCharge"]
        assert 0 <= extra <= 6
        assert extra == clusters
        seen.add(extra)
    assert seen == set(range(7))
    lines = {line["id"]: line for line in (await provider.books())["tasks"]}
    assert all(line["creditsCharged"] == 4 + line["clusters"] for line in lines.values())


async def test_e5_price_overrides_of_an_organization(emulate: Any) -> None:
    """Its own base price, everything else as listed; estimate, charge and sync price follow."""
    keys = (KeySpec(key=LIVE_KEY),)
    spec = OrganizationSpec(name="deal", prices={"CHATGPT": 3}, keys=keys, credits=100)
    provider = await emulate(edition="2026", organizations=(spec,))
    task_id = await provider.create("CHATGPT", key=LIVE_KEY)
    await provider.create("GEMINI", key=LIVE_KEY)
    await provider.step(120)
    credits = (await provider.status(task_id, key=LIVE_KEY))["credits"]
    assert credits == {"creditsToCharge": 3, "creditsCharged": 3}
    assert (await provider.books("deal"))["remaining"] == 100 - 3 - 4
    assert (await provider.books())["charged"] == 0


@pytest.mark.parametrize(("switch", "charged"), [(False, 9), (True, 5)])
async def test_e5_price_change_between_submission_and_completion(
    emulate: Any, switch: bool, charged: int
) -> None:
    provider = await emulate(edition="2026", switches=Switches(price_at_submission=switch))
    task_id = await provider.create("CHATGPT")
    await provider.control("organizations/default", {"prices": {"CHATGPT": 9}})
    await provider.step(120)
    assert (await provider.status(task_id))["credits"] == {"creditsToCharge": 5, "creditsCharged": charged}


async def test_e6_balance(emulate: Any) -> None:
    """Up to 60 emulated seconds old, completed charges only, no `success` key."""
    provider = await emulate(edition="2026")
    first = (await provider.get("/v1/credits")).body
    assert first == {"remaining": 650_000, "perCycle": 650_000, "cycleResetsAt": "2025-02-15T12:00:00.000Z"}
    await provider.create("GOOGLE")
    await provider.step(59)
    assert (await provider.books())["remaining"] == 649_997
    assert (await provider.get("/v1/credits")).body["remaining"] == 650_000
    await provider.step(1)
    assert (await provider.get("/v1/credits")).body["remaining"] == 649_997


async def test_e6_free_tier(emulate: Any) -> None:
    body = (await (await emulate(edition="2026", plan="free")).get("/v1/credits")).body
    assert body == {"remaining": 500, "perCycle": None, "cycleResetsAt": None}


async def test_e6_per_cycle_after_a_change_of_plan(emulate: Any) -> None:
    """C-L row L30: the new allocation."""
    provider = await emulate(edition="2026", plan="lite")
    await provider.control("organizations/default", {"plan": "growth"})
    assert (await provider.get("/v1/credits")).body["perCycle"] == 1_350_000


async def test_e6_overage_shows_as_a_negative_balance(emulate: Any) -> None:
    """C-L row L9."""
    provider = await emulate(edition="2026", plan="enterprise-annual", credits=0)
    await provider.create("CHATGPT")
    await provider.step(120)
    assert (await provider.get("/v1/credits")).body["remaining"] == -5


async def test_concurrent_sync_calls_are_all_gated(emulate: Any) -> None:
    provider = await emulate(edition="2026", credits=7, concurrency=3)
    organization = provider.emulator.organizations["default"]
    call = provider.begin_sync()
    await eventually(lambda: organization.slots_used == 1)
    await provider.finish(call)
    assert (await provider.post("/v1/monitor/chatgpt", CHATGPT)).status == 403


async def test_e2_ai_overview_absent_from_the_answer_is_billed(emulate: Any) -> None:
    """Ethiopia has no AI Overview (K.10)."""
    provider = await emulate(edition="2026")
    task_id = await provider.create("GOOGLE", payload={"country": "ET", "include": {"aioverview": {}}})
    await provider.step(60)
    body = await provider.status(task_id)
    assert "aioverview" not in body["response"]
    assert body["credits"] == {"creditsToCharge": 5, "creditsCharged": 5}


async def test_e2_sync_surcharge_is_once_per_call(emulate: Any) -> None:
    provider = await emulate(edition="2026")
    body = {"query": "shoes", "country": "US", "pages": 3}
    assert (await provider.sync("google", body)).header("X-Credits-Charged") == "9"


async def test_e3_rows_through_the_api(emulate: Any) -> None:
    """The estimates of the worked table as the wire carries them."""
    from test_emulator_pricing import E3

    provider = await emulate(edition="2026", requests_per_s=0)
    for row, task_type, extra, _, to_charge, _, _ in E3:
        task = provider.task(task_type, payload=extra)
        if "url" in extra:
            del task["payload"]["query"]
        reply = await provider.post("/v1/async/task", task)
        assert reply.body["credits"]["creditsToCharge"] == to_charge, f"row {row}"


async def test_e3_sync_rows_through_the_api(emulate: Any) -> None:
    """The sync column of the table, rows without product clusters."""
    from test_emulator_pricing import E3

    from app.emulator.data.engine_table import ENGINES

    provider = await emulate(edition="2026", requests_per_s=0, grok=True)
    for row, task_type, extra, clusters, _, charged, _ in E3:
        if task_type == "AIMODE" and (clusters or "include" in extra):
            continue
        body = provider.task(task_type, payload=extra)["payload"]
        if "url" in extra:
            del body["query"]
        reply = await provider.sync(ENGINES[task_type].path, body)
        assert reply.header("X-Credits-Charged") == str(charged), f"row {row}"
