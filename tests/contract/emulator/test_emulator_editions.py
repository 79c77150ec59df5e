"""C-B, row by row: what each edition emits. Names are `test_b<row>_...`; docs/emulator.md lists them."""

import json
from typing import Any

import pytest
from emulator_harness import CHATGPT, LIVE_KEY, START_S, Provider, Receiver, eventually

from app.emulator.billing.account import BillingError
from app.emulator.billing.organization_spec import KeySpec, OrganizationSpec
from app.emulator.data.editions import EDITIONS
from app.emulator.engine.faults import FaultRates
from app.emulator.engine.options import Switches

ALL = ("2025", "legacy", "2026")


async def result(provider: Provider, task_type: str, **over: Any) -> Any:
    """The answer of a completed async task."""
    task_id = await provider.create(task_type, **over)
    await provider.step(3600)
    body = await provider.status(task_id)
    assert body["task"]["status"] == "COMPLETED"
    return body["response"]


async def rich(provider: Provider, task_type: str, **over: Any) -> Any:
    """A completed answer that is not one of the two percent of refusals."""
    for _ in range(20):
        answer = await result(provider, task_type, **over)
        if answer.get("sources"):
            return answer
    raise AssertionError("twenty refusals in a row")


async def test_b1_base_url_is_configuration(emulate: Any) -> None:
    provider = await emulate()
    for host in ("api.cloro.com", "api.cloro.dev", "127.0.0.1"):
        assert (await provider.get("/v1/async/status", headers={"Host": host})).status == 200


async def test_b2_run_endpoint_only_in_the_oldest_layer(emulate: Any) -> None:
    for edition in ALL:
        provider = await emulate(edition=edition)
        for path in ("/v1/run", "/v1/monitor"):
            if edition != "legacy":
                assert (await provider.post(path, CHATGPT)).status == 404
        if edition == "legacy":
            reply = await provider.sync("../run", {"model": "gemini", **CHATGPT})
            assert reply.status == 200
            assert reply.header("X-Credits-Charged") == "4"
            assert (await provider.post("/v1/run", {"model": "nobody"})).status == 400


@pytest.mark.parametrize(
    ("edition", "family"), [("2025", "X-Concurrent"), ("legacy", "X-Concurrent"), ("2026", "X-Concurrency")]
)
async def test_b3_concurrency_header_names(emulate: Any, edition: str, family: str) -> None:
    reply = await (await emulate(edition=edition)).sync()
    names = {name for name in reply.headers if name.startswith("X-Concurren")}
    assert names == {f"{family}-Limit", f"{family}-Current", f"{family}-Remaining"}


@pytest.mark.parametrize(
    ("edition", "code", "message"),
    [
        ("2025", "CONCURRENT_LIMIT_EXCEEDED", "Concurrent limit exceeded"),
        ("2026", "CONCURRENCY_LIMIT_EXCEEDED", "Concurrency limit exceeded"),
    ],
)
async def test_b4_b5_concurrency_refusal(emulate: Any, edition: str, code: str, message: str) -> None:
    provider = await emulate(edition=edition, concurrency=1)
    await provider.create("CHATGPT")
    reply = await provider.post("/v1/monitor/chatgpt", CHATGPT)
    assert reply.status == 429
    assert (reply.error()["code"], reply.error()["message"]) == (code, message)
    assert reply.error()["details"] == {"limit": 1}
    assert ("success" in reply.body) == (edition == "2026")


async def test_b5_success_in_other_errors(emulate: Any) -> None:
    for edition in ALL:
        provider = await emulate(edition=edition)
        assert (await provider.post("/v1/monitor/chatgpt", {})).body["success"] is False


async def test_b6_type_of_error(emulate: Any) -> None:
    for edition in ALL:
        provider = await emulate(edition=edition)
        body = (await provider.post("/v1/monitor/chatgpt", {"prompt": ""})).body
        if edition == "legacy":
            assert body["error"] == "Request validation failed"
            assert body["details"][0]["field"] == "prompt"
        else:
            assert set(body["error"]) == {"code", "message", "details", "timestamp"}


