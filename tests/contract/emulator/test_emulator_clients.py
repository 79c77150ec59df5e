"""Unmodified clients of the vendor against the emulator: the Python SDK and the LangChain package.

The vendor's Node SDK is not in the npm registry (looked for in November 2026), so it has no test here.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any, TypeVar

import cloro
import httpx
import pytest
from emulator_harness import Provider, Receiver

from app.emulator.engine.faults import FaultRates
from app.emulator.engine.options import Switches
from tests.client_requests import APP_PAYLOADS, MCP_BODIES, N8N_BODIES, PLUGIN_BODIES

T = TypeVar("T")
EDITIONS = ["2025", "2026"]
SCALE = 20_000.0  # a minute of an engine takes 3 ms


async def in_thread(work: Callable[[], T]) -> T:
    """The clients are synchronous; the emulator lives on this loop."""
    return await asyncio.get_running_loop().run_in_executor(None, work)


def client(provider: Provider, **over: Any) -> cloro.Cloro:
    return cloro.Cloro(api_key=over.pop("api_key", provider.key), base_url=provider.url, **over)


@pytest.mark.parametrize("edition", EDITIONS)
async def test_sdk_async_tasks(emulate: Any, receiver: Receiver, edition: str) -> None:
    """create, create_batch, retrieve, status, wait, run."""
    provider: Provider = await emulate(edition=edition, scale=SCALE)

    def work() -> dict[str, Any]:
        with client(provider) as sdk:
            payload = {"prompt": "best shoes", "country": "US"}
            task = sdk.async_tasks.create(
                "CHATGPT", payload, priority=5, idempotency_key="k-1", webhook={"url": receiver.url}
            )
            batch = sdk.async_tasks.create_batch(
                [
                    {"task_type": "GOOGLE", "payload": {"query": "best shoes", "country": "US"}},
                    {"taskType": "CHATGPT", "payload": payload, "idempotencyKey": "k-1"},
                ]
            )
            return {
                "task": task,
                "batch": batch,
                "retrieved": sdk.async_tasks.retrieve(task),
                "status": sdk.async_tasks.status(),
                "waited": sdk.async_tasks.wait(task, poll_interval=0.01),
                "ran": sdk.async_tasks.run("GEMINI", payload, poll_interval=0.01),
            }

    seen = await in_thread(work)
    task = seen["task"]
    assert (task.status, task.task_type, task.priority) == ("QUEUED", "CHATGPT", 5)
    assert [item["success"] for item in seen["batch"]] == [True, False]
    assert seen["batch"][1]["error"]["code"] == "RESOURCE_ALREADY_EXISTS"
    assert seen["retrieved"]["task"]["id"] == task.id
    assert seen["status"]["concurrency"]["max"] == 50
    assert seen["waited"]["task"]["status"] == "COMPLETED"
    assert seen["waited"]["credits"]["creditsCharged"] == 5
    assert "text" in seen["ran"]["response"]
    await provider.quiet()
    assert receiver.arrivals[0].body["task"]["id"] == task.id


@pytest.mark.parametrize("edition", EDITIONS)
async def test_sdk_monitor(emulate: Any, edition: str) -> None:
    """All seven methods that the SDK has."""
    provider: Provider = await emulate(edition=edition, scale=SCALE)

    def work() -> dict[str, Any]:
        with client(provider) as sdk:
            monitor, where = sdk.monitor, {"country": "US"}
            return {
                "chatgpt": monitor.chatgpt("shoes", include={"markdown": True}, **where),
                "gemini": monitor.gemini("shoes", **where),
                "perplexity": monitor.perplexity("shoes", **where),
                "copilot": monitor.copilot("shoes", **where),
                "aimode": monitor.aimode("shoes", **where),
                "google": monitor.google("shoes", device="mobile", pages=2, location="Austin", **where),
                "google_news": monitor.google_news("shoes", **where),
            }

    seen = await in_thread(work)
    assert all(answer["success"] is True and answer["result"] for answer in seen.values())
    assert (await provider.books())["totals"]["sync_completed"] == 7


@pytest.mark.parametrize("edition", EDITIONS)
async def test_sdk_reference_data(emulate: Any, edition: str) -> None:
    """The SDK's states() sends no country, which the contract requires: a real client meets this 400 as
    well."""
    provider: Provider = await emulate(edition=edition)

    def work() -> tuple[list[str], list[str], Any]:
        with client(provider) as sdk:
            with pytest.raises(cloro.BadRequestError):
                sdk.states()
            states = sdk.request("GET", "/v1/states", params={"country": "US"})
            return sdk.countries(), sdk.countries("chatgpt"), states

    everywhere, chatgpt, states = await in_thread(work)
    assert (len(everywhere), len(chatgpt), len(states)) == (250, 244, 51)


async def test_sdk_errors(emulate: Any) -> None:
    """Each status becomes the SDK's own exception."""
    provider: Provider = await emulate(edition="2026", concurrency=1, credits=10)
    payload = {"prompt": "best shoes", "country": "US"}

    def work() -> None:
        with client(provider, max_retries=0) as sdk:
            with pytest.raises(cloro.BadRequestError):
                sdk.async_tasks.create("CHATGPT", {"prompt": ""})
            sdk.async_tasks.create("CHATGPT", payload, idempotency_key="k")
            with pytest.raises(cloro.ConflictError) as conflict:
                sdk.async_tasks.create("CHATGPT", payload, idempotency_key="k")
            assert conflict.value.body["error"]["details"]["value"] == "k"
            with pytest.raises(cloro.RateLimitError):
                sdk.monitor.chatgpt("x", "US")
            with pytest.raises(cloro.NotFoundError):
                sdk.async_tasks.retrieve("nobody")
            with pytest.raises(cloro.PermissionDeniedError):
                dear = {"query": "x", "country": "US", "pages": 10}
                sdk.async_tasks.create("GOOGLE", dear)
        with (
            client(provider, api_key="sk_live_" + "f" * 32) as stranger,
            pytest.raises(cloro.AuthenticationError),
        ):
            stranger.async_tasks.status()

    await in_thread(work)


