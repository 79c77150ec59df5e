"""One run of one side on one store: a file of prompts, the emulator without a rate limit, `web`, one worker.

Together: all at once and as fast as it goes, as in production. Apart: first everything is sent, and only then
does the provider finish anything, so that what a delivery costs stands by itself.
"""

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.bench import counted
from benchmarks.bench.counts import ask_postgresql, is_waiting, statements
from benchmarks.bench.rig import TALLYHOOK, Rig, module
from benchmarks.bench.settle import idle_memory_mb
from benchmarks.cost.checkout import Side
from benchmarks.cost.relations import Relations, relations
from benchmarks.cost.written import Written, watched
from benchmarks.processor import ended_children_cpu_s, family_cpu_s

RATE_PER_S = "10000"
"""The highest that may be set; nothing here comes near it."""
ENGINES = ("CHATGPT", "GEMINI", "PERPLEXITY", "GOOGLE", "COPILOT")
LOOK_EVERY_S = 0.1
TIMEOUT_S = 600.0
STANDS_STILL, RUNS, AT_ONCE = "0.001", "60", 1_000_000
"""Emulated seconds a second: no task finishes; in a second or so, as under load; all of them now."""


@dataclass(frozen=True, slots=True)
class Size:
    """What is run."""

    tasks: int
    answer_bytes: int | None = None
    """None: the emulator's own answers, 13.4 KB on average over the engines of the file."""
    apart: bool = False


@dataclass
class Cost:
    """What one run cost, in all."""

    size: Size
    seconds: float = 0.0
    cpu_s: dict[str, float] = field(default_factory=dict)
    """By process, ours and the emulator."""
    written_bytes: int = 0
    delivery_written_bytes: int = 0
    """Of intake and settlement; 0 where they did not stand apart."""
    redis_commands: int = 0
    sql_statements: int = 0
    relations: Relations = field(default_factory=dict)
    """What was added to the migrated, empty database."""
    statements: list[dict[str, Any]] = field(default_factory=list)
    """PostgreSQL's own account of the statements that wrote most."""


