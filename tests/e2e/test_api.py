"""The API in real processes: on its own, and beside the receiver in one port."""

import asyncio
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.e2e.stack import STOP, Stack, running_stack
from tests.servers.processes import free_port
from tests.servers.valkey import ValkeyServer

ROOT = Path(__file__).parents[2]


def ask(url: str, token: str) -> tuple[int, Any]:
    """Status and document."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def signed_in(url: str, token: str) -> urllib.request.OpenerDirector:
    """A browser's cookies, after the form of the page."""
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    with browser.open(f"{url}/sign-in", urlencode({"token": token}).encode(), timeout=60) as page:
        assert "Health" in page.read().decode()
    return browser


async def run_documented_commands(stack: Stack) -> None:
    """What is cancelled there must not have come to its end before, so nothing is sent until then."""
    stack.end("worker")
    cancelled = stack.folder / "cancelled"
    running = asyncio.create_task(asyncio.to_thread(type_documented_commands, stack, f"touch {cancelled}"))

    async def may_be_sent() -> bool:
        return cancelled.exists() or running.done()

    await stack.until(may_be_sent, "a cancelled run")
    stack.start("worker")
    await running


def type_documented_commands(stack: Stack, after_cancelling: str) -> None:
    """What docs/api.md tells to type about access and runs, as it stands there but for the port."""
    page = (ROOT / "docs" / "api.md").read_text()
    blocks = [page.partition(title)[2].partition("```bash\n")[2] for title in ("## Access", "## Runs")]
    commands = "".join(block.partition("```")[0] for block in blocks).replace("/tmp/", f"{stack.folder}/")
    commands = commands.replace("http://127.0.0.1:8081", stack.api_url)
    rest = "# The same from Python"
    assert rest in commands
    commands = commands.replace(rest, f"{after_cancelling}\n{rest}")
    path = f"{Path(sys.executable).parent}:{stack.env['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        check=False, capture_output=True, text=True, cwd=ROOT, env=stack.env | {"PATH": path}, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 tasks, about" in done.stdout, done.stdout
    assert "The token airflow" in done.stdout, done.stdout


def text_of(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as response:
        return str(response.read().decode())


async def assert_each_is_scraped(stack: Stack) -> None:
    """In a port of its own, though all have one setting; the worker has read the state of the whole."""
    found = {}
    for name in ("web", "api", "worker"):
        lines = (stack.folder / f"{name}.log").read_text().splitlines()
        (said,) = [line for line in lines if '"metrics_listening"' in line]
        found[name] = json.loads(said)["url"]
    assert len(set(found.values())) == 3

    async def shown(name: str, *lines: str) -> bool:
        text = text_of(found[name])
        return all(line in text for line in lines)

    assert await shown("web", 'tallyhook_deliveries_total{answer="200"} 5.0', 'process="web"')
    assert await shown("api", 'route="/v1/runs/{run_id}",status="200"} 1.0', 'process="api"')
    await stack.until(
        lambda: shown(
            "worker",
            'sends_total{account="default",answer="accepted"} 5.0',
            "tallyhook_last_delivery_seconds ",
        ),
        "the state of the whole",
    )
    for name, url in found.items():
        assert json.loads(text_of(url.replace("/metrics", "/readyz")))["ready"], name


async def test_the_api_tells_of_a_run_and_ends_in_order(
    postgres_url: str, valkey: ValkeyServer, tmp_path: Path
) -> None:
    env = {"TALLYHOOK_METRICS_PORT": str(free_port()), "TALLYHOOK_STATE_EVERY_S": "0.2"}
    async with running_stack(tmp_path, postgres_url, valkey.url, "--time-scale", "200", env=env) as stack:
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
        await assert_each_is_scraped(stack)
        await run_documented_commands(stack)
        stack.tallyhook("token", "revoke", "ci")

        async def refused() -> bool:
            return ask(f"{stack.api_url}/v1/runs", token)[0] == 401

        await stack.until(refused, "a revoked token that is refused", timeout_s=30)
        assert stack.end("api", ((signal.SIGTERM, 60.0),)) == 0
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
        browser = signed_in(stack.web_url, token)
        with browser.open(f"{stack.web_url}/runs/{stack.run_id}", timeout=60) as page:
            assert "5 of 5 tasks done" in page.read().decode()
        with browser.open(f"{stack.web_url}/live", timeout=60) as moving:
            assert moving.readline() == b"retry: 2000\n"
            assert stack.end("web", STOP) == 0  # though a page is open
