"""The whole of Tallyhook in real processes that a test may kill, stop and start again on the same ports."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.config import EMULATOR_KEY, EMULATOR_WEBHOOK_SECRET
from app.domain.pricing import estimate
from app.domain.relay.message import NewEndpoint
from app.domain.task import OPEN_STATES, TaskSpec
from app.provider.wire import read_answer
from app.services.access import create_token
from app.store import Database, Store
from app.store.tables import tasks
from tests.e2e.forking import Forked, Forks, start
from tests.servers.processes import ServerError, answers, end, free_port, log_tail, wait_for

START_TIMEOUT_S = 60.0
STOP = ((signal.SIGTERM, 30.0), (signal.SIGKILL, 5.0))
KILL = ((signal.SIGKILL, 5.0),)
TALLYHOOK = str(Path(sys.executable).parent / "tallyhook")

# Everything that waits is short, so that a minute of production passes in a second.
QUICK = {
    "TALLYHOOK_CLAIM_LEASE_S": "3",
    "TALLYHOOK_SUBMIT_LEASE_S": "2",
    "TALLYHOOK_SWEEP_LEASE_S": "3",
    "TALLYHOOK_SWEEP_EVERY_S": "0.5",
    "TALLYHOOK_SWEEP_AFTER_S": "2",
    "TALLYHOOK_POLL_AFTER_S": "8",
    "TALLYHOOK_POLL_EVERY_S": "1",
    "TALLYHOOK_UNMATCHED_S": "5",
    "TALLYHOOK_RELAY_LEASE_S": "2",
    "TALLYHOOK_RELAY_EVERY_S": "0.2",
    "TALLYHOOK_RELAY_PRIVATE_NETWORKS": "127.0.0.1",
    "TALLYHOOK_LOG_FORMAT": "json",
}


class Stack:
    """emulator, web and worker on one store and one Valkey; each can be ended and started again."""

    def __init__(self, folder: Path, store: Store, store_url: str, redis_url: str) -> None:
        self.folder = folder
        self.store = store
        self._ports = {"emulator": free_port(), "web": free_port(), "api": free_port()}
        self._processes: dict[str, subprocess.Popen[bytes] | Forked] = {}
        self.emulator_options: list[str] = []
        self.seed = 7
        self.run_id = ""
        self.follow_to = ""
        self.is_forked = False
        """Whether processes begin as forks of one that has imported everything."""
        self.with_api = False
        """Whether `web` answers the API too."""
        self.env_of: dict[str, dict[str, str]] = {}
        """Beside `env`, by process."""
        self.log_to: dict[str, int] = {}
        """Descriptors that take a process's log instead of its file."""
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("TALLYHOOK_", "CLORO_"))},
            **QUICK,
            "DATABASE_URL": store_url,
            "REDIS_URL": redis_url,
            "PORT": str(self._ports["web"]),
            "CLORO_API_KEY": EMULATOR_KEY,
            "CLORO_BASE_URL": f"http://127.0.0.1:{self._ports['emulator']}",
            "CLORO_WEBHOOK_SECRET": EMULATOR_WEBHOOK_SECRET,
        }

    def pids(self) -> dict[str, int]:
        """Process ids by name, of those that run."""
        return {name: process.pid for name, process in self._processes.items()}

    def command(self, name: str) -> list[str]:
        """How each process is started; `worker2` is another worker, a follower adds to `follow_to`."""
        options = [
            "--port",
            str(self._ports["emulator"]),
            "--seed",
            str(self.seed),
            "--json",
            *self.emulator_options,
        ]
        return {
            "emulator": [TALLYHOOK, "emulator", *options],
            "web": [TALLYHOOK, "web", *(["--with-api"] if self.with_api else [])],
            "api": [TALLYHOOK, "api", "--port", str(self._ports["api"])],
            "worker": [sys.executable, "-m", "workers"],
            "follower": [TALLYHOOK, "export", "--follow", self.follow_to, "--every", "1s"],
        }[name.rstrip("0123456789")]

    def start(self, *names: str) -> None:
        """Start processes and wait until those with a port answer."""
        for name in names:
            self._processes[name] = self._fork(name) if self._may_fork(name) else self._run(name)
        for name in names:
            if name in self._ports:
                path = {"emulator": "/_emulator/books?tasks=0"}.get(name, "/healthz")
                url = f"http://127.0.0.1:{self._ports[name]}{path}"
                process, log_path = self._processes[name], self.folder / f"{name}.log"
                wait_for(lambda url=url: answers(url), process, log_path, START_TIMEOUT_S)  # type: ignore[misc]

    def _may_fork(self, name: str) -> bool:
        """What is imported in another way, or logs elsewhere, needs an interpreter of its own."""
        path = self._env(name).get("PYTHONPATH")
        return self.is_forked and name not in self.log_to and path == os.environ.get("PYTHONPATH")

    def _env(self, name: str) -> dict[str, str]:
        return self.env | self.env_of.get(name, {})

    def _fork(self, name: str) -> Forked:
        command = self.command(name)
        module, arguments = ("workers", command[3:]) if command[1] == "-m" else ("app.cli.main", command[1:])
        log = self.folder / f"{name}.log"
        return start(module, arguments, log=log, env=self._env(name), here=self.folder)

    def _run(self, name: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as file:
            log = self.log_to.get(name, file)
            return subprocess.Popen(
                self.command(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env(name),
                cwd=self.folder,
                start_new_session=True,
            )

    def end(self, name: str, how: tuple[tuple[int, float], ...] = STOP) -> int:
        """End a process by its id; its exit code."""
        process = self._processes.pop(name)
        end(process, how)
        assert process.returncode is not None
        return process.returncode

    async def until_workers_started(self, times: int) -> None:
        """Wait until `worker` began for the so-manieth time; before that it knows no orderly end."""
        log = self.folder / "worker.log"

        async def started() -> bool:
            return log.read_text().count('"worker_started"') >= times

        await self.until(started, "the worker's start", timeout_s=START_TIMEOUT_S)

    def close(self) -> None:
        """End whatever still runs."""
        for name in list(self._processes):
            self.end(name, KILL)

    async def submit(
        self,
        count: int,
        *,
        begin: bool = True,
        batch_size: int | None = None,
        push_to: NewEndpoint | None = None,
    ) -> None:
        """Store a run of `count` prompts; the worker's sweep finds it once it may begin."""
        now = time.time_ns() // 1_000_000
        self.run_id = await self.store.runs.create_run(
            name="crash", source="test", budget=None, now_ms=now, batch_size=batch_size, push_to=push_to
        )
        await self.add(1, count + 1)
        if begin:
            await self.begin()

    async def add(self, first: int, end: int) -> None:
        """Store the prompts numbered from `first` to before `end`."""
        types = ["CHATGPT", "GEMINI", "PERPLEXITY", "GOOGLE", "COPILOT"]
        specs = []
        for n in range(first, end):
            task_type = types[n % len(types)]
            field = "query" if task_type == "GOOGLE" else "prompt"
            payload: dict[str, object] = {field: f"question {n}", "country": "US"}
            specs.append((TaskSpec(n, task_type, payload), estimate(task_type, payload, "2026-11-21")))
        await self.store.runs.add_tasks(self.run_id, specs, time.time_ns() // 1_000_000)

    async def begin(self) -> None:
        """Let the run be sent."""
        await self.store.runs.start_run_if_loading(self.run_id, sha256="0", bad_lines=0)

    async def until(
        self, condition: Callable[[], Awaitable[bool]], what: str, timeout_s: float = 180.0
    ) -> None:
        """Wait for a condition; the failure says what was waited for and ends with every log's tail."""
        deadline = time.monotonic() + timeout_s
        while not await condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"seed {self.seed}: {what} not within {timeout_s:g} s\n{self.logs()}")
            await asyncio.sleep(0.1)

    async def until_settled(self, at_least: int) -> None:
        """Wait until so many tasks are settled: the middle of a run."""

        async def reached() -> bool:
            states = (await self.store.queries.progress(self.run_id)).states
            return states.get("completed", 0) + states.get("failed", 0) >= at_least

        await self.until(reached, f"{at_least} settled tasks")

    async def until_finished(self) -> None:
        """Wait until no task is open, the emulator has nothing more to deliver and the inbox is empty."""

        async def finished() -> bool:
            if (
                await self.store.queries.progress(self.run_id)
            ).open or await self.store.queries.waiting_count():
                return False
            books = self.books(tasks=False)
            return not books["active_tasks"] and not books["pending_deliveries"]

        try:
            await self.until(finished, "a finished run")
        except AssertionError as error:
            raise AssertionError(f"open: {await self._open_tasks()}\n{error}") from error

    async def _open_tasks(self) -> list[dict[str, Any]]:
        c = tasks.c
        query = (
            sa.select(c.ordinal, c.state, c.money, c.sends, c.provider_task_id, c.next_poll_at_ms, c.polls)
            .where(c.run_id == self.run_id, c.state.in_(OPEN_STATES))
            .limit(10)
        )

        async def work(connection: AsyncConnection) -> list[dict[str, Any]]:
            return [dict(row) for row in (await connection.execute(query)).mappings()]

        return await self.store.db.read(work)

    @property
    def api_url(self) -> str:
        """Of the API, once it was started by `start("api")`."""
        return f"http://127.0.0.1:{self._ports['api']}"

    @property
    def web_url(self) -> str:
        """Of the receiver."""
        return f"http://127.0.0.1:{self._ports['web']}"

    async def token(self, scope: str = "operate", account: str | None = None) -> str:
        """A new token of the API."""
        name = f"{scope}-{time.monotonic_ns()}"
        made = await create_token(self.store, name, scope, account, now_ms=time.time_ns() // 1_000_000)
        assert made is not None
        return made[1]

    def books(self, *, tasks: bool = True) -> dict[str, Any]:
        """What the emulator says it did."""
        body: dict[str, Any] = self._ask(f"/_emulator/books?tasks={int(tasks)}")
        return body

    def seconds(self) -> list[list[int]]:
        """Requests that the emulator counted in each past second: the Unix second and how many."""
        body: list[list[int]] = self._ask("/_emulator/seconds")
        return body

    def _ask(self, path: str) -> Any:
        # A million lines of books take a while.
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self._ports['emulator']}{path}", timeout=120
        ) as response:
            return json.load(response)

    def change_faults(self, rates: dict[str, float]) -> None:
        """Set some of the emulator's rates of faults, from now on."""
        self.control("faults", rates)

    def control(self, what: str, body: Mapping[str, float]) -> None:
        """Steer the emulator: `faults`, `clock`."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._ports['emulator']}/_emulator/{what}", json.dumps(body).encode()
        )
        with urllib.request.urlopen(request, timeout=60):
            pass

    def tallyhook(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command to its end, on the processes' own settings."""
        if self._may_fork(""):
            ran = Forks(self.folder).run(*arguments, env=self.env)
            return subprocess.CompletedProcess(arguments, ran.code, ran.out.decode(), ran.err)
        return subprocess.run(
            [TALLYHOOK, *arguments],
            check=False,
            capture_output=True,
            text=True,
            env=self.env,
            cwd=self.folder,
            timeout=120,
        )

    def assert_certified(self) -> None:
        """`verify` and `certificate` agree that all is well."""
        for arguments in (("verify", "--all", "--json"), ("certificate", self.run_id, "--json")):
            done = self.tallyhook(*arguments)
            assert done.returncode == 0, f"seed {self.seed}: {arguments}: {done.stdout}{done.stderr}"

    async def assert_books_equal(self, count: int) -> None:
        """Every task settled once, and each key's charge is what the emulator took for it."""
        books = self.books()
        run = (await self.store.queries.find_runs(self.run_id))[0]
        report = await self.store.reports.report(run)
        charged = await self.store.reports.charges(self.run_id)
        theirs = {row["idempotencyKey"]: Decimal(row["creditsCharged"]) for row in books["tasks"]}
        assert report.progress.tasks == count
        assert len(books["tasks"]) == count, (
            f"{len(books['tasks'])} tasks of the provider for {count} prompts: {report.progress.states}"
        )
        assert charged == theirs
        assert report.posted == books["charged"] == report.progress.charged
        assert report.held == 0
        assert sum(report.progress.states.get(s, 0) for s in ("completed", "failed")) == count, self.logs()

    def logs(self) -> str:
        """The end of each process's log."""
        return "\n".join(f"--- {p.stem}\n{log_tail(p)}" for p in sorted(self.folder.glob("*.log")))


@contextmanager
def running_emulator(log_path: Path, *options: str) -> Iterator[str]:
    """URL of an emulator in a process of its own, in which an hour passes in two seconds."""
    command = [TALLYHOOK, "emulator", "--port", "0", "--time-scale", "2000", "--json", *options]
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.kill()
            process.communicate()


@asynccontextmanager
async def running_stack(
    folder: Path,
    store_url: str,
    redis_url: str,
    *emulator_options: str,
    env: Mapping[str, str] | None = None,
    is_forked: bool = True,
) -> AsyncIterator[Stack]:
    """A stack with its three processes running. `env`: further variables of theirs."""
    store = Store(Database(store_url), read_answer)
    stack = Stack(folder, store, store_url, redis_url)
    stack.is_forked = is_forked
    stack.env |= env or {}
    stack.emulator_options = list(emulator_options)
    try:
        stack.start("emulator", "web", "worker")
        yield stack
    except ServerError as error:
        raise AssertionError(stack.logs()) from error
    finally:
        stack.close()
        await store.close()
