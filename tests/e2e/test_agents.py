"""Tools for agents in real processes: a run with faults made and followed by nothing else, over HTTP; its
figures over standard input and output; and what docs/api.md tells to type."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.e2e.stack import TALLYHOOK, Stack, running_stack
from tests.servers.valkey import ValkeyServer

if TYPE_CHECKING:
    from mcp.client.client import Client  # or each process of a test run takes a second for it

ROOT = Path(__file__).parents[2]
COUNT = 40


async def use(client: "Client", tool: str, **arguments: Any) -> Any:
    """What a tool answers."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    return result.structured_content


async def run_to_its_end(client: "Client") -> tuple[str, Any]:
    """Made and followed by tools alone; its id and its report."""
    asked = {"prompts": [f"question {n}" for n in range(COUNT)], "engine": "GEMINI", "country": "US"}
    estimate = await use(client, "estimate_run", **asked)
    allowed = {"max_credits": estimate["credits"], "idempotency_key": "monday"}
    made = await use(client, "create_run", **asked, **allowed)
    run_id = made["run"]["id"]
    again = await use(client, "create_run", **asked, **allowed)
    assert (again["is_replay"], again["run"]["id"]) == (True, run_id)
    watched: Any = {"is_finished": False}
    async with asyncio.timeout(90):
        while not watched["is_finished"]:
            watched = await use(client, "watch_run", run_id=run_id)
    rows = (await use(client, "get_results", run_id=run_id, limit=200))["data"]
    assert len(rows) == COUNT
    done = next(row for row in rows if row["state"] == "completed")
    assert (await use(client, "get_result", task_id=done["id"]))["answer_text"]
    explained = await use(client, "explain_charge", task_id=done["id"])
    assert explained["ledger_sums"]["open"] == "0" and "matched" in " ".join(explained["summary"])
    report = await use(client, "run_report", run_id=run_id)
    assert report["completed"] + report["failed"] == COUNT
    return run_id, report


def run_documented_commands(stack: Stack) -> None:
    """What docs/api.md tells to type, as it stands there but for the port."""
    section = (ROOT / "docs" / "api.md").read_text().partition("## Agents")[2]
    (commands,) = (
        block for block in re.findall(r"```bash\n(.*?)```", section, re.DOTALL) if "agent_tools.py" in block
    )
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands.replace("http://127.0.0.1:8081", stack.api_url)],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=stack.env | {"PATH": f"{Path(sys.executable).parent}:{stack.env['PATH']}"},
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 tasks for " in done.stdout and "Ledger: " in done.stdout


async def test_an_agent_makes_a_run_and_follows_it_to_its_end(
    postgres_url: str, valkey: ValkeyServer, tmp_path: Path
) -> None:
    import httpx2
    from mcp import StdioServerParameters
    from mcp.client.client import Client
    from mcp.client.stdio import stdio_client
    from mcp.client.streamable_http import streamable_http_client

    faults = ("--fail", "0.05", "--lose-response", "0.05", "--duplicate", "0.05")
    async with running_stack(tmp_path, postgres_url, valkey.url, "--time-scale", "200", *faults) as stack:
        stack.start("api")
        headers = {"Authorization": f"Bearer {await stack.token('operate')}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=60) as http,
            Client(streamable_http_client(f"{stack.api_url}/mcp", http_client=http)) as client,
        ):
            stack.run_id, report = await run_to_its_end(client)
        await stack.until_finished()
        await stack.assert_books_equal(COUNT)
        stack.assert_certified()
        own = StdioServerParameters(command=TALLYHOOK, args=["mcp"], env=stack.env, cwd=tmp_path)
        async with Client(stdio_client(own)) as client:
            same = await use(client, "run_report", run_id=stack.run_id)
            assert same["credits"] == report["credits"]
            tried = await use(client, "retry_failed", run_id=stack.run_id)
            assert (tried["dry_run"], tried["tasks"]) == (True, report["failed"])
            made = await use(
                client, "create_run", prompts=["one"], engine="GEMINI", country="US", max_credits=50
            )
            assert made["tasks"] == 1
        await asyncio.get_running_loop().run_in_executor(None, run_documented_commands, stack)
