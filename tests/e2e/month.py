"""Some months of real services against the emulator in a process of its own, whose time is stepped: our clock
goes where its clock is, moment by moment, so that every report is received when it was sent.
"""

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from app.cli.runs.ask import question_of
from app.domain.delivery import RawDelivery
from app.domain.settlement import Source
from app.domain.task import TaskSpec, new_id
from app.provider.client import Client
from app.provider.ratelimit.pacing import Pacer
from app.provider.signature import Verified, verify
from app.provider.sync import SyncClient, encode_sync_report
from app.provider.wire import read_report
from app.services.admission import Admission
from app.services.audit import Audits
from app.services.funding import Funding
from app.services.settle import settle
from app.services.submit import submit
from app.services.sync_call import ask
from app.store import Store
from tests.clock import SteppedClock, unix_ms
from tests.e2e.stack import TALLYHOOK
from tests.integration.services.pipeline import LIMITS

SECRET = "whsec_test_of_a_month_0000000000000000000"
MINUTE_MS = 60_000
DAY_MS = 86_400_000


@dataclass
class Month:
    """Our services for several accounts, and the provider that they all use."""

    store: Store
    url: str
    http: aiohttp.ClientSession
    hook: str = ""
    clock: SteppedClock = field(default_factory=SteppedClock)
    starts_ms: int = 0
    clients: dict[str, Client] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    _admissions: dict[str, Admission] = field(default_factory=dict)
    _audits: Audits | None = None
    _funding: Funding | None = None

    async def control(self, path: str, body: Any = None) -> Any:
        """The emulator's own side: read, or with a body change."""
        method = "GET" if body is None else "POST"
        async with self.http.request(method, f"{self.url}/_emulator/{path}", json=body) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def subscribe(self, name: str, plan: str, prices: dict[str, int], **more: Any) -> None:
        """An organization with its key; an account of ours, unless it is a neighbour's."""
        self.keys[name] = "sk_live_" + f"{len(self.keys) + 1:032x}"
        await self.control(
            "organizations",
            {
                "name": name,
                "plan": plan,
                "keys": [{"key": self.keys[name]}],
                "webhookSecret": SECRET,
                "prices": prices,
                **more,
            },
        )
        self.clients[name] = Client(
            base_url=self.url,
            api_key=self.keys[name],
            webhook_url=f"{self.hook}/{name}",
            pacer=Pacer(500),
            timeout_s=60,
            connections=8,
        )
        await self.clients[name].__aenter__()

    async def to(self, day: float) -> None:
        """Step to a moment, in days since the start, through everything that falls due."""
        target_ms = self.starts_ms + round(day * DAY_MS)
        while True:
            state = await self.control("clock")
            due_ms = target_ms if state["nextDue"] is None else min(unix_ms(state["nextDue"]), target_ms)
            now_ms = unix_ms(state["now"])
            self.clock.now_ms = max(now_ms, due_ms)
            # Times are told in milliseconds, so the moment itself may lie a fraction after what was told.
            await self.control("clock", {"advance": max(due_ms - now_ms, 0) / 1000 + 0.001})
            if due_ms >= target_ms:
                return

    async def later(self, ms: int) -> None:
        """Step on by so much."""
        await self.to((self.clock() + ms - self.starts_ms) / DAY_MS)

    async def load(self, account: str, *wanted: tuple[str, int], **payload: object) -> str:
        """A running run with so many tasks of each type."""
        run_id = await self.store.runs.create_run(
            name=f"{account} {self.clock()}", source="-", budget=None, now_ms=self.clock(), account=account
        )
        specs, ordinal = [], 0
        for task_type, count in wanted:
            for _ in range(count):
                ordinal += 1
                subject = "query" if task_type.startswith("GOOGLE") else "prompt"
                body = {subject: f"question {ordinal}", "country": "US", **payload}
                specs.append((TaskSpec(ordinal, task_type, body), Decimal(5)))
        await self.store.runs.add_tasks(run_id, specs, self.clock())
        await self.store.runs.start_run_if_loading(run_id, sha256="", bad_lines=0)
        return run_id

    async def send(self, account: str) -> None:
        """What the worker does: resume what has credits again, then submit what is due."""
        assert self._funding is not None
        await self._funding.resume_due()
        if account not in self._admissions:
            self._admissions[account] = Admission(
                account, self.store, self.clients[account], clock=self.clock, drain_target_s=43_200
            )
        await submit(
            self.store,
            self.clients[account],
            account=account,
            admission=self._admissions[account],
            limits=LIMITS,
            clock=self.clock,
            jitter=lambda: 0.5,
            token=new_id(self.clock()),
        )

    async def ask(self, account: str, engine: str, day: float) -> None:
        """A sync call that is answered while time is stepped to a moment."""
        provider = SyncClient(base_url=self.url, api_key=self.keys[account], pacer=Pacer(500), timeout_s=60)
        asking = asyncio.create_task(
            ask(
                self.store,
                provider,
                encode_sync_report,
                self.settle,
                question_of("Which CRM?", engine, "US", [], "", account),
                limits=LIMITS,
                slot_wait_s=60,
                clock=self.clock,
                jitter=lambda: 0.5,
            )
        )
        # The state of another process has no event.
        while not (await self.control(f"books?organization={account}&tasks=0"))["slots"]["used"]:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await self.to(day)
        assert (await asking).answer.http_status == 200
        await provider.close()

    async def spend_elsewhere(self, name: str, count: int) -> None:
        """Tasks of somebody else, who uses the same plan."""
        for n in range(count):
            headers = {"Authorization": f"Bearer {self.keys[name]}"}
            task = {"taskType": "GOOGLE", "payload": {"query": f"theirs {n}", "country": "US"}}
            async with self.http.post(f"{self.url}/v1/async/task", json=task, headers=headers) as response:
                assert response.status == 200, await response.text()

    async def audit(self) -> None:
        """Audit twice, as far apart as the balance lags: then everything is certain."""
        assert self._audits is not None
        await self._audits.audit_due()
        await self.later(2 * MINUTE_MS)
        await self._audits.audit_due()

    async def settle(self, delivery_ids: Any) -> object:
        return await settle(self.store, read_report, delivery_ids, clock=self.clock, unmatched_ms=0)

    async def receive(self, request: web.Request) -> web.Response:
        """A delivery: verified against the wall clock, as it was signed; received on the emulated one."""
        body, headers = await request.read(), request.headers
        checked = verify(
            [SECRET],
            headers["X-Cloro-Timestamp"],
            headers["X-Cloro-Signature"],
            body,
            now_s=int(time.time()),
            window_s=300,
        )
        assert isinstance(checked, Verified)
        delivery = RawDelivery(
            new_id(self.clock()), Source.DELIVERY, self.clock(), body, account=request.match_info["account"]
        )
        await self.store.inbox.store_deliveries([delivery], due_at_ms=self.clock() + 10_000)
        await self.settle([delivery.id])
        return web.Response()

    def begin(self, *accounts: str) -> None:
        """Audit these accounts from now on."""
        mine = {name: self.clients[name] for name in accounts}
        self._audits = Audits(self.store, mine, every_ms=MINUTE_MS, clock=self.clock)
        self._funding = Funding(self.store, mine, probe_ms=5 * MINUTE_MS, clock=self.clock)


