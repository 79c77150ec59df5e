#!/usr/bin/env python3
"""What an agent does with Tallyhook's tools, without the agent: `pip install mcp`, then

    TALLYHOOK_TOKEN=thk_… TALLYHOOK_URL=http://127.0.0.1:8081 python agent_tools.py

It asks what some questions may cost, asks them for no more than that, waits for the end, and has one charge
explained.
"""

# ruff: noqa: T201 - it is a script, and says what it found

import asyncio
import os
import sys
import uuid

import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

QUESTIONS = [
    "Which CRM suits a small firm?",
    {"prompt": "Is a hardware wallet worth it?", "engine": "PERPLEXITY", "custom_id": "wallet"},
]
ASKED = {"prompts": QUESTIONS, "engine": "GEMINI", "country": "DE"}


async def use(client, tool, **arguments):
    """What a tool answers. What went wrong is told in words, with what to do about it."""
    result = await client.call_tool(tool, arguments)
    if result.is_error:
        raise SystemExit(result.content[0].text)
    return result.structured_content


async def ask(client):
    """From an estimate to an explanation."""
    estimate = await use(client, "estimate_run", **ASKED)
    print(f"{estimate['tasks']} tasks for {estimate['credits']} credits, covered: {estimate['is_covered']}")
    key = str(uuid.uuid4())
    made = await use(client, "create_run", **ASKED, max_credits=estimate["credits"], idempotency_key=key)
    run_id = made["run"]["id"]
    watched = {"is_finished": False, "is_halted": False}
    while not (watched["is_finished"] or watched["is_halted"]):
        watched = await use(client, "watch_run", run_id=run_id)
    print(f"{watched['run']['state']}: {watched['run']['counts']['completed']} completed")
    results = await use(client, "get_results", run_id=run_id)
    for task in results["data"]:
        answer = await use(client, "get_result", task_id=task["id"], max_chars=60)
        print(f"{task['engine']}: {answer['answer_text'] or task['state']}")
    explained = await use(client, "explain_charge", task_id=results["data"][0]["id"])
    print("\n".join(explained["summary"]))


async def main():
    """Connect with a token, and ask."""
    if (token := os.environ.get("TALLYHOOK_TOKEN")) is None:
        sys.exit("set TALLYHOOK_TOKEN: tallyhook token create makes one")
    headers = {"Authorization": f"Bearer {token}"}
    url = os.environ.get("TALLYHOOK_URL", "http://127.0.0.1:8081") + "/mcp"
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        await ask(client)


if __name__ == "__main__":
    asyncio.run(main())
