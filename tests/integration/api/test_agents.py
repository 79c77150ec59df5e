"""Tools for agents, by the official client over real HTTP."""

import asyncio
import contextlib
import gc
import io
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from app.store import Store
from tests.integration.api.asking import Api
from tests.integration.api.conftest import StartApi
from tests.integration.api.test_reading import settled_run

if TYPE_CHECKING:
    from mcp.client.client import Client  # or each process of a test run takes a second for it

READING = {
    "estimate_run",
    "list_runs",
    "watch_run",
    "run_report",
    "list_findings",
    "forecast",
    "get_results",
    "get_result",
    "explain_charge",
}
SPENDING = {"create_run", "retry_failed"}
ASK = {"prompts": ["What is a tally?", {"prompt": "And a hook?", "engine": "GEMINI"}], "engine": "CHATGPT"}
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
TYPE = {"Content-Type": "application/json"}
JSON = {"Accept": "application/json, text/event-stream"}


@asynccontextmanager
async def agent(api: Api, mode: str = "auto", **token: Any) -> AsyncIterator["Client"]:
    """A client with a token, speaking the newest protocol, or by the older handshake."""
    import httpx2
    from mcp.client.client import Client
    from mcp.client.streamable_http import streamable_http_client

    headers = {"Authorization": f"Bearer {await api.token(**token)}"}
    async with httpx2.AsyncClient(headers=headers) as http:
        transport = streamable_http_client(str(api.client.make_url("/mcp")), http_client=http)
        async with Client(transport, mode=mode) as client:  # type: ignore[arg-type]
            yield client


async def use(client: "Client", tool: str, **arguments: Any) -> Any:
    """What a tool answers."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert json.loads(result.content[0].text) == result.structured_content  # type: ignore[union-attr]
    return result.structured_content


async def refused(client: "Client", tool: str, **arguments: Any) -> str:
    """What an agent reads."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return str(result.content[0].text)  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_every_protocol_version_lists_the_tools(mode: str, sqlite_api: Api) -> None:
    async with agent(sqlite_api, mode) as client:
        listed = (await client.list_tools()).tools
        assert {tool.name for tool in listed} == READING | SPENDING
        for tool in listed:
            assert tool.annotations is not None and tool.output_schema is not None
            assert tool.annotations.read_only_hint == (tool.name in READING)
            assert len(tool.description or "") < 300
        assert (await use(client, "list_runs"))["data"] == []


async def test_a_run_is_estimated_made_once_and_watched(api: Api) -> None:
    key = {"max_credits": 100, "idempotency_key": "monday-1"}
    where = {"country": "us"}
    async with agent(api, scope="submit") as client:
        estimate = await use(client, "estimate_run", **ASK, **where)
        assert (estimate["tasks"], len(estimate["by_engine"])) == (2, 2)
        made = await use(client, "create_run", **ASK, **where, **key)
        assert made["estimated"] == estimate["credits"] and not made["is_replay"]
        assert made["run"]["budget"] == "100" and made["run"]["state"] == "running"
        again = await use(client, "create_run", **ASK, **where, **key)
        assert again["is_replay"] and again["run"]["id"] == made["run"]["id"]
        said = await refused(client, "create_run", **ASK, country="DE", **key)
        assert "idempotency_key: " in said and "key_reused" in said
        watched = await use(client, "watch_run", run_id=made["run"]["id"], wait_s=0)
        assert not watched["is_finished"] and watched["waits_for"]
        for _ in range(2):  # without a key each is meant
            await use(client, "create_run", **ASK, **where, max_credits=100)
        assert len((await use(client, "list_runs"))["data"]) == 3
    actions = [
        row for row in (await api.store.access.actions_before(None, 20))[0] if row.actor.strip() == "submit"
    ]
    done = [row for row in actions if row.status == 200]
    assert {row.action for row in actions} == {"run.create"}
    assert made["run"]["id"] in {row.subject for row in done} and len(actions) == 5