async def test_b7_rate_limit_size_and_scope(emulate: Any) -> None:
    """500 shared by all paths in 2025; 1,000 per endpoint and key in 2026."""
    old, new = await emulate(frozen_wall=True), await emulate(edition="2026", frozen_wall=True)
    first, second = await old.get("/v1/async/status"), await old.get("/v1/credits")
    assert (first.header("X-RateLimit-Limit"), first.header("X-RateLimit-Remaining")) == ("500", "499")
    assert second.header("X-RateLimit-Remaining") == "498"
    for path in ("/v1/async/status", "/v1/credits"):
        reply = await new.get(path)
        assert (reply.header("X-RateLimit-Limit"), reply.header("X-RateLimit-Remaining")) == ("1000", "999")
    new.emulator.registry.add_key(new.emulator.organizations["default"], KeySpec(key=LIVE_KEY))
    assert (await new.get("/v1/credits", key=LIVE_KEY)).header("X-RateLimit-Remaining") == "999"


async def test_requests_of_each_second_are_reported(emulate: Any) -> None:
    """Refused requests count, and so does every endpoint."""
    provider = await emulate(requests_per_s=2)
    for _ in range(5):
        await provider.get("/v1/async/status")
    start = int(provider.emulator.clock.wall())
    while int(provider.emulator.clock.wall()) <= start:
        await provider.get("/v1/async/status")
    await provider.get("/v1/async/status")
    seconds = (await provider.get("/_emulator/seconds", key=None)).body
    assert sum(count for _, count in seconds) >= 5
    assert all(second <= start for second, _ in seconds)


async def test_b8_hourly_limit_spreads_requests(emulate: Any) -> None:
    """1,000 per clock hour and key, bursts refused, the count starting again at minute 0."""
    provider = await emulate(edition="legacy")
    burst = [(await provider.get("/v1/async/status")).status for _ in range(40)]
    assert burst.count(200) == 20
    assert set(burst[20:]) == {429}
    served = 20
    while served < 1000:
        await provider.step(3.6)
        served += (await provider.get("/v1/async/status")).status == 200
        if provider.emulator.clock.now() >= START_S + 3590:
            break
    await provider.step(START_S + 3600 - provider.emulator.clock.now())
    reply = await provider.get("/v1/async/status")
    assert reply.status == 200
    assert reply.header("X-RateLimit-Remaining") == "999"


async def test_b8_hourly_limit_is_hard(emulate: Any) -> None:
    from app.emulator.http.rate_limits import HourlyBuckets

    buckets, now_s, served = HourlyBuckets(), START_S, 0
    while now_s < START_S + 3600:
        served += buckets.take("key", 1000, now_s)[0] >= 0
        now_s += 1.0
    assert served == 1000
    left, wait_s = buckets.take("key", 1000, START_S + 3599.5)
    assert (left, wait_s) == (-1, 1)


async def test_b9_rate_refusal_body(emulate: Any) -> None:
    old, new = (
        await emulate(edition="legacy"),
        await emulate(edition="2026", frozen_wall=True, requests_per_s=1),
    )
    replies = [await old.get("/v1/async/status") for _ in range(21)]
    refused = replies[-1].body
    assert refused == {
        "success": False,
        "error": "Rate limit exceeded. Try again in 1 minute.",
        "retry_after": 4,
    }
    await new.get("/v1/async/status")
    reply = await new.get("/v1/async/status")
    assert reply.status == 429
    assert reply.error()["code"] == "RATE_LIMIT_EXCEEDED"
    assert reply.error()["message"] == "API key rate limit exceeded"
    assert "details" not in reply.error()
    assert reply.header("Retry-After") is None


async def test_b9_the_printed_sample(emulate: Any) -> None:
    from app.emulator.http.rate_limits import hourly_message

    assert hourly_message(900) == "Rate limit exceeded. Try again in 15 minutes."


async def test_b10_rate_refusal_of_2025(emulate: Any) -> None:
    provider = await emulate(frozen_wall=True, requests_per_s=1)
    await provider.get("/v1/async/status")
    body = (await provider.get("/v1/async/status")).body
    assert body["error"]["code"] == "RATE_LIMIT_EXCEEDED"
    assert "success" not in body


async def test_b11_credit_headers(emulate: Any) -> None:
    """On 200 in every edition; on 429, with 0 charged, only in the older ones."""
    for edition in ("2025", "2026"):
        provider = await emulate(edition=edition, concurrency=1, plan="lite")
        reply = await provider.sync()
        assert (reply.header("X-Credits-Charged"), reply.header("X-Credits-Remaining")) == ("7", "37493")
        await provider.create("CHATGPT")
        refused = await provider.post("/v1/monitor/chatgpt", CHATGPT)
        assert refused.status == 429
        charged = refused.header("X-Credits-Charged")
        assert charged == ("0" if edition == "2025" else None)
        assert (await provider.post("/v1/monitor/chatgpt", {})).header("X-Credits-Charged") is None