async def test_sdk_failed_task(emulate: Any) -> None:
    provider: Provider = await emulate(edition="2026", scale=SCALE, faults=FaultRates(fail=1.0))

    def work() -> Any:
        with client(provider) as sdk, pytest.raises(cloro.TaskFailedError) as failed:
            sdk.async_tasks.run("GEMINI", {"prompt": "x", "country": "US"}, poll_interval=0.01)
        return failed.value.response

    response = await in_thread(work)
    assert response["response"]["error"]["message"] == "Task failed after max retries"


async def test_sdk_retries_what_passes(emulate: Any) -> None:
    """The SDK repeats 503 after Retry-After, here 0 s; the second answer is sound."""
    provider: Provider = await emulate(
        edition="2026", faults=FaultRates(unavailable_503=1.0, retry_after_s=0)
    )
    front = asyncio.get_running_loop()

    def work() -> Any:
        with client(provider, max_retries=50) as sdk:
            front.call_soon_threadsafe(setattr, provider.emulator.options.faults, "unavailable_503", 0.0)
            return sdk.async_tasks.status()

    assert "queuedTasks" in await in_thread(work)


@pytest.mark.parametrize("edition", [*EDITIONS, "legacy"])
async def test_n8n_node(emulate: Any, edition: str) -> None:
    provider: Provider = await emulate(edition=edition, scale=SCALE, grok=True)
    for path, body in N8N_BODIES:
        answer = await provider.post(f"/v1/monitor/{path}", body)
        assert answer.status == 200, (path, answer.body)
        if body.get("include", {}).get("aioverview"):
            assert "markdown" in answer.body["result"]["aioverview"], "requested alongside it"
    for model in ("", "?model=grok", "?model=google", "?model=aimode"):
        assert (await provider.get(f"/v1/countries{model}")).status == 200
    task = (await provider.post("/v1/async/task", provider.task())).body["task"]["id"]
    status = await provider.get(f"/v1/tasks/{task}")
    assert status.status == 200
    assert status.body["task"]["id"] == task
    assert (await provider.get("/v1/tasks/nobody")).status == 404


async def test_the_markdown_of_an_overview_is_free_and_in_it_alone(emulate: Any) -> None:
    provider: Provider = await emulate(edition="2026", scale=SCALE)
    for include, credits in (({"markdown": True}, 5), ({"aioverview": True, "markdown": True}, 7)):
        answer = await provider.post(
            "/v1/monitor/google", {"query": "x", "country": "US", "include": include}
        )
        assert answer.headers["X-Credits-Charged"] == str(credits)
        assert "markdown" not in answer.body["result"]
    for wrong in ({"city": 7}, {"city": ""}):
        refused = await provider.post("/v1/monitor/google", {"query": "x", "country": "US"} | wrong)
        assert refused.status == 400
    elsewhere = {"query": "x", "country": "US", "city": "Bonn"}
    assert (await provider.post("/v1/monitor/google/news", elsewhere)).status == 400


@pytest.mark.parametrize("edition", [*EDITIONS, "legacy"])
async def test_mcp_server(emulate: Any, edition: str) -> None:
    provider: Provider = await emulate(edition=edition, scale=SCALE, grok=True)
    for path, body in MCP_BODIES:
        answer = await provider.post(f"/v1/monitor/{path}", body)
        assert answer.status == 200, (path, answer.body)
        assert {"X-Credits-Charged", "X-Credits-Remaining"} <= set(answer.headers)
    for path in ("countries", "countries?model=perplexity", "states?country=US"):
        assert (await provider.get(f"/v1/{path}")).status == 200


