"""C-C and C-D: keys, rate limits, slots, the headers of C-D.2, and the order of checks."""

from typing import Any

import pytest
from emulator_harness import CHATGPT, LIVE_KEY, Receiver, eventually

from app.emulator.billing.organization_spec import KeySpec
from app.emulator.engine.faults import FaultRates


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "MISSING_API_KEY"),
        ("", "MISSING_API_KEY"),
        ("Bearer", "MISSING_API_KEY"),
        ("Bearer ", "MISSING_API_KEY"),
        ("bearer sk_test_0123456789abcdef0123456789abcdef", "MISSING_API_KEY"),
        ("Basic sk_test_0123456789abcdef0123456789abcdef", "MISSING_API_KEY"),
        ("Bearer nonsense", "INVALID_API_KEY_FORMAT"),
        ("Bearer sk_prod_0123456789abcdef0123456789abcdef", "INVALID_API_KEY_FORMAT"),
        ("Bearer sk_live_0123", "INVALID_API_KEY_FORMAT"),
        ("Bearer sk_live_ffffffffffffffffffffffffffffffff", "INVALID_OR_EXPIRED_API_KEY"),
    ],
)
async def test_c_401_cases(emulate: Any, header: str | None, code: str) -> None:
    provider = await emulate()
    headers = {} if header is None else {"Authorization": header}
    reply = await provider.get("/v1/async/status", key=None, headers=headers)
    assert (reply.status, reply.error()["code"]) == (401, code)
    messages = {
        "MISSING_API_KEY": "Missing or invalid API key",
        "INVALID_API_KEY_FORMAT": "Invalid API key format",
        "INVALID_OR_EXPIRED_API_KEY": "Invalid or expired API key",
    }
    assert reply.error()["message"] == messages[code]


async def test_c_unauthenticated_paths(emulate: Any) -> None:
    """404 without a key outside /v1; 401 for any path below it, existing or not."""
    provider = await emulate()
    assert (await provider.get("/", key=None)).status == 404
    assert (await provider.get("/v2/async/status", key=None)).status == 404
    assert (await provider.get("/v1/openapi.json", key=None)).status == 401
    assert (await provider.get("/v1/openapi.json")).status == 404


async def test_c_invalidated_key_works_for_a_minute(emulate: Any) -> None:
    provider = await emulate(keys=(LIVE_KEY, "sk_live_11111111111111111111111111111111"))
    await provider.control("organizations/default", {"invalidateKey": LIVE_KEY})
    await provider.step(59)
    assert (await provider.get("/v1/async/status", key=LIVE_KEY)).status == 200
    await provider.step(1)
    reply = await provider.get("/v1/async/status", key=LIVE_KEY)
    assert reply.error()["code"] == "INVALID_OR_EXPIRED_API_KEY"


async def test_c_test_keys_may_be_free(emulate: Any) -> None:
    """C-L row L29, a switch: not billed, not gated."""
    from app.emulator.engine.options import Switches

    provider = await emulate(credits=0, switches=Switches(test_keys_free=True))
    task_id = await provider.create("CHATGPT")
    await provider.step(600)
    body = await provider.status(task_id)
    assert body["credits"] == {"creditsToCharge": 0, "creditsCharged": 0}
    assert (await provider.books())["remaining"] == 0


async def test_d1_rate_refusal_at_once_and_window_reset(emulate: Any) -> None:
    provider = await emulate(frozen_wall=True)
    statuses = [(await provider.get("/v1/async/status")).status for _ in range(501)]
    assert statuses == [200] * 500 + [429]
    refused = await provider.get("/v1/async/status")
    assert refused.header("X-RateLimit-Remaining") == "0"
    assert provider.wall is not None
    provider.wall.now_s += 1
    assert (await provider.get("/v1/async/status")).header("X-RateLimit-Remaining") == "499"