async def test_b12_slots_belong_to_the_organization(emulate: Any) -> None:
    provider = await emulate(concurrency=1)
    provider.emulator.registry.add_key(provider.emulator.organizations["default"], KeySpec(key=LIVE_KEY))
    await provider.create("CHATGPT", key=LIVE_KEY)
    assert (await provider.post("/v1/monitor/chatgpt", CHATGPT)).status == 429


async def test_b13_request_id_and_latency(emulate: Any) -> None:
    new, old = await emulate(edition="2026"), await emulate()
    for reply in (
        await new.get("/v1/async/status"),
        await new.get("/v1/nowhere"),
        await new.get("/v1/credits", key=None),
    ):
        assert len(reply.header("X-Request-ID") or "") == 36
        assert int(reply.header("X-Latency-Ms") or "-1") >= 0
    assert (await old.get("/v1/async/status")).header("X-Request-ID") is None


async def test_b14_key_format(emulate: Any) -> None:
    """Both shapes are well-formed in every edition; a test key that is not registered is unknown."""
    for edition in ("2025", "2026"):
        provider = await emulate(edition=edition, keys=(LIVE_KEY,))
        assert (await provider.get("/v1/async/status", key=LIVE_KEY)).status == 200
        reply = await provider.get("/v1/async/status", key="sk_test_ffffffffffffffffffffffffffffffff")
        assert reply.error()["code"] == "INVALID_OR_EXPIRED_API_KEY"


async def test_b15_failures_are_free(emulate: Any) -> None:
    for edition in ALL:
        provider = await emulate(edition=edition, faults=FaultRates(fail=1.0), concurrency=5)
        await provider.post("/v1/monitor/chatgpt", {})
        assert (await provider.sync()).status == 500
        task_id = await provider.create("CHATGPT")
        await provider.step(3600)
        body = await provider.status(task_id)
        assert (body["task"]["status"], body["credits"]["creditsCharged"]) == ("FAILED", 0)
        assert (await provider.books())["charged"] == 0


async def test_b16_place_of_the_credits(emulate: Any) -> None:
    for edition in ALL:
        provider = await emulate(edition=edition)
        body = (await provider.post("/v1/async/task", provider.task())).body
        assert body["credits"]["creditsToCharge"] == 3
        assert "creditsCharged" not in body["task"]
    moved = await emulate(faults=FaultRates(credits_in_task=1.0))
    task_id = await moved.create()
    await moved.step(60)
    body = await moved.status(task_id)
    assert body["task"]["creditsCharged"] == 3
    assert "credits" not in body


@pytest.mark.parametrize(("edition", "early"), [("2025", 0), ("2026", None)])
async def test_b17_charged_before_the_end(emulate: Any, edition: str, early: int | None) -> None:
    provider = await emulate(edition=edition)
    body = (await provider.post("/v1/async/task", provider.task())).body
    assert body["credits"]["creditsCharged"] is None
    assert (await provider.status(body["task"]["id"]))["credits"]["creditsCharged"] == early


async def test_b18_nothing_is_reserved(emulate: Any) -> None:
    for edition in ALL:
        provider = await emulate(edition=edition, credits=5)
        for _ in range(4):
            await provider.create("GOOGLE")
        assert (await provider.books())["remaining"] == 5


@pytest.mark.parametrize(("edition", "status"), [("2025", 422), ("legacy", 422), ("2026", 400)])
async def test_b19_status_of_an_invalid_task(emulate: Any, edition: str, status: int) -> None:
    provider = await emulate(edition=edition)
    assert (await provider.post("/v1/async/task", {"taskType": "NOBODY"})).status == status
    assert (await provider.post("/v1/async/task", b"{")).status == status
    assert (await provider.post("/v1/monitor/chatgpt", {})).status == 400


async def test_b20_statuses_of_monitor_calls(emulate: Any) -> None:
    for edition, extra in (("2025", {"404", "409", "502"}), ("2026", set())):
        document = (await (await emulate(edition=edition)).get("/openapi.json", key=None)).body
        declared = set(document["paths"]["/v1/monitor/chatgpt"]["post"]["responses"])
        assert declared == {"200", "400", "401", "403", "429", "499", "500", "503"} | extra


