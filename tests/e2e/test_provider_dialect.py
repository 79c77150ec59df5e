"""The vendor's own clients, unmodified, with Tallyhook as their base URL and faults behind it: each task is
answered once to its caller, nothing is bought twice, and the books are equal."""

import asyncio
import hashlib
import hmac
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import cloro
import httpx

from app.api.dialects.provider.errors import PROVIDER, VALIDATION_MESSAGE
from app.domain.access import hash_of, webhook_secret
from tests.e2e.stack import KILL, Stack, running_stack
from tests.refusing import KIND_OF, RETRY_S, WAITING, refusing
from tests.servers.valkey import ValkeyServer

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
SINGLE, BATCHED = 24, 24
# 5 % of faults of each kind that a caller must not see.
FAULTS = (
    "--time-scale", "200", "--fail", "0.05", "--duplicate", "0.05", "--lose-response", "0.05",
    "--shuffle", "0.3",
)  # fmt: skip


class Hooks:
    """A receiver of the caller's: the bodies that it was given, of those that were signed."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.unsigned = 0
        self.secret = ""
        self.url = ""

    def take(self, headers: Any, body: bytes) -> None:
        message = headers["X-Cloro-Timestamp"].encode() + b"." + body
        expected = "v1=" + hmac.digest(self.secret.encode(), message, hashlib.sha256).hex()
        if expected == headers["X-Cloro-Signature"]:
            self.bodies.append(json.loads(body))
        else:
            self.unsigned += 1


@contextmanager
def listening_hooks() -> Iterator[Hooks]:
    hooks = Hooks()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hooks.take(self.headers, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hooks.url = f"http://127.0.0.1:{server.server_port}/hooks"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hooks
    finally:
        server.shutdown()
        server.server_close()


async def in_thread(work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(None, work)


def payload(n: int) -> dict[str, Any]:
    return {"prompt": f"question {n}", "country": "US", "include": {"markdown": True}}


def submit(sdk: cloro.Cloro, n: int, hooks: Hooks) -> None:
    """As a careful caller: again after any trouble, with the same key."""
    for _ in range(20):
        try:
            sdk.async_tasks.create("GEMINI", payload(n), idempotency_key=f"k-{n}", webhook={"url": hooks.url})
        except (cloro.APIConnectionError, cloro.APIStatusError) as error:
            if isinstance(error, cloro.ConflictError):
                return
        else:
            return
    raise AssertionError(f"task {n} was not taken")


async def test_the_sdk_loses_nothing_and_buys_nothing_twice(
    postgres_url: str, valkey: ValkeyServer, tmp_path: Path
) -> None:
    env = {"TALLYHOOK_RELAY_PRIVATE_NETWORKS": "127.0.0.0/8", "TALLYHOOK_RELAY_EVERY_S": "0.2"}
    with listening_hooks() as hooks:
        async with running_stack(tmp_path, postgres_url, valkey.url, *FAULTS, env=env) as stack:
            token = await stack.token("submit", "default")
            hooks.secret = webhook_secret(hash_of(token))
            stack.start("api")
            sdk = cloro.Cloro(api_key=token, base_url=stack.api_url)
            # Nothing is sent while the worker is away: what the API acknowledged, it has stored.
            stack.end("worker", KILL)
            await in_thread(lambda: [submit(sdk, n, hooks) for n in range(SINGLE // 2)])
            assert stack.end("api", KILL) == -9
            beside = asyncio.create_task(
                in_thread(lambda: [submit(sdk, n, hooks) for n in range(SINGLE // 4, SINGLE)])
            )
            stack.start("api", "worker")
            await beside
            items = [
                {"task_type": "GEMINI", "payload": payload(n), "idempotency_key": f"k-{n}"}
                for n in range(SINGLE, SINGLE + BATCHED)
            ]
            for expected in (True, False):
                results = await in_thread(lambda: sdk.async_tasks.create_batch(items))
                assert {result["success"] for result in results} == {expected}
            await stand_still(stack)
            shown = await in_thread(
                lambda: [sdk.async_tasks.retrieve(f"k-{n}") for n in range(SINGLE + BATCHED)]
            )
            await asks_beside(stack, token)
            await stack.until_finished()

            async def pushed() -> bool:
                return len({body["task"]["id"] for body in hooks.bodies}) == SINGLE

            await stack.until(pushed, "a message about each task")
            await stack.assert_books_equal(SINGLE + BATCHED + 2)
            sdk.close()
            await in_thread(lambda: run_documented_commands(stack))
            verified = stack.tallyhook("verify", "--all", "--json")
            assert verified.returncode == 0, verified.stdout + verified.stderr
    states = Counter(task["task"]["status"] for task in shown)
    assert set(states) == {"COMPLETED", "FAILED"}
    assert all(("error" in task["response"]) == (task["task"]["status"] == "FAILED") for task in shown)
    assert hooks.unsigned == 0
    by_key = {task["task"]["idempotencyKey"]: task for task in shown}
    assert all(body == by_key[body["task"]["idempotencyKey"]] for body in hooks.bodies)


async def stand_still(stack: Stack) -> None:
    """Wait until the only run is over but for its day."""
    (run,) = await stack.store.queries.list_runs()
    stack.run_id = run.id
    await stack.until_finished()


async def asks_beside(stack: Stack, token: str) -> None:
    """The LangChain tools, and a monitor call of the SDK; both wait for tasks of the same run."""
    import langchain_cloro  # or each process of a test run takes a second for it

    def ask() -> dict[str, Any]:
        tool = langchain_cloro.CloroGemini(cloro_api_key=token)
        # It has no option for the host.
        tool.client.base_url = httpx.URL(stack.api_url)
        with tool.client:
            by_tool = tool.invoke({"prompt": "shoes", "country": "US"})
        with cloro.Cloro(api_key=token, base_url=stack.api_url) as sdk:
            answer = sdk.monitor.google("shoes", "US")
            assert (len(sdk.countries()), sdk.async_tasks.status()["queuedTasks"]) == (250, 0)
        return {"tool": json.loads(by_tool), "sdk": answer}

    stack.change_faults({"fail": 0.0})
    answers = await in_thread(ask)
    assert answers["tool"]["success"] is True, answers
    assert answers["sdk"]["result"]["organicResults"]


def run_documented_commands(stack: Stack) -> None:
    """What docs/api.md tells to type, as it stands there but for the port."""
    section = (ROOT / "docs" / "api.md").read_text().partition("## The provider's dialect")[2]
    commands = section.partition("```bash\n")[2].partition("```")[0]
    assert "provider_sdk.py" in commands
    commands = commands.replace("http://127.0.0.1:8081", stack.api_url)
    path = f"{Path(sys.executable).parent}:{stack.env['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        check=False, capture_output=True, text=True, cwd=ROOT, env=stack.env | {"PATH": path}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": COMPLETED, ") == 3, done.stdout


async def test_the_vendor_s_client_takes_each_refusal_for_what_it_is() -> None:
    named = {400: "BadRequest", 401: "Authentication", 403: "PermissionDenied", 404: "NotFound"}
    named |= {409: "Conflict", 422: "BadRequest", 429: "RateLimit"}

    def asked(client: cloro.Cloro, code: str) -> tuple[cloro.APIStatusError, float]:
        begun_s = time.monotonic()
        try:
            client.async_tasks.retrieve(code)
        except cloro.APIStatusError as error:
            return error, time.monotonic() - begun_s
        raise AssertionError(code)

    async with refusing(PROVIDER) as server:
        with cloro.Cloro(base_url=server.url, api_key="thk_x", max_retries=1) as client:
            found = await asyncio.gather(*(asyncio.to_thread(asked, client, code) for code in KIND_OF))
    said = {"invalid": VALIDATION_MESSAGE, "internal": "Internal server error"}
    for (code, kind), (error, took_s) in zip(KIND_OF.items(), found, strict=True):
        usual = "InternalServer" if kind.status >= 500 else "APIStatus"
        assert type(error).__name__ == f"{named.get(kind.status, usual)}Error", code
        assert error.message == said.get(code, f"what to do about {code}")
        assert server.asked[code] == (2 if kind.status in (429, 500, 503, 504) else 1), code
        assert kind.status not in WAITING or took_s >= RETRY_S, "as Retry-After says"
