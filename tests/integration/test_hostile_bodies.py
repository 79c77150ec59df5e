"""Whatever a signed body says, the books stay one: settlement, verify, certificate and every other command
agree on each figure, and none fails. Bodies go through the real door, under true signatures.
"""

import asyncio
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

from app.cli.main import run
from app.domain.send_outcome import Answer
from app.domain.task import TaskSpec, idempotency_key
from app.limits import to_ms
from app.provider.signature import sign
from app.provider.wire import read_answer, read_report
from app.services.submit import submit
from app.services.sweep import sweep
from app.store import Database, Store
from app.web.server import create_app
from tests.books import check_books, read_books
from tests.clock import SteppedClock
from tests.database import delete_all_rows
from tests.integration.hostile_bodies import TASKS, Body, bodies
from tests.integration.services.pipeline import ESTIMATE, HOUR_MS, LIMITS, UNMATCHED_MS, Pipeline
from tests.integration.web.receiving import LIMITS as WEB_LIMITS
from tests.integration.web.receiving import PATH, SECRET, WakeDouble
from tests.scripted_provider import LOSE, ScriptedProvider

EU_SECRET = "whsec_test_of_the_other_account"
SECRETS = {"default": SECRET, "eu": EU_SECRET}
EXAMPLES, EXAMPLES_LONG = 1, 60
BODIES = 40, 80
"""Of one example, from and to."""
RUNS = (("default", 5), ("default", 1), ("eu", 2))
RETENTION_MS = to_ms(LIMITS.retention_s)