@pytest.mark.parametrize(
    ("edition", "code"), [("2025", "INSUFFICIENT_PERMISSIONS"), ("2026", "INSUFFICIENT_CREDITS")]
)
async def test_b21_code_of_403(emulate: Any, edition: str, code: str) -> None:
    provider = await emulate(edition=edition, credits=2)
    for reply in (
        await provider.post("/v1/async/task", provider.task()),
        await provider.post("/v1/monitor/chatgpt", CHATGPT),
    ):
        assert (reply.status, reply.error()["code"]) == (403, code)


async def test_b22_balance_endpoint(emulate: Any) -> None:
    """None in 2025, served there by default all the same; the switch takes it away, never in 2026."""
    for edition, switched_off in (("2025", 404), ("2026", 200)):
        assert (await (await emulate(edition=edition)).get("/v1/credits")).status == 200
        strict = await emulate(edition=edition, switches=Switches(credits_endpoint=False))
        assert (await strict.get("/v1/credits")).status == switched_off


async def test_b23_clearing_the_queue(emulate: Any) -> None:
    for edition, status in (("2025", 404), ("legacy", 404), ("2026", 200)):
        assert (await (await emulate(edition=edition)).call("DELETE", "/v1/async/queue")).status == status
    switched = await emulate(switches=Switches(clear_queue=True))
    assert (await switched.call("DELETE", "/v1/async/queue")).body == {"success": True, "cleared": 0}


async def test_b24_priority_breakdown(emulate: Any) -> None:
    new, old = await emulate(edition="2026", concurrency=1), await emulate(concurrency=1)
    for provider in (new, old):
        for priority in (3, 1, 9, 1):
            await provider.create(priority=priority)
    assert "priorityBreakdown" not in (await old.get("/v1/async/status")).body
    assert (await new.get("/v1/async/status")).body["priorityBreakdown"] == [
        {"priority": 9, "count": 1},
        {"priority": 1, "count": 2},
    ]


async def test_b25_latency_in_the_task(emulate: Any) -> None:
    new, old = await emulate(edition="2026"), await emulate()
    task_id = await new.create()
    assert (await new.status(task_id))["task"]["latencyMs"] is None
    await new.step(60)
    assert 2000 <= (await new.status(task_id))["task"]["latencyMs"] <= 6000
    assert "latencyMs" not in (await old.status(await old.create()))["task"]


async def test_b26_webhook_block(emulate: Any, receiver: Receiver) -> None:
    for edition in ("2025", "2026"):
        provider = await emulate(edition=edition)
        with_hook = await provider.create(webhook={"url": receiver.url})
        without = await provider.create()
        assert "webhook" not in await provider.status(with_hook)
        await provider.step(60)
        assert "webhook" not in await provider.status(without)
        body = await provider.status(with_hook)
        if edition == "2025":
            assert "webhook" not in body
        else:
            assert body["webhook"]["url"] == receiver.url
            assert body["webhook"]["delivered"] is True
            assert body["webhook"]["deliveredAt"].endswith("Z")
        assert "webhook" not in receiver.arrivals[-1].body


async def test_b26_undelivered(emulate: Any, receiver: Receiver) -> None:
    provider = await emulate(edition="2026")
    receiver.default = 500
    task_id = await provider.create(webhook={"url": receiver.url})
    await provider.step(10)
    block = (await provider.status(task_id))["webhook"]
    assert (block["delivered"], block["deliveredAt"]) == (False, None)


async def test_b27_priority_in_answers(emulate: Any) -> None:
    for edition in ALL:
        provider = await emulate(edition=edition)
        body = (await provider.post("/v1/async/task", provider.task(priority=4))).body
        assert body["task"].get("priority") == (None if edition == "legacy" else 4)


async def test_b28_goto_and_redirect_links(emulate: Any) -> None:
    target = "https://shop.example/a?b=1"
    link = {"url": f"https://www.google.com/goto?url={target.replace(':', '%3A').replace('?', '%3F')}"}
    new, old = await emulate(edition="2026"), await emulate()
    assert (await new.post("/v1/monitor/google/goto", link)).body == {"url": target}
    assert (await old.post("/v1/monitor/google/goto", link)).status == 404
    for provider, present in ((new, True), (old, False)):
        flag = {"payload": {"include": {"googleGoto": True}}}
        organic = (await result(provider, "GOOGLE", **flag))["organicResults"]
        assert all(("redirectLink" in item) == present for item in organic)