@pytest.mark.parametrize("edition", [*EDITIONS, "legacy"])
async def test_sample_apps(emulate: Any, receiver: Receiver, edition: str) -> None:
    provider: Provider = await emulate(edition=edition, scale=SCALE, grok=True)
    for n, (task_type, payload) in enumerate(APP_PAYLOADS):
        task = {"taskType": task_type, "payload": payload, "idempotencyKey": f"k-{n}"}
        answer = await provider.post("/v1/async/task", task | {"webhook": {"url": receiver.url}})
        assert answer.status == 200, (task, answer.body)
    await provider.quiet()
    assert len(receiver.arrivals) == len(APP_PAYLOADS)
    states = {arrival.body["task"]["status"] for arrival in receiver.arrivals}
    assert states == {"COMPLETED"}


@pytest.mark.parametrize("edition", [*EDITIONS, "legacy"])
async def test_openclaw_plugin(emulate: Any, edition: str) -> None:
    """Refused as by the provider, whose validators know upper case only, unless the switch allows it."""
    provider: Provider = await emulate(edition=edition, scale=SCALE)
    for path, body in PLUGIN_BODIES:
        refused = await provider.post(f"/v1/monitor/{path}", body)
        assert refused.status == 400, (path, refused.body)
    switches = Switches()
    switches.country_case = "any"
    taking: Provider = await emulate(edition=edition, scale=SCALE, switches=switches)
    for path, body in PLUGIN_BODIES:
        assert (await taking.post(f"/v1/monitor/{path}", body)).status == 200, path
        wrong = await taking.post(f"/v1/monitor/{path}", body | {"country": "qq"})
        assert wrong.status == 400, path


async def test_a_state_of_a_lower_case_country_is_charged(emulate: Any) -> None:
    switches = Switches()
    switches.country_case = "any"
    provider: Provider = await emulate(edition="2026", scale=SCALE, switches=switches)
    for country, state, credits in (("us", None, "7"), ("us", "TX", "9"), ("US", "TX", "9")):
        body = {"prompt": "shoes", "country": country} | ({"state": state} if state else {})
        answer = await provider.post("/v1/monitor/chatgpt", body)
        assert (answer.status, answer.headers["X-Credits-Charged"]) == (200, credits)
    assert (await provider.post("/v1/monitor/chatgpt", body | {"country": "de"})).status == 400


async def test_of_a_name_given_twice_the_last_value_counts(emulate: Any) -> None:
    provider: Provider = await emulate(edition="2026", scale=SCALE)
    raw = b'{"prompt":"x","country":"de","country":"US","include":{},"include":{"html":1,"html":true}}'
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {provider.key}"}) as http:
        answer = await http.post(f"{provider.url}/v1/monitor/chatgpt", content=raw)
    assert (answer.status_code, "html" in answer.json()["result"]) == (200, True)


@pytest.mark.parametrize("edition", EDITIONS)
async def test_langchain_tools(emulate: Any, edition: str) -> None:
    """Every tool of the package. It has no option for the host, so its own client is pointed elsewhere."""
    tools = pytest.importorskip("langchain_cloro", reason="install the dev dependencies")
    provider: Provider = await emulate(edition=edition, scale=SCALE)

    def work() -> dict[str, Any]:
        seen = {}
        for name in (
            "ChatGPT",
            "Gemini",
            "Perplexity",
            "Copilot",
            "GoogleSearch",
            "SearchRun",
            "SearchResults",
        ):
            tool = getattr(tools, f"Cloro{name}")(cloro_api_key=provider.key)
            tool.client.base_url = httpx.URL(provider.url)
            subject = "prompt" if name in ("ChatGPT", "Gemini", "Perplexity", "Copilot") else "query"
            seen[name] = json.loads(tool.invoke({subject: "best shoes", "country": "DE"}))
            tool.client.close()
        return seen

    seen = await in_thread(work)
    assert all(answer.get("success") is True for answer in seen.values()), seen
    assert seen["GoogleSearch"]["result"]["organicResults"]


async def test_langchain_countries(emulate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    utils = pytest.importorskip("langchain_cloro.utils", reason="install the dev dependencies")
    provider: Provider = await emulate(edition="2026")
    real = httpx.Client

    def pointed(**arguments: Any) -> httpx.Client:
        return real(**arguments | {"base_url": provider.url})

    monkeypatch.setattr(httpx, "Client", pointed)
    assert len(await in_thread(lambda: utils.get_countries(provider.key, model="perplexity"))) == 249