@dataclass
class Scene:
    """Runs of two accounts: tasks whose answer was lost, that were refused, that are out, and never sent."""

    store: Store
    clock: SteppedClock
    provider: ScriptedProvider = field(default_factory=ScriptedProvider)
    ids: list[str] = field(default_factory=list)
    accounts: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)
    current: dict[str, int] = field(default_factory=dict)

    async def play(self, everything: Sequence[Body]) -> None:
        """All of it, in thirds: while tasks are out, after a retry, after the provider has forgotten them."""
        await self.prepare()
        third = len(everything) // 3
        await self.post(everything[:third])
        self.provider.finish(idempotency_key(self.ids[3], 1))
        await self.look()
        await self.store.retries.retry_tasks_if_closed(self.ids, self.clock())
        await self.submit()
        await self.post(everything[third : 2 * third])
        self.provider.unknown = True
        self.clock.advance(RETENTION_MS)
        await self.look()
        await self.post(everything[2 * third :])
        await self.look()
        check_books(await read_books(self.store))

    async def prepare(self) -> None:
        for account, tasks in RUNS:
            run_id = await self.store.runs.create_run(
                name=f"r{len(self.runs)}", source="-", budget=None, now_ms=self.clock(), account=account
            )
            specs = [
                (
                    TaskSpec(n, "AIMODE" if n == 4 else "CHATGPT", {"prompt": f"p{n}", "country": "DE"}),
                    ESTIMATE,
                )
                for n in range(1, tasks + 1)
            ]
            self.ids += await self.store.runs.add_tasks(run_id, specs, self.clock())
            await self.store.runs.start_run_if_loading(run_id, sha256="", bad_lines=0)
            self.runs.append(run_id)
            self.accounts += [account] * tasks
            # Two are accepted and their answers lost; one is refused.
            self.provider.tell(LOSE, LOSE, Answer.REJECTED)
            await self.submit(account)
            self.provider.script.clear()
        assert len(self.ids) == TASKS

    async def submit(self, account: str = "default") -> None:
        await submit(
            self.store,
            self.provider,
            account=account,
            limits=LIMITS,
            clock=self.clock,
            jitter=lambda: 0.5,
            token=f"{account} {self.clock.advance(1)}",
        )
        for row in (await read_books(self.store)).tasks:
            self.current[row["id"]] = row["attempt"]

    async def look(self) -> None:
        """What a sweep does, until nothing is left."""
        for _ in range(3):
            self.clock.advance(to_ms(LIMITS.poll_every_s) + UNMATCHED_MS)
            await sweep(
                self.store,
                dict.fromkeys(SECRETS, self.provider),
                self.settle,
                limits=LIMITS,
                clock=self.clock,
                unreleased=set(),
            )

    async def settle(self, delivery_ids: Sequence[str]) -> None:
        summary = await Pipeline(self.store, self.clock).settle(list(delivery_ids))
        assert not summary.held_up, "whatever it says, it is no trouble of ours"

    def provider_id(self, place: int) -> str:
        task_id = self.ids[place]
        accepted = self.provider.accepted.get(idempotency_key(task_id, self.current[task_id]))
        return f"pt-never-{place}" if accepted is None else accepted[0].id

    def key(self, place: int, attempt: str) -> str:
        task_id = self.ids[place]
        return f"{task_id}.{self.current[task_id] if attempt == 'current' else attempt}"

    async def post(self, everything: Sequence[Body]) -> None:
        """Through the door, each signed for its account and as often as told; settled in groups."""
        wake = WakeDouble()
        app = create_app(
            self.store,
            wake,
            secrets=[SECRET],
            extra_accounts={"eu": [EU_SECRET]},
            limits=WEB_LIMITS,
            clock=self.clock,
        )
        async with TestClient(TestServer(app)) as client:
            for n, body in enumerate(everything):
                await self._send(client, body)
                if n % 3 == 0:
                    taken, wake.taken = wake.taken, []
                    await self.settle(taken)
        await self.settle(wake.taken)

    async def _send(self, client: TestClient[Any, Any], body: Body) -> None:
        account = self.accounts[body.about] if body.account == "own" else body.account
        data = body.encoded(self)
        for copy in range(1, body.copies + 1):
            at = str(self.clock.advance(0 if body.same_moment else 1_000) // 1000)
            headers = {
                "X-Cloro-Timestamp": at,
                "X-Cloro-Signature": sign(SECRETS[account], at, data),
                "X-Cloro-Webhook-Id": f"w-{copy}",
                "Content-Type": "application/json",
            }
            path = PATH if account == "default" else f"{PATH}/{account}"
            async with client.post(path, data=io.BytesIO(data), headers=headers) as answer:
                self.answers[answer.status] += 1
                assert answer.status in (200, 400), await answer.text()
                assert answer.status == 200 or not is_readable(data)


def is_readable(body: bytes) -> bool:
    """UTF-8, and a report."""
    try:
        body.decode()
        read_report(body)
    except ValueError:
        return False
    return True


class Balance(BaseHTTPRequestHandler):
    """A provider that only tells its balance."""

    def do_GET(self) -> None:
        resets = time.strftime("%Y-%m-%dT00:00:00Z", time.gmtime(time.time() + 12 * 86_400))
        is_known = self.path == "/v1/credits"
        run_command = {"remaining": 30_000, "perCycle": 37_500, "cycleResetsAt": resets} if is_known else {}
        body = json.dumps(run_command).encode()
        self.send_response(200 if is_known else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def balances_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Balance) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


RunCommand = Callable[..., tuple[int, str]]


@pytest.fixture
def run_command(
    store_url: str,
    balances_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> RunCommand:
    """A command's exit code and what it prints."""
    monkeypatch.chdir(tmp_path)
    eu = {"api_key": "sk_eu", "webhook_secret": EU_SECRET, "base_url": balances_url}
    for name, value in {
        "DATABASE_URL": store_url,
        "CLORO_API_KEY": "sk_test_0123456789abcdef",
        "CLORO_BASE_URL": balances_url,
        "CLORO_WEBHOOK_SECRET": SECRET,
        "TALLYHOOK_ACCOUNTS": json.dumps({"eu": eu}),
    }.items():
        monkeypatch.setenv(name, value)

    def call(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()  # what the receiver logged
        code = run(list(arguments))
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        captured.out.encode()
        return code, captured.out

    return call


@dataclass
class Agreement:
    """Every command works, and all say the same."""

    run_command: RunCommand
    posted: dict[str, Decimal] = field(default_factory=lambda: dict.fromkeys(SECRETS, Decimal(0)))
    named: int = 0

    def asked(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> Any:
        code, out = self.run_command(*arguments, "--json")
        assert code in codes, (arguments, code, out[:2_000])
        return json.loads(out)

    def check(self, runs: Sequence[str]) -> None:
        verified = self.asked("verify", "--all", codes=(0, 1))
        assert verified["equal"], json.dumps(verified["differences"][:5], indent=0)
        listed = {row["run"]["id"]: row for row in self.asked("runs")["runs"]}
        inbox = self.asked("inbox", "list", "--limit", "1000")
        assert {row["state"] for row in inbox["deliveries"]} <= {"set_aside"}, "nothing is held up"
        assert inbox["set_aside"] == len(inbox["deliveries"])
        for run_id in runs:
            self._of_run(run_id, listed[run_id])
        assert self.named <= inbox["set_aside"]
        total = sum(self.posted.values(), Decimal(0))
        assert Decimal(verified["credits"]["post"]) == Decimal(verified["credits"]["charged"]) == total
        for account in SECRETS:
            self._of_account(account)
        for words in (
            "report",
            "certificate",
            "status",
            "inbox list",
            "plan",
            "statement",
            "forecast",
            "verify",
        ):
            assert self.run_command(*words.split())[0] in (0, 1), words

    def _of_run(self, run_id: str, listed: dict[str, Any]) -> None:
        status, report = self.asked("status", run_id), self.asked("report", run_id)
        code, out = self.run_command("certificate", run_id, "--json")
        made = json.loads(out)
        assert (code == 0) == made["complete"] == (not made["open_questions"])
        assert listed.items() <= status.items()
        for figure in ("charged", "estimate", "held"):
            assert status["credits"][figure] == report["credits"][figure]
        books = made["credits"]
        assert (
            books["charged"] == books["posted"] == status["credits"]["charged"] == report["credits"]["posted"]
        )
        assert (books["open_holds"], books["voided"]) == (
            status["credits"]["held"],
            report["credits"]["voided"],
        )
        assert made["ends"] == status["states"]
        assert not (status["open"] and made["complete"])
        beside = ("double_charged", "conflict", "repriced", "unmatched", "lost_after_ack")
        verdicts = {name: n for name, n in report["verdicts"].items() if n and name not in beside}
        assert verdicts == made["verdicts"]
        found = Counter(row["verdict"] for row in report["findings"])
        assert report["findings_count"] == sum(found.values())
        assert dict(found) == made["discrepancies"]
        self.posted[status["run"]["account"]] += Decimal(str(books["posted"]))
        self.named += report["set_aside"]["named"]
        self._exported(run_id, status, Decimal(str(books["charged"])))
        self.asked("forecast", run_id)

    def _exported(self, run_id: str, status: dict[str, Any], charged: Decimal) -> None:
        code, out = self.run_command("export", run_id)
        rows = [json.loads(line, parse_int=Decimal) for line in out.splitlines()]
        assert code == 0 and len(rows) == status["tasks"]
        assert Counter(row["state"] for row in rows) == Counter(
            {k: n for k, n in status["states"].items() if n}
        )
        assert sum(Decimal(str(row["credits_charged"] or 0)) for row in rows) == charged
        code, out = self.run_command("export", run_id, "--what", "ledger")
        entries = [json.loads(line, parse_int=Decimal) for line in out.splitlines()]
        posts = [Decimal(str(entry["credits"])) for entry in entries if entry["kind"] == "post"]
        assert code == 0 and sum(posts, Decimal(0)) == charged

    def _of_account(self, account: str) -> None:
        audited = self.asked("audit", "--account", account, codes=(0, 1))
        assert audited.get("balance") == 30_000, audited
        plan, statement = (self.asked(name, "--account", account) for name in ("plan", "statement"))
        used = Decimal(str(statement["totals"]["used"]))
        assert Decimal(str(plan["used"])) == used == self.posted[account]


async def play(url: str, everything: Sequence[Body]) -> list[str]:
    """The runs of the scene after all that."""
    store = Store(Database(url), read_answer)
    try:
        await store.db.write(delete_all_rows)
        # What is done at the end is not in the future of the commands, which go by the real time.
        scene = Scene(store, SteppedClock(time.time_ns() // 1_000_000 - RETENTION_MS - HOUR_MS))
        await scene.play(everything)
        return scene.runs
    finally:
        await store.close()


def hostile(run_command: RunCommand, url: str, examples: int, *, derandomize: bool) -> None:
    @hypothesis.settings(
        max_examples=examples,
        phases=[Phase.explicit, Phase.generate],
        derandomize=derandomize,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @hypothesis.given(st.lists(bodies, min_size=BODIES[0], max_size=BODIES[1]))
    def held(everything: list[Body]) -> None:
        hypothesis.assume(len(set(everything)) > BODIES[0] // 2)  # not the simplest, which is always first
        Agreement(run_command).check(asyncio.run(play(url, everything)))

    held()


def test_f11_whatever_a_signed_body_says_all_agree(run_command: RunCommand, store_url: str) -> None:
    """The same ones each time; the long form goes on looking."""
    hostile(run_command, store_url, EXAMPLES, derandomize=True)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_f11_whatever_many_signed_bodies_say_all_agree(run_command: RunCommand, store_url: str) -> None:
    hostile(run_command, store_url, EXAMPLES_LONG, derandomize=False)