async def test_d1_buckets_are_per_key(emulate: Any) -> None:
    """C-L row L13."""
    provider = await emulate(frozen_wall=True, requests_per_s=1)
    provider.emulator.registry.add_key(provider.emulator.organizations["default"], KeySpec(key=LIVE_KEY))
    assert (await provider.get("/v1/async/status")).status == 200
    assert (await provider.get("/v1/async/status")).status == 429
    assert (await provider.get("/v1/async/status", key=LIVE_KEY)).status == 200


async def test_d1_backlog(emulate: Any) -> None:
    """Only QUEUED counts; what processes does not."""
    provider = await emulate(edition="2026", concurrency=2, queue_max=1)
    for _ in range(3):
        await provider.create()
    reply = await provider.post("/v1/async/task", provider.task())
    assert reply.error()["code"] == "QUEUE_LIMIT_EXCEEDED"
    assert reply.error()["message"] == "Queue limit exceeded. Maximum 1 queued tasks allowed per organization"
    await provider.step(10)
    assert (await provider.post("/v1/async/task", provider.task())).status == 200


async def test_d1_backlog_default(emulate: Any) -> None:
    assert (await emulate()).emulator.organizations["default"].queue_max == 100_000


async def test_d2_rate_limit_headers(emulate: Any) -> None:
    """On every authenticated answer, refusals included, and on no 401 (L16)."""
    provider = await emulate(edition="2026")
    for method, path, body in (
        ("GET", "/v1/async/status", None),
        ("GET", "/v1/nowhere", None),
        ("POST", "/v1/async/task", {}),
        ("GET", "/v1/states", None),
    ):
        reply = await provider.call(method, path, body)
        assert reply.header("X-RateLimit-Limit") == "1000"
        assert reply.header("X-RateLimit-Remaining") is not None
    assert (await provider.get("/v1/async/status", key=None)).header("X-RateLimit-Limit") is None


@pytest.mark.parametrize(("edition", "family"), [("2025", "X-Concurrent"), ("2026", "X-Concurrency")])
async def test_d2_concurrency_headers(emulate: Any, edition: str, family: str) -> None:
    """This request included: 1 of 10, then 2 of 10; on the refusal limit + 1 and 0 left (L34)."""
    provider = await emulate(edition=edition, concurrency=2)
    organization = provider.emulator.organizations["default"]
    first = provider.begin_sync()
    await eventually(lambda: organization.slots_used == 1)
    second = provider.begin_sync("gemini")
    await eventually(lambda: organization.slots_used == 2)
    refused = await provider.post("/v1/monitor/copilot", CHATGPT)
    replies = [await provider.finish(first), await provider.finish(second), refused]
    seen = [
        tuple(reply.header(f"{family}-{part}") for part in ("Limit", "Current", "Remaining"))
        for reply in replies
    ]
    assert seen == [("2", "1", "1"), ("2", "2", "0"), ("2", "3", "0")]
    assert [reply.status for reply in replies] == [200, 200, 429]


async def test_d2_concurrency_headers_only_after_validation(emulate: Any) -> None:
    for edition in ("2025", "2026"):
        provider = await emulate(edition=edition)
        for reply in (
            await provider.post("/v1/monitor/chatgpt", {}),
            await provider.post("/v1/monitor/chatgpt", CHATGPT, key=None),
            await provider.get("/v1/async/status"),
            await provider.post("/v1/async/task", provider.task()),
        ):
            assert not [name for name in reply.headers if name.startswith("X-Concurren")]


async def test_d2_credit_headers(emulate: Any) -> None:
    """Fresh on every 200 of a sync call, unlike the cached endpoint; on no async answer."""
    provider = await emulate(edition="2026", plan="lite")
    await provider.get("/v1/credits")
    call = provider.begin_sync("google", {"query": "shoes", "country": "US"})
    reply = await provider.finish(call)
    assert (reply.header("X-Credits-Remaining"), reply.header("X-Credits-Charged")) == ("37495", "5")
    created = await provider.post("/v1/async/task", provider.task())
    assert created.header("X-Credits-Remaining") is None


