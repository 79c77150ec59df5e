"""The API in real processes: on its own, and beside the receiver in one port."""

import json
import signal
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.e2e.stack import STOP, running_stack
from tests.servers.valkey import ValkeyServer


def ask(url: str, token: str) -> tuple[int, Any]:
    """Status and document."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


async def test_the_api_tells_of_a_run_and_ends_in_order(
    postgres_url: str, valkey: ValkeyServer, tmp_path: Path
) -> None:
    async with running_stack(tmp_path, postgres_url, valkey.url, "--time-scale", "200") as stack:
        made = stack.tallyhook("token", "create", "ci", "--scope", "read", "--json")
        token = json.loads(made.stdout)["token"]
        stack.start("api")
        await stack.submit(5)
        await stack.until_finished()
        status, run = ask(f"{stack.api_url}/v1/runs/{stack.run_id}", token)
        assert (status, run["counts"]["total"]) == (200, 5)
        assert run["counts"]["completed"] + run["counts"]["failed"] == 5
        assert run["credits"]["held"] == "0"
        assert ask(f"{stack.api_url}/v1/runs", "thk_none")[0] == 401
        stack.tallyhook("token", "revoke", "ci")

        async def refused() -> bool:
            return ask(f"{stack.api_url}/v1/runs", token)[0] == 401

        await stack.until(refused, "a revoked token that is refused", timeout_s=10)
        assert stack.end("api", ((signal.SIGTERM, 15.0),)) == 0
        # The same in the receiver's port, which takes deliveries as before.
        stack.end("web", STOP)
        stack.with_api = True
        stack.start("web")
        token = await stack.token("read")
        await stack.submit(5)
        await stack.until_finished()
        status, run = ask(f"{stack.web_url}/v1/runs/{stack.run_id}", token)
        assert (status, run["counts"]["total"]) == (200, 5)
        assert ask(f"{stack.web_url}/v1/nothing", token)[0] == 404
        assert stack.end("web", STOP) == 0