class _Run:
    """Processes and counters of a run."""

    def __init__(self, rig: Rig, side: Side, size: Size, url: str, stack: ExitStack) -> None:
        self._rig, self._side, self._size, self._url = rig, side, size, url
        self.written = stack.enter_context(watched(rig, url))
        self._emulator = stack.enter_context(self._started_emulator())
        self._env = side.env | {
            "TALLYHOOK_RATE_PER_S": RATE_PER_S,
            "CLORO_BASE_URL": f"http://127.0.0.1:{self._emulator.port}",
        }
        web = stack.enter_context(rig.process("web", self._command("web"), url, **self._env))
        self._env["PUBLIC_URL"] = f"http://127.0.0.1:{web.port}"
        worker = stack.enter_context(
            rig.process("worker", self._command("worker"), url, path=None, **self._env)
        )
        idle_memory_mb(worker)
        self._processes = {"web": web, "worker": worker}

    def _started_emulator(self) -> Any:
        """Ours for both sides: it is the provider, which no side can change."""
        options = {
            "--port": "{port}",
            "--time-scale": STANDS_STILL if self._size.apart else RUNS,
            "--rate-limit": "0",
            "--concurrency": str(max(self._size.tasks, 1_500) if self._size.apart else 1_500),
            "--credits": "1000000000",
            "--internal-retry": "0",
        }
        sized = self._size.answer_bytes
        command = (
            [TALLYHOOK, "emulator"]
            if sized is None
            else module("benchmarks.bench.sized_emulator", str(sized))
        )
        command += ["--json", *(part for option in options.items() for part in option)]
        return self._rig.process("emulator", command, self._url, path="/_emulator/books?tasks=0")

    def _command(self, name: str) -> list[str]:
        if self._rig.is_sqlite:
            # Ours for both sides, by its path: as a module it would be the side's own.
            return [sys.executable, "-P", counted.__file__, str(self._rig.folder / f"{name}.count"), name]
        return [TALLYHOOK, "web"] if name == "web" else module("workers")

    def submit(self, file: Path) -> float:
        """The command that stores the run; its processor time."""
        before_s = ended_children_cpu_s()
        tallyhook(self._rig, self._url, ["submit", str(file), "--json"], self._env)
        return ended_children_cpu_s() - before_s

    def cpu_s(self) -> dict[str, float]:
        """So far, by process."""
        pids = {name: process.popen.pid for name, process in self._processes.items()}
        pids |= {"redis": self._rig.valkey.pid, "emulator": self._emulator.popen.pid}
        if self._rig.postgres is not None:
            pids["database"] = self._rig.postgres.pid
        return {name: family_cpu_s(pid) for name, pid in pids.items()}

    def counters(self) -> tuple[int, int]:
        """Redis commands and SQL statements so far."""
        return self._rig.redis_commands(), statements(self._rig)

    def until_accepted(self) -> None:
        """Until the provider has every task."""
        self._until(lambda books: books["totals"]["tasks"] >= self._size.tasks)

    def let_finish(self) -> None:
        """Every task that the provider has is finished now."""
        body = json.dumps({"scale": AT_ONCE}).encode()
        with urllib.request.urlopen(self._at("/_emulator/clock"), body, timeout=30):
            pass

    def until_settled(self) -> None:
        """Until every task's delivery was acknowledged and is settled."""
        self._until(lambda books: books["totals"]["deliveries_acked"] >= self._size.tasks)
        deadline = time.monotonic() + TIMEOUT_S
        while is_waiting(self._rig, self._url):
            assert time.monotonic() < deadline, self._logs()
            time.sleep(LOOK_EVERY_S)

    def _until(self, reached: Callable[[dict[str, Any]], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            with urllib.request.urlopen(self._at("/_emulator/books?tasks=0"), timeout=60) as answer:
                books = json.load(answer)
            if reached(books):
                return
            assert time.monotonic() < deadline, f"{books}\n{self._logs()}"
            for process in self._processes.values():
                assert process.popen.poll() is None, self._logs()
            time.sleep(LOOK_EVERY_S)

    def _at(self, path: str) -> str:
        return f"http://127.0.0.1:{self._emulator.port}{path}"

    def _logs(self) -> str:
        return "\n".join(p.log.read_text()[p.log_from :][-2_000:] for p in self._processes.values())


def run(rig: Rig, side: Side, size: Size) -> Cost:
    """The cost of it. Raises AssertionError where not every task was completed."""
    cost = Cost(size)
    with rig.database() as url:
        tallyhook(rig, url, ["migrate"], side.env)
        empty = relations(rig, url)
        with ExitStack() as stack:
            _measure(rig, _Run(rig, side, size, url, stack), size, cost)
        cost.statements = _dearest(rig)
        _assert_completed(rig, url, size.tasks)
        cost.relations = {name: n - empty.get(name, 0) for name, n in relations(rig, url).items()}
    rig.valkey.flush()
    return cost


def _measure(rig: Rig, one: _Run, size: Size, cost: Cost) -> None:
    file = _prompts(rig.folder, size.tasks)
    rig.settle_disk()
    if rig.postgres is not None:
        rig.postgres.execute("SELECT pg_stat_statements_reset()")
    (redis, sql), cpu_s, written = one.counters(), one.cpu_s(), one.written.bytes_so_far()
    started = time.monotonic()
    submit_s = one.submit(file)
    apart = 0
    if size.apart:
        one.until_accepted()
        apart = _at_rest(one.written)
        one.let_finish()
    one.until_settled()
    cost.seconds = time.monotonic() - started
    after_s, (redis_after, sql_after) = one.cpu_s(), one.counters()
    cost.cpu_s = {"submit": submit_s} | {name: after_s[name] - before for name, before in cpu_s.items()}
    cost.redis_commands, cost.sql_statements = redis_after - redis, sql_after - sql
    total = one.written.bytes_so_far()
    cost.written_bytes = total - written
    cost.delivery_written_bytes = total - apart if size.apart else 0


def _at_rest(written: Written) -> int:
    """The position once nothing more is written: the last sends are recorded."""
    deadline, last = time.monotonic() + TIMEOUT_S, -1
    while (now := written.bytes_so_far()) - last > 20_000:
        assert time.monotonic() < deadline, "it does not come to rest"
        last = now
        time.sleep(0.5)
    return now


def _prompts(folder: Path, count: int) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("\n".join(_line(n) for n in range(count)) + "\n")
    return path


def _line(number: int) -> str:
    engine = ENGINES[number % len(ENGINES)]
    asked = "query" if engine == "GOOGLE" else "prompt"
    return json.dumps({asked: f"question {number}", "task_type": engine, "country": "US"})


def tallyhook(rig: Rig, url: str, arguments: Sequence[str], env: dict[str, str]) -> None:
    """One command of a side to its end."""
    done = subprocess.run(
        [TALLYHOOK, *arguments],
        check=False,
        env=rig.env(url, 0) | env,
        cwd=rig.folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, f"tallyhook {' '.join(arguments)}: {done.stdout}{done.stderr}"


COMPLETED = "SELECT count(*) FROM tasks WHERE state = 'completed'"
DEAREST = """
    SELECT coalesce(json_agg(s), '[]') FROM (
        SELECT regexp_replace(left(query, 160), '\\s+', ' ', 'g') AS query, calls, rows,
            wal_bytes::bigint AS written_bytes, total_exec_time AS ms
        FROM pg_stat_statements JOIN pg_roles ON oid = userid WHERE rolname <> 'looker'
        ORDER BY wal_bytes DESC LIMIT 14) s
"""


def _dearest(rig: Rig) -> list[dict[str, Any]]:
    if rig.postgres is None:
        return []
    found: list[dict[str, Any]] = json.loads(asyncio.run(ask_postgresql(rig.postgres.admin_url, DEAREST)))
    return found


def _assert_completed(rig: Rig, url: str, count: int) -> None:
    if rig.is_sqlite:
        import sqlite3

        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        completed = connection.execute(COMPLETED).fetchone()[0]
        connection.close()
    else:
        completed = asyncio.run(ask_postgresql(url, COMPLETED))
    assert completed == count, f"{completed} of {count} tasks are completed"