@asynccontextmanager
async def stepped_months(folder: Path, store: Store, *options: str) -> AsyncIterator[Month]:
    """The emulator with its clock stopped, and our receiver."""
    command = [TALLYHOOK, "emulator", "--port", "0", "--edition", "2026", "--json", "--seed", "7", *options]
    with (folder / "emulator.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - a millisecond, before anything else runs
            command, stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert process.stdout is not None
        url = json.loads(await asyncio.to_thread(process.stdout.readline))["url"]
        async with aiohttp.ClientSession() as http:
            month = Month(store, url, http)
            app = web.Application(client_max_size=64 * 1024 * 1024)
            app.router.add_post("/hook/{account}", month.receive)
            async with TestServer(app) as server:
                month.hook = str(server.make_url("/hook"))
                stopped = await month.control("clock", {"scale": 0})
                await month.control("clock", {"advance": _until_new_year(stopped["now"])})
                month.starts_ms = month.clock.now_ms = unix_ms((await month.control("clock"))["now"])
                try:
                    yield month
                finally:
                    for client in month.clients.values():
                        await client.__aexit__(None, None, None)
    finally:
        process.kill()
        process.communicate()


def _until_new_year(iso: str) -> float:
    """Seconds to the next 31st of December, 06:00: of the months after it, the second is short."""
    now = datetime.fromisoformat(iso)
    begins = now.replace(month=12, day=31, hour=6, minute=0, second=0, microsecond=0)
    if begins <= now:
        begins = begins.replace(year=now.year + 1)
    return (begins - now).total_seconds()