@pytest.mark.parametrize(("edition", "ok"), [("2025", True), ("legacy", True), ("2026", False)])
async def test_b29_country_default(emulate: Any, edition: str, ok: bool) -> None:
    provider = await emulate(edition=edition)
    reply = await provider.post("/v1/async/task", {"taskType": "CHATGPT", "payload": {"prompt": "x"}})
    assert (reply.status == 200) == ok
    if not ok:
        assert reply.fields() == ["payload.country"]
    google = await provider.post("/v1/async/task", {"taskType": "GOOGLE", "payload": {"query": "x"}})
    assert (google.status == 200) == ok


async def test_b30_html_results(emulate: Any) -> None:
    flag = {"payload": {"include": {"html": True}}}
    old, new, oldest = await emulate(), await emulate(edition="2026"), await emulate(edition="legacy")
    assert (await rich(old, "CHATGPT", **flag))["html"].startswith("https://storage.cloro.dev/results/")
    assert (await rich(new, "CHATGPT", **flag))["html"].startswith("https://cdn.cloro.dev/results/")
    assert (await rich(oldest, "CHATGPT", **flag))["html"].startswith("<")
    pages = await result(new, "GOOGLE", payload={"include": {"html": True}, "pages": 2})
    assert [link.rsplit("/", 1)[1] for link in pages["html"]] == ["page-1.html", "page-2.html"]


async def test_b30_links_expire(emulate: Any) -> None:
    for edition, hours in (("2025", 48), ("2026", 24)):
        provider = await emulate(edition=edition)
        provider.emulator.answers.html_base = f"{provider.url}/_emulator/html"
        answer = await rich(provider, "GEMINI", payload={"include": {"html": True}})
        path = answer["html"].removeprefix(provider.url)
        assert (await provider.get(path, key=None)).status == 200
        await provider.step(hours * 3600)
        assert (await provider.get(path, key=None)).status == 410
        assert (await provider.get(path.replace("page-1", "page-x"), key=None)).status == 404


async def test_b31_case_of_aimode_fields(emulate: Any) -> None:
    old = json.dumps(await rich(await emulate(), "AIMODE"))
    new = json.dumps(await rich(await emulate(edition="2026"), "AIMODE"))
    for snake, camel in (("shopping_cards", "shoppingCards"), ("inline_products", "inlineProducts")):
        assert f'"{snake}"' in old
        assert f'"{camel}"' not in old
        assert f'"{camel}"' in new
        assert f'"{snake}"' not in new


async def test_b32_perplexity_queries(emulate: Any) -> None:
    old = (await rich(await emulate(), "PERPLEXITY"))["search_model_queries"]
    new = (await rich(await emulate(edition="2026"), "PERPLEXITY"))["search_model_queries"]
    assert all(set(item) == {"query", "engine", "limit"} for item in old)
    assert all(isinstance(item, str) for item in new)


async def test_b33_chatgpt_model(emulate: Any) -> None:
    assert (await rich(await emulate(), "CHATGPT"))["model"] == "gpt-5-3-mini"
    new = await emulate(edition="2026", requests_per_s=0)
    models = [(await result(new, "CHATGPT"))["model"] for _ in range(30)]
    assert models.count(None) >= 25


async def test_b34_shopping_data(emulate: Any) -> None:
    """Part of the normal answer and free in 2025, an add-on of 2 in 2026."""
    old, new = await emulate(), await emulate(edition="2026")
    assert "shoppingCards" in await rich(old, "CHATGPT")
    assert "shoppingCards" not in await rich(new, "CHATGPT")
    flag = {"payload": {"include": {"shopping": True}}}
    assert "shoppingCards" in await rich(new, "CHATGPT", **flag)
    for provider, credits in ((old, 5), (new, 7)):
        body = (await provider.post("/v1/async/task", provider.task("CHATGPT", **flag))).body
        assert body["credits"]["creditsToCharge"] == credits


@pytest.mark.parametrize(
    ("row", "task_type", "prices"), [(35, "COPILOT", (3, 3, 5)), (36, "PERPLEXITY", (3, 3, 4))]
)
async def test_b35_b36_dated_prices(emulate: Any, row: int, task_type: str, prices: tuple[int, ...]) -> None:
    for edition, credits in zip(ALL, prices, strict=True):
        provider = await emulate(edition=edition)
        body = (await provider.post("/v1/async/task", provider.task(task_type))).body
        assert body["credits"]["creditsToCharge"] == credits, f"row B{row}, edition {edition}"