async def test_d2_retry_after_only_on_503(emulate: Any) -> None:
    faulty = FaultRates(unavailable_503=1.0, retry_after_s=7)
    reply = await (await emulate(edition="2026", faults=faulty)).get("/v1/async/status")
    assert (reply.status, reply.header("Retry-After")) == (503, "7")
    assert reply.error()["code"] == "SERVICE_UNAVAILABLE"


async def test_d2_no_ietf_headers(emulate: Any) -> None:
    reply = await (await emulate(edition="2026")).get("/v1/async/status")
    assert not [name for name in reply.headers if name.lower().startswith("ratelimit")]


async def test_d3_sync_and_async_share_the_slots(emulate: Any) -> None:
    provider = await emulate(concurrency=2)
    await provider.create("CHATGPT")
    organization = provider.emulator.organizations["default"]
    call = provider.begin_sync()
    await eventually(lambda: organization.slots_used == 2)
    assert (await provider.post("/v1/monitor/chatgpt", CHATGPT)).status == 429
    await provider.create("CHATGPT")
    status = (await provider.get("/v1/async/status")).body
    assert (status["queuedTasks"], status["processingTasks"]) == (1, 1)
    assert status["concurrency"] == {"used": 2, "max": 2}
    assert (await provider.finish(call)).status == 200


async def test_d3_public_upgrade_gives_slots_at_once(emulate: Any) -> None:
    provider = await emulate(plan="lite")
    await provider.control("organizations/default", {"plan": "hobby"})
    assert (await provider.get("/v1/async/status")).body["concurrency"]["max"] == 20


async def test_d3_goto_needs_no_slot_and_no_credits(emulate: Any) -> None:
    provider = await emulate(edition="2026", credits=0, concurrency=1)
    link = {"url": "https://google.com/url?q=https://a.example/"}
    reply = await provider.post("/v1/monitor/google/goto", link)
    assert (reply.status, reply.body) == (200, {"url": "https://a.example/"})
    assert not [name for name in reply.headers if name.startswith(("X-Concurren", "X-Credits"))]
    assert reply.header("X-RateLimit-Limit") == "1000"


async def test_d4_order_of_checks(emulate: Any, receiver: Receiver) -> None:
    """401, 429 rate, 404 route, 400, 409, 403, 429 queue: each case breaks everything behind it as well."""
    provider = await emulate(edition="2026", frozen_wall=True, requests_per_s=4, queue_max=1, concurrency=1)
    account = provider.emulator.organizations["default"].account
    bad = {"taskType": "CHATGPT", "idempotencyKey": "k", "payload": {}}
    good = provider.task(idempotencyKey="k")
    await provider.post("/v1/async/task", good)
    await provider.post("/v1/async/task", provider.task())
    account.charge(account.balance)

    async def code(body: Any, path: str = "/v1/async/task", **rest: Any) -> str:
        return str((await provider.post(path, body, **rest)).error()["code"])

    assert await code(bad, "/v1/nowhere") == "RESOURCE_NOT_FOUND"
    assert await code(bad) == "VALIDATION_ERROR"
    assert await code(bad, "/v1/nowhere", key=None) == "MISSING_API_KEY"
    provider.emulator.options.requests_per_s = 0
    assert await code(good) == "RESOURCE_ALREADY_EXISTS"
    assert await code(provider.task()) == "INSUFFICIENT_CREDITS"
    account.top_up(100, account.cycle.starts_s)
    assert await code(provider.task()) == "QUEUE_LIMIT_EXCEEDED"
    provider.emulator.options.requests_per_s = 1
    await provider.post("/v1/async/task", bad)
    assert await code(bad, "/v1/async/task") == "RATE_LIMIT_EXCEEDED"


async def test_d4_credits_before_concurrency_on_sync(emulate: Any) -> None:
    provider = await emulate(edition="2026", concurrency=1, credits=5)
    await provider.create("GOOGLE")
    reply = await provider.post("/v1/monitor/chatgpt", CHATGPT)
    assert reply.error()["code"] == "INSUFFICIENT_CREDITS"