async def test_what_may_cost_more_than_was_allowed_is_refused(sqlite_api: Api) -> None:
    async with agent(sqlite_api) as client:
        said = await refused(client, "create_run", **ASK, country="US", max_credits="0.5")
        assert "max_credits: the estimate is" in said
        assert "max_credits: add it" in await refused(client, "create_run", **ASK, country="US")
        assert "decimal in a string" in await refused(client, "create_run", **ASK, max_credits=0.1)
        assert (await use(client, "list_runs"))["data"] == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"prompts": []}, "prompts: "),
        ({"prompts": [""]}, "prompts.0.prompt"),
        ({"prompts": ["x", {"prompt": "y", "country": "XX"}]}, "prompts.1.country"),
        ({"prompts": [{"prompt": "y", "engine": "BING"}]}, "engine"),
        (
            {"prompts": [{"prompt": "y", "custom_id": "a"}, {"prompt": "z", "custom_id": "a"}]},
            "prompts.1.cus",
        ),
        ({"engine": None}, "engine"),
        ({"account": "nobody"}, "account"),
        ({"account": "no name"}, "account: write it as the tool's schema says"),
        ({"repeats": 0}, "repeats: "),
        ({"repeats": True}, "repeats: "),
        ({"prompts": [{"prompt": "y", "country": "a secret"}]}, "is no country code: use a code"),
        ({"colour": "red"}, "colour: leave it out; known are: "),
    ],
)
async def test_what_is_wrong_is_named_with_its_remedy(
    changed: dict[str, Any], said: str, sqlite_api: Api
) -> None:
    async with agent(sqlite_api) as client:
        arguments = {"prompts": ["secret"], "engine": "CHATGPT", "country": "US", "max_credits": 50} | changed
        answered = await refused(client, "create_run", **arguments)
        assert said in answered and "request id" in answered and "secret" not in answered
        assert (await use(client, "list_runs"))["data"] == []


async def test_a_charge_is_explained_and_a_result_shown(api: Api) -> None:
    run_id = await settled_run(api)
    async with agent(api, scope="read") as client:
        rows = (await use(client, "get_results", run_id=run_id, custom_id="row-2"))["data"]
        explained = await use(client, "explain_charge", task_id=rows[0]["id"])
        text = " ".join(explained["summary"])
        assert "5 credits were due and 7.5 were charged" in text and "sha256" in text
        assert explained["ledger_sums"] == {"held": "5", "posted": "7.5", "voided": "0", "open": "0"}
        answer = await use(client, "get_result", task_id=rows[0]["id"])
        assert answer["payload"]["prompt"] == "secret 2" and answer["note"] is None
        assert answer["response"]["text"] == answer["answer_text"]
        short = await use(client, "get_result", task_id=rows[0]["id"], max_chars=1)
        assert (short["is_cut"], short["response"]) == (True, None) and "max_chars" in short["note"]
        assert (await use(client, "run_report", run_id=run_id))["tasks"] == 12
        findings = (await use(client, "list_findings", run_id=run_id))["data"]
        assert [found["verdict"] for found in findings] == ["overcharged"]
        assert (await use(client, "forecast"))["account"] == "default"
    async with agent(api, account="eu") as other:
        assert "not_found" in await refused(other, "explain_charge", task_id=rows[0]["id"])
        assert "not_found" in await refused(other, "watch_run", run_id=run_id)


async def test_failed_tasks_are_sent_again_when_it_is_meant(api: Api) -> None:
    async def acted() -> list[tuple[str, str | None, int | None]]:
        rows = (await api.store.access.actions_before(None, 9))[0]
        done = [(row.action, row.subject, row.status) for row in rows if row.action != "token.create"]
        return sorted(done, key=str)

    run_id = await settled_run(api)
    async with agent(api) as client:
        tried = await use(client, "retry_failed", run_id=run_id)
        assert (tried["tasks"], tried["estimated"], tried["run"]["counts"]["failed"]) == (1, "5", 1)
        assert await acted() == []
        assert "max_credits" in await refused(client, "retry_failed", run_id=run_id, dry_run=False)
        done = await use(client, "retry_failed", run_id=run_id, dry_run=False, max_credits=5)
        assert (done["tasks"], done["run"]["counts"]["pending"]) == (1, 1)
    assert await acted() == sorted([("run.retry", run_id, 200), ("run.retry", None, 422)], key=str)


async def test_a_token_does_no_more_than_its_scope(sqlite_api: Api) -> None:
    async with agent(sqlite_api, scope="read") as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == READING
        said = await refused(client, "create_run", **ASK, country="US", max_credits=50)
        assert "the scope read, and submit is needed" in said
        assert "use one of estimate_run" in await refused(client, "drop_tables")
    async with agent(sqlite_api, scope="submit") as client:
        said = await refused(client, "retry_failed", run_id="01a21e33-1b6f-78d0-a128-c864f1ed3e1d")
        assert "operate is needed" in said