@pytest.mark.parametrize(("edition", "charged"), [("2025", "7"), ("legacy", "5"), ("2026", "7")])
async def test_b37_sync_surcharge(emulate: Any, edition: str, charged: str) -> None:
    assert (await (await emulate(edition=edition)).sync()).header("X-Credits-Charged") == charged


@pytest.mark.parametrize(("edition", "credits"), [("2025", 7), ("2026", 5)])
async def test_b38_google_add_ons(emulate: Any, edition: str, credits: int) -> None:
    provider = await emulate(edition=edition)
    include = {"include": {"aioverview": {}, "paaAioverview": True}}
    body = (await provider.post("/v1/async/task", provider.task("GOOGLE", payload=include))).body
    assert body["credits"]["creditsToCharge"] == credits


async def test_b39_state(emulate: Any) -> None:
    old, new = await emulate(), await emulate(edition="2026")
    task = new.task("GEMINI", payload={"state": "CA"})
    assert (await new.post("/v1/async/task", task)).body["credits"]["creditsToCharge"] == 6
    reply = await old.post("/v1/async/task", task)
    assert (reply.status, reply.fields()) == (422, ["payload.state"])


async def test_b40_upgrade_subtracts_what_was_used(emulate: Any) -> None:
    """The example of C-F: Hobby, 60,000 used, 20 of 30 days left, to Growth."""
    for edition in ALL:
        provider = await emulate(edition=edition, plan="hobby")
        account = provider.emulator.organizations["default"].account
        # A cycle of exactly 30 days: from 15 April.
        await provider.step((31 + 28 + 31 + 0) * 86_400)
        account.charge(60_000)
        await provider.step(10 * 86_400)
        await provider.control("organizations/default", {"plan": "growth"})
        assert account.balance == 1_350_000 - 60_000
        assert account.cycle.invoices[-1].cents == 26_667


async def test_b41_who_may_exceed(emulate: Any) -> None:
    for edition, kinds in (("2025", {"self_serve", "contract"}), ("2026", {"contract"})):
        for plan, kind in (
            ("business", "public"),
            ("enterprise-2k", "self_serve"),
            ("enterprise-annual", "contract"),
        ):
            provider = await emulate(edition=edition, plan=plan, credits=0)
            status = (await provider.post("/v1/async/task", provider.task())).status
            assert (status == 200) == (kind in kinds)


async def test_b42_enterprise_slots_come_days_later(emulate: Any) -> None:
    provider = await emulate(plan="business")
    organization = provider.emulator.organizations["default"]
    await provider.control("organizations/default", {"plan": "enterprise-annual"})
    assert organization.account.balance == 19_670_140
    assert organization.slots == 100
    await provider.step(2 * 86_400)
    assert organization.slots == 331


async def test_b43_top_up(emulate: Any) -> None:
    old, new = await emulate(credits=10), await emulate(edition="2026", credits=10)
    await old.control("organizations/default", {"topUp": 90})
    assert (await old.books())["remaining"] == 100
    reply = await new.post("/_emulator/organizations/default", {"topUp": 90}, key=None)
    assert reply.status == 400
    with pytest.raises(BillingError):
        new.emulator.registry.top_up(new.emulator.organizations["default"], 1)


async def test_b44_retention(emulate: Any) -> None:
    """24 h after completion in 2025, after creation in 2026."""
    for edition, alive in (("2025", True), ("2026", False)):
        provider = await emulate(edition=edition)
        task_id = await provider.create("CHATGPT")
        await provider.step(24 * 3600)
        assert (await provider.get(f"/v1/async/task/{task_id}")).status == (200 if alive else 404)
        await provider.step(60)
        assert (await provider.get(f"/v1/async/task/{task_id}")).status == 404


