"""Upgrade without downtime: processes of the version before and of this one side by side on one database,
through `migrate` and `migrate --finish`, under load. Nothing is lost, doubled or unexplained, the receiver
answers all the while, and what is bought at an API of either version is posted to where its results go."""

import asyncio
import contextlib
import json
import subprocess
import time
import urllib.request
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.provider.wire import read_answer
from app.store import Database, Store
from tests.conftest import StartValkey
from tests.deploy.version_before import commit_before, installed
from tests.e2e.stack import TALLYHOOK, Stack
from tests.integration.relay.receiver import Receiver, receiving
from tests.servers.postgres import PostgresServer
from tests.servers.processes import free_port

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(600)]
EACH = 60
EMULATOR = [
    *("--time-scale", "60", "--concurrency", "40", "--fail", "0.03", "--duplicate", "0.03", "--drop", "0.02"),
    *("--lose-response", "0.02", "--plan", "enterprise-5k"),
]
GAP_S_MAX = 2.0
"""In which nobody answered on the receiver's port; what is reset meanwhile the provider tries again."""


class TwoVersions(Stack):
    """`web1`, `api1`, `worker1` are the version before, `web2` and so on this one; a port for both `web`."""

    before: list[str]
    runs: list[str]
    pushed: list[str]
    """Of the runs those that came by an API, and have their results posted."""
    bearer = ""

    def _may_fork(self, name: str) -> bool:
        """A fork would be of this version."""
        return False

    def command(self, name: str) -> list[str]:
        if name == "emulator":
            return super().command(name)
        start = self.before if name.endswith("1") else [TALLYHOOK]
        return [*start, name[:-1]]

    def run_as(self, start: list[str], *arguments: str) -> str:
        """What a command of either version prints; it must end with 0."""
        done = subprocess.run(
            [*start, *arguments], env=self.env, cwd=self.folder, check=False, capture_output=True, text=True,
            timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, (arguments, done.stdout, done.stderr, self.logs())
        return done.stdout

    def buy(self, start: list[str]) -> None:
        """A run of EACH prompts, by a version's own command."""
        record = {"task_type": "CHATGPT", "country": "US"}
        prompts = [f"question {len(self.runs)}.{n}" for n in range(EACH)]
        lines = [json.dumps({"prompt": prompt, **record}) for prompt in prompts]
        file = self.folder / f"prompts{len(self.runs)}.jsonl"
        file.write_text("\n".join(lines) + "\n")
        document: dict[str, Any] = json.loads(
            self.run_as(start, "submit", str(file), "--json").splitlines()[-1]
        )
        self.runs.append(document.get("run_id") or document["run"]["id"])

    def make_token(self) -> None:
        """By the version before: it must do for both."""
        words = ("token", "create", "shop", "--scope", "submit", "--json")
        self.bearer = json.loads(self.run_as(self.before, *words))["token"]

    def buy_at(self, name: str, push_to: str) -> None:
        """A run of EACH prompts by the API of a version; asked again of the other one, it is the same run."""
        body = {
            "name": f"by-{name}-{len(self.runs)}",
            "prompts": [f"asked of {name} {len(self.runs)}.{n}" for n in range(EACH)],
            "task_type": "CHATGPT",
            "country": "US",
            "webhook_url": push_to,
        }
        answers = {
            self._post(api, f"order-{len(self.runs)}", body) for api in (name, *self._other_apis(name))
        }
        assert len(answers) == 1, "bought twice"
        self.runs += answers
        self.pushed += answers

    def _other_apis(self, name: str) -> list[str]:
        return [one for one in self.pids() if one.startswith("api") and one != name]

    def _post(self, name: str, key: str, body: dict[str, Any]) -> str:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._ports[name]}/v1/runs",
            json.dumps(body).encode(),
            {
                "Authorization": f"Bearer {self.bearer}",
                "Idempotency-Key": key,
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            document: dict[str, Any] = json.load(answer)
        return str(document["id"])


class Watch:
    """Whether somebody answers on a port, asked all the time; and for how long nobody did."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.gaps_s: list[tuple[float, str]] = []
        self._last_s = time.monotonic()

    async def __call__(self) -> None:
        self._last_s = time.monotonic()
        while True:
            try:
                async with asyncio.timeout(1):
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                    # Also when it answers too late: nobody else closes it.
                    with contextlib.closing(writer):
                        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                        is_up = (await reader.read()).startswith(b"HTTP/1.1 200")
            except (OSError, TimeoutError):
                is_up = False
            now_s = time.monotonic()
            if is_up:
                self.gaps_s.append((round(now_s - self._last_s, 3), time.strftime("%H:%M:%S")))
                self._last_s = now_s
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("migration", ["", "0013"], ids=["the-newest-migration", "before-partitions"])
async def test_two_versions_work_side_by_side_through_an_upgrade(
    migration: str, tmp_path: Path, postgres: PostgresServer, start_valkey: StartValkey
) -> None:
    """From the version before the newest migration, and from one before tables were partitioned and moved."""
    before = installed(commit_before(migration), tmp_path / "before")
    url = postgres.create_database()
    store = Store(Database(url), read_answer)
    stack = TwoVersions(tmp_path, store, url, start_valkey().url)
    stack.before, stack.runs, stack.pushed, stack.emulator_options = before, [], [], EMULATOR
    port = stack._ports["web"]
    stack._ports |= {"web1": port, "web2": port, "api1": free_port(), "api2": free_port()}
    for name in ("api1", "api2"):
        stack.env_of[name] = {"TALLYHOOK_API_PORT": str(stack._ports[name])}
    stack.env |= {"TALLYHOOK_SHARE_PORT": "true", "PUBLIC_URL": f"http://127.0.0.1:{port}"}
    watch = Watch(port)
    try:
        async with receiving() as receiver:
            # The version before partitions had no API.
            await _upgrade(stack, watch, "" if migration else receiver.url)
            assert max(watch.gaps_s)[0] < GAP_S_MAX, (sorted(watch.gaps_s)[-5:], stack.logs())
            await _books_equal(stack)
            await _all_came(stack, receiver)
    finally:
        stack.close()
        await store.close()
        postgres.drop_database(url)


async def _upgrade(stack: TwoVersions, watch: Watch, push_to: str) -> None:
    """`push_to`: where results of runs go that are bought at an API; "": at none is bought."""
    old, new = stack.before, [TALLYHOOK]

    async def do(work: Callable[..., Any], *arguments: Any) -> None:
        await asyncio.to_thread(work, *arguments)

    async def do_by_api(work: Callable[..., Any], *arguments: Any) -> None:
        if push_to:
            await do(work, *arguments)

    await do(stack.run_as, old, "migrate")
    await do(stack.start, "emulator", "web1", "worker1")
    await do_by_api(stack.start, "api1")
    await do_by_api(stack.make_token)
    watching = asyncio.create_task(watch())
    try:
        await do(stack.buy, old)
        await do(stack.buy, old)
        await do_by_api(stack.buy_at, "api1", push_to)
        await _until_charged(stack, EACH // 2)
        await do(stack.run_as, new, "migrate")
        await do(stack.buy, old)  # the version before goes on, on the new schema
        await do_by_api(stack.buy_at, "api1", push_to)
        await _until_charged(stack, EACH)
        await do(stack.start, "web2", "worker2")
        await stack.until(_listens(stack, "web2"), "the new receiver")
        await do_by_api(stack.start, "api2")
        await do(stack.buy, new)
        await do(stack.buy, old)
        await do_by_api(stack.buy_at, "api2", push_to)
        await do_by_api(stack.buy_at, "api1", push_to)
        await do(stack.end, "worker1")
        await do(stack.buy, new)
        await _back_and_forth(stack)
        await do_by_api(stack.buy_at, "api1", push_to)  # whose results only the new one posts
        await do_by_api(stack.end, "api1")
        await do(stack.end, "web1")
        await do(stack.run_as, new, "migrate", "--finish")
        await do(stack.buy, new)
        for run_id in stack.runs:
            stack.run_id = run_id
            await stack.until_finished()
    finally:
        watching.cancel()


async def _back_and_forth(stack: TwoVersions) -> None:
    """The worker of the version before takes up what the new one leaves, without a migration; and again."""
    for name, other in (("worker1", "worker2"), ("worker2", "worker1")):
        starts = _starts(stack, name)
        await asyncio.to_thread(stack.end, other)
        await asyncio.to_thread(stack.start, name)

        async def started(name: str = name, starts: int = starts) -> bool:
            return _starts(stack, name) > starts

        await stack.until(started, f"the start of {name}")
        await asyncio.to_thread(stack.buy, stack.before)
        await _until_charged(stack, (len(stack.runs) - 1) * EACH)


def _starts(stack: Stack, name: str) -> int:
    return (stack.folder / f"{name}.log").read_text().count("worker_started")


def _listens(stack: TwoVersions, name: str) -> Any:
    """Of a receiver whose port another one answers on."""

    async def does() -> bool:
        return "istening" in (stack.folder / f"{name}.log").read_text()

    return does


async def _until_charged(stack: TwoVersions, tasks: int) -> None:
    """Wait until the provider has charged so many: deliveries come in."""

    async def reached() -> bool:
        books = await asyncio.to_thread(stack.books)
        return sum(1 for row in books["tasks"] if row["creditsCharged"] is not None) >= tasks

    await stack.until(reached, f"{tasks} charged tasks")


async def _books_equal(stack: TwoVersions) -> None:
    books = stack.books()
    theirs = {row["idempotencyKey"]: Decimal(row["creditsCharged"]) for row in books["tasks"]}
    ours: dict[str, Decimal] = {}
    for run_id in stack.runs:
        ours |= await stack.store.reports.charges(run_id)
    assert len(theirs) == len(books["tasks"]) == len(stack.runs) * EACH, "lost or doubled"
    assert ours == theirs
    stack.run_as([TALLYHOOK], "verify", "--all", "--json")
    for run_id in stack.runs:
        stack.run_as([TALLYHOOK], "certificate", run_id, "--json")


async def _all_came(stack: TwoVersions, receiver: Receiver) -> None:
    """Each result of what an API sold was posted, and what came again came under the same id."""
    wanted = len(stack.pushed) * EACH

    def came() -> set[tuple[str, str, str]]:
        every = zip(receiver.ids(), receiver.documents(), strict=True)
        return {
            (one["data"]["run"]["id"], one["data"]["task"], message)
            for message, one in every
            if one["type"].startswith("task.")
        }

    async def all_came() -> bool:
        return len(came()) >= wanted

    await stack.until(all_came, f"{wanted} posted results")
    assert len({(run, task) for run, task, _ in came()}) == len(came()) == wanted
    assert {run for run, _, _ in came()} == set(stack.pushed)