async def post(api: Api, body: Any = CALL, **headers: str) -> tuple[int, Any]:
    """Status and document."""
    answered = await api.ask("/mcp", "POST", json=body, headers=JSON | headers)
    return answered.status, answered.document


async def test_pages_of_other_sites_are_refused(sqlite_store: Store, start_api: StartApi) -> None:
    api = await start_api(sqlite_store, api_names="tally.example.com")
    assert (await post(api))[0] == 200
    for host, status in (("tally.example.com", 200), ("localhost:9", 200), ("evil.example", 421), ("", 421)):
        assert (await post(api, Host=host))[0] == status, host
    ours = {"Host": "tally.example.com"}
    for origin, status in (
        ("https://tally.example.com", 200),
        ("http://localhost:6274", 200),
        ("https://evil.example", 403),
        ("http://8.8.8.8", 403),
        ("null", 403),
    ):
        found, document = await post(api, **ours, Origin=origin)
        assert found == status, origin
        assert status == 200 or document["errors"][0]["field"] == "Origin"


async def test_what_is_no_message_is_refused(sqlite_api: Api) -> None:
    api = sqlite_api
    async with api.client.post("/mcp", json=CALL, headers=JSON) as response:
        assert response.status == 401 and "Bearer" in response.headers["WWW-Authenticate"]
    for method in ("GET", "DELETE", "PUT"):
        assert (await api.ask("/mcp", method, headers=JSON)).status == 405
    assert (await post(api, {"jsonrpc": "2.0", "id": 1, "method": "no/such"}))[1]["error"]["code"] == -32601
    assert (await api.ask("/mcp", "POST", data=b"{", headers=JSON | TYPE)).status == 400
    status, document = await post(api, [CALL | {"params": {"prompts": ["secret question"]}}])
    assert (status, document["error"]["code"]) == (400, -32602)
    assert "secret" not in str(document)
    assert (
        await api.ask("/mcp", "POST", data=io.BytesIO(b" " * (1 << 21)), headers=JSON | TYPE)
    ).status == 413
    deep = b"[" * 100_000
    assert (await api.ask("/mcp", "POST", data=deep, headers=JSON | TYPE)).status == 400


def call_of(tool: str, **arguments: Any) -> dict[str, Any]:
    """The message of a call."""
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}


async def test_nobody_waits_for_an_agent_that_left_nor_at_the_end(sqlite_api: Api) -> None:
    api = sqlite_api
    run_id = await api.run()
    await api.token()
    watching = asyncio.create_task(post(api, call_of("watch_run", run_id=run_id, wait_s=25)))
    left = asyncio.create_task(post(api, call_of("watch_run", run_id=run_id, wait_s=25)))
    await asyncio.sleep(0.5)
    left.cancel()
    assert not watching.done()
    api.parts.stopping.set()
    async with asyncio.timeout(20):
        status, document = await watching
    assert (status, document["result"]["structuredContent"]["is_finished"]) == (200, False)
    with contextlib.suppress(asyncio.CancelledError):
        await left


async def test_calls_leave_nothing_behind(sqlite_api: Api, request: pytest.FixtureRequest) -> None:
    headers = JSON | {"Authorization": f"Bearer {await sqlite_api.token()}"}
    url = sqlite_api.client.make_url("/mcp")
    async with aiohttp.ClientSession(headers=headers) as session:

        async def calls(count: int) -> tuple[int, int]:
            for _ in range(count):
                async with session.post(url, json=call_of("list_runs")) as response:
                    assert response.status == 200 and await response.read()
            gc.collect()
            return len(gc.get_objects()), len(asyncio.all_tasks())

        await calls(20)
        # What is there already is not looked at: half a million objects of all tests.
        gc.freeze()
        request.addfinalizer(gc.unfreeze)
        objects, tasks = await calls(20)
        grown, more_tasks = [60], tasks + 1
        # What a call leaves behind is there each time; what other tests' threads make meanwhile is not.
        while len(grown) < 6 and (min(grown) >= 60 or more_tasks > tasks):
            before, (objects, more_tasks) = objects, await calls(60)
            grown.append(objects - before)
    assert min(grown) < 60 and more_tasks <= tasks, grown


async def test_without_the_extra_it_says_what_to_install(
    sqlite_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name == "app.api.mcp.server" or name.startswith("mcp.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("app.api.mcp.server", raising=False)
    monkeypatch.setitem(sys.modules, "mcp", None)
    status, document = await post(sqlite_api)
    assert status == 501 and "tallyhook[mcp]" in document["detail"]