@pytest.mark.parametrize(
    ("edition", "rule", "fails", "charged"),
    [
        ("2025", None, 0.0, 7),
        ("2025", None, 1.0, 7),
        ("2026", None, 0.0, 7),
        ("2026", None, 1.0, 0),
        ("2026", "never", 0.0, 0),
        ("2026", "always", 1.0, 7),
    ],
)
async def test_b45_billing_of_abandoned_calls(
    emulate: Any, edition: str, rule: Any, fails: float, charged: int
) -> None:
    """The slot stays taken until the running attempt ends; then the rule of the edition or the switch
    decides."""
    provider = await emulate(
        edition=edition,
        switches=Switches(bill_canceled=rule),
        faults=FaultRates(fail=fails, internal_retry=0),
    )
    organization = provider.emulator.organizations["default"]
    await provider.abandon_sync()
    assert organization.slots_used == 1
    await provider.step(120)
    await eventually(lambda: organization.slots_used == 0)
    books = await provider.books()
    assert (books["charged"], books["totals"]["sync_canceled"]) == (charged, 1)


async def test_b46_batch_endpoint(emulate: Any) -> None:
    for edition, status in (("2025", 200), ("2026", 200), ("legacy", 404)):
        provider = await emulate(edition=edition)
        assert (await provider.post("/v1/async/task/batch", [provider.task()])).status == status


async def test_b47_batch_item_error(emulate: Any) -> None:
    old, new = await emulate(), await emulate(edition="2026")
    bad = {"taskType": "CHATGPT", "payload": {"prompt": "", "country": "US"}}
    problem = {"field": "payload.prompt", "message": "Prompt cannot be empty"}
    error = (await old.post("/v1/async/task/batch", [bad])).body["results"][0]["error"]
    assert (error["message"], error["details"]) == ("Task validation failed", problem)
    error = (await new.post("/v1/async/task/batch", [bad])).body["results"][0]["error"]
    assert (error["message"], error["details"]) == ("Invalid task at index 0", {"errors": [problem]})


async def test_b48_queue_limit_details(emulate: Any) -> None:
    for edition in ("2025", "2026"):
        provider = await emulate(edition=edition, concurrency=1, queue_max=2)
        for _ in range(3):
            await provider.create()
        reply = await provider.post("/v1/async/task", provider.task())
        assert (reply.status, reply.error()["code"]) == (429, "QUEUE_LIMIT_EXCEEDED")
        counts = {"queuedCount": 2, "batchSize": 1, "maxQueueSize": 2, "remainingCapacity": 0}
        assert reply.error()["details"] == (counts if edition == "2025" else {"limit": 2})


@pytest.mark.parametrize(("edition", "most"), [("2025", 10), ("legacy", 20), ("2026", 10)])
async def test_b49_google_pages_maximum(emulate: Any, edition: str, most: int) -> None:
    provider = await emulate(edition=edition)
    for pages, ok in ((most, True), (most + 1, False)):
        reply = await provider.post("/v1/async/task", provider.task("GOOGLE", payload={"pages": pages}))
        assert (reply.status == 200) == ok


async def test_b50_old_create_path(emulate: Any) -> None:
    for edition, status in (("2025", 404), ("2026", 404), ("legacy", 200)):
        provider = await emulate(edition=edition)
        assert (await provider.post("/v1/task", provider.task())).status == status


async def test_b51_countries_model(emulate: Any) -> None:
    for edition, status in (("2025", 400), ("2026", 200)):
        assert (await (await emulate(edition=edition)).get("/v1/countries?model=aioverview")).status == status


async def test_b52_news_path(emulate: Any) -> None:
    body = {"query": "shoes", "country": "US"}
    for edition in ("2025", "legacy", "2026"):
        provider = await emulate(edition=edition)
        charged = set()
        for path in ("google/news", "google-news"):
            answer = await provider.sync(path, body)
            assert answer.status == 200
            assert answer.body["result"]["newsResults"]
            charged.add(answer.headers["X-Credits-Charged"])
        assert len(charged) == 1


async def test_edition_per_key(emulate: Any) -> None:
    """One process, two keys, two editions."""
    provider = await emulate(
        organizations=(OrganizationSpec(name="new", keys=(KeySpec(key=LIVE_KEY, edition="2026"),)),)
    )
    task = {"taskType": "NOBODY"}
    assert (await provider.post("/v1/async/task", task)).status == 422
    assert (await provider.post("/v1/async/task", task, key=LIVE_KEY)).status == 400


def test_every_row_of_the_table_is_a_field_or_a_test() -> None:
    """A new row of C-B cannot be forgotten: each number from 1 to 52 has a test here."""
    import re
    from pathlib import Path

    rows = {int(row) for row in re.findall(r"_b(\d+)(?=_)", Path(__file__).read_text())}
    assert rows >= set(range(1, 53))
    assert set(EDITIONS) == set(ALL)
