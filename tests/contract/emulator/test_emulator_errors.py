"""C-J.2: every row of the error table, produced by the emulator itself."""

import re
from typing import Any

from emulator_harness import CHATGPT, Provider, Reply, eventually

from app.emulator.engine.faults import FaultRates


def check(reply: Reply, status: int, code: str, message: str, details: Any = None) -> None:
    assert reply.status == status
    error = reply.error()
    assert (error["code"], error["message"]) == (code, message)
    assert error.get("details") == details
    assert re.match(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", error["timestamp"])
    assert reply.body["success"] is False
    assert reply.header("Content-Type") == "application/json"


async def new(emulate: Any, **options: Any) -> Provider:
    provider: Provider = await emulate(edition="2026", **options)
    return provider


async def test_j2_validation_error(emulate: Any) -> None:
    problem = [{"field": "prompt", "message": "Prompt cannot be empty"}]
    reply = await (await new(emulate)).post("/v1/monitor/chatgpt", {"prompt": "", "country": "US"})
    check(reply, 400, "VALIDATION_ERROR", "Request validation failed", problem)


async def test_j2_missing_api_key(emulate: Any) -> None:
    reply = await (await new(emulate)).get("/v1/credits", key=None)
    check(reply, 401, "MISSING_API_KEY", "Missing or invalid API key")


async def test_j2_invalid_api_key_format(emulate: Any) -> None:
    reply = await (await new(emulate)).get("/v1/credits", key="short")
    check(reply, 401, "INVALID_API_KEY_FORMAT", "Invalid API key format")


async def test_j2_invalid_or_expired_api_key(emulate: Any) -> None:
    reply = await (await new(emulate)).get("/v1/credits", key="sk_live_" + "f" * 32)
    check(reply, 401, "INVALID_OR_EXPIRED_API_KEY", "Invalid or expired API key")


async def test_j2_insufficient_credits(emulate: Any) -> None:
    provider = await new(emulate, credits=0)
    check(
        await provider.post("/v1/monitor/chatgpt", CHATGPT),
        403,
        "INSUFFICIENT_CREDITS",
        "Insufficient credits",
    )


async def test_j2_insufficient_permissions(emulate: Any) -> None:
    provider = await emulate(credits=0)
    reply = await provider.post("/v1/monitor/chatgpt", CHATGPT)
    check(reply, 403, "INSUFFICIENT_PERMISSIONS", "Insufficient permissions or credits")


async def test_j2_resource_not_found(emulate: Any) -> None:
    reply = await (await new(emulate)).get("/v1/nowhere")
    check(reply, 404, "RESOURCE_NOT_FOUND", "Route not found", {"id": "/v1/nowhere"})


async def test_j2_wrong_method_is_an_unknown_route(emulate: Any) -> None:
    assert (await (await new(emulate)).call("DELETE", "/v1/async/status")).status == 404


async def test_j2_resource_already_exists(emulate: Any) -> None:
    provider = await new(emulate)
    await provider.create(idempotencyKey="k")
    details = {"field": "idempotencyKey", "value": "k"}
    reply = await provider.post("/v1/async/task", provider.task(idempotencyKey="k"))
    check(reply, 409, "RESOURCE_ALREADY_EXISTS", "Task already exists", details)


async def test_j2_rate_limit_exceeded(emulate: Any) -> None:
    provider = await new(emulate, frozen_wall=True, requests_per_s=1)
    await provider.get("/v1/credits")
    check(await provider.get("/v1/credits"), 429, "RATE_LIMIT_EXCEEDED", "API key rate limit exceeded")


async def test_j2_concurrency_limit_exceeded(emulate: Any) -> None:
    provider = await new(emulate, concurrency=1)
    await provider.create("CHATGPT")
    reply = await provider.post("/v1/monitor/chatgpt", CHATGPT)
    check(reply, 429, "CONCURRENCY_LIMIT_EXCEEDED", "Concurrency limit exceeded", {"limit": 1})


async def test_j2_queue_limit_exceeded(emulate: Any) -> None:
    provider = await new(emulate, concurrency=1, queue_max=1)
    for _ in range(2):
        await provider.create()
    message = "Queue limit exceeded. Maximum 1 queued tasks allowed per organization"
    reply = await provider.post("/v1/async/task", provider.task())
    check(reply, 429, "QUEUE_LIMIT_EXCEEDED", message, {"limit": 1})


async def test_j2_request_canceled(emulate: Any) -> None:
    """499 goes to a connection that is closed already; the emulator's own record shows it."""
    provider = await new(emulate)
    organization = provider.emulator.organizations["default"]
    await provider.abandon_sync()
    await provider.step(120)
    await eventually(lambda: organization.slots_used == 0)
    calls = (await provider.get("/_emulator/state", key=None)).body["syncCalls"]
    assert [item["status"] for item in calls] == [499]


async def test_j2_internal_server_error(emulate: Any) -> None:
    provider = await new(emulate, faults=FaultRates(error_500=1.0))
    check(await provider.get("/v1/credits"), 500, "INTERNAL_SERVER_ERROR", "Internal server error")


async def test_j2_external_service_error(emulate: Any) -> None:
    reply = await (await new(emulate)).post("/v1/monitor/google/goto", {"url": "https://google.com/url"})
    message = "goto resolve request failed"
    check(reply, 502, "EXTERNAL_SERVICE_ERROR", message, {"service": "google"})


async def test_j2_service_unavailable(emulate: Any) -> None:
    provider = await new(emulate, faults=FaultRates(unavailable_503=1.0))
    check(await provider.get("/v1/credits"), 503, "SERVICE_UNAVAILABLE", "Service unavailable")


async def test_j2_html_from_an_intermediary(emulate: Any) -> None:
    reply = await (await new(emulate, faults=FaultRates(html_502=1.0))).get("/v1/credits")
    assert (reply.status, reply.raw[:6]) == (502, b"<html>")
    assert reply.header("Content-Type") == "text/html"


async def test_j2_old_string_forms(emulate: Any) -> None:
    provider = await emulate(edition="legacy")
    assert (await provider.get("/v1/credits", key=None)).body == {
        "success": False,
        "error": "Invalid or missing API key",
    }
    refused = (await provider.post("/v1/monitor/chatgpt", {"prompt": ""})).body
    assert refused["error"] == "Request validation failed"
    assert refused["details"] == [{"field": "prompt", "message": "Prompt cannot be empty"}]
