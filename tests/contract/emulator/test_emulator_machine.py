"""A state machine over organizations: statements always balance, and nothing is served that credits or
slots forbade.

It drives the engine without HTTP, on a stopped clock, and keeps its own account of every charge.
"""

import asyncio
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any, cast

from emulator_harness import START_S, TASK_TYPES
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from app.emulator.billing.account import BillingError
from app.emulator.billing.books import books
from app.emulator.billing.organization_spec import KeySpec, OrganizationSpec
from app.emulator.billing.organizations import Organization
from app.emulator.billing.pricing import PLANS
from app.emulator.engine.clock import Clock
from app.emulator.engine.emulator import Emulator
from app.emulator.engine.errors import RefusalError
from app.emulator.engine.faults import FaultRates
from app.emulator.engine.options import Options
from app.emulator.engine.tasks import Task
from app.emulator.http.exchange import Exchange
from app.emulator.http.sync_calls import SyncCalls

NAMES = ("public", "contract", "branch", "free")
PLAN_NAMES = ("free", "lite", "hobby", "growth", "enterprise-2k", "enterprise-annual")


class _Open:
    """A request whose client stays."""

    class transport:  # noqa: N801 - in place of aiohttp's attribute
        @staticmethod
        def is_closing() -> bool:
            return False


def body(task_type: str, **extra: Any) -> dict[str, Any]:
    subject = "query" if task_type.startswith("GOOGLE") else "prompt"
    return {subject: "best shoes", "country": "US"} | extra


class Organizations(RuleBasedStateMachine):
    """Rules are what customers and the sales team do; invariants are what the books must show."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.calls: list[tuple[Organization, asyncio.Future[bytes], Exchange]] = []
        self.sync_charged: dict[str, int] = defaultdict(int)
        self.served = 0

    @initialize(
        edition=st.sampled_from(["2025", "2026"]),
        day=st.integers(1, 31),
        credits=st.integers(0, 25),
        seed=st.integers(0, 99),
    )
    def begin(self, edition: str, day: int, credits: int, seed: int) -> None:
        subscribed = datetime(2024, 12, day, 8, tzinfo=UTC)
        specs = (
            OrganizationSpec(name="public", plan="lite", credits=credits, slots=3, subscribed_at=subscribed),
            OrganizationSpec(
                name="contract", plan="enterprise-annual", credits=credits, slots=2, subscribed_at=subscribed
            ),
            OrganizationSpec(name="branch", shares_plan_of="contract", slots=1),
            OrganizationSpec(name="free", plan="free", credits=credits, slots=1),
        )
        options = Options(edition=edition, organizations=specs, seed=seed, queue_max=5, faults=FaultRates())
        self.emulator = Emulator(options, clock=Clock(0.0, start_s=START_S))
        registry = self.emulator.registry
        self.keys = {
            name: registry.add_key(registry.organizations[name], KeySpec(key=f"sk_live_{number:032x}"))
            for number, name in enumerate(NAMES)
        }
        self.sync = SyncCalls(self.emulator)
        self._watch_starts()

    def _watch_starts(self) -> None:
        scheduler = self.emulator.scheduler
        begin = scheduler.begin_attempt

        def watched(organization: Organization, task: Task, now_s: float) -> None:
            account = organization.account
            assert organization.slots_used < organization.slots, "started without a free slot"
            kinds = self.emulator.edition.overage_kinds
            assert account.balance >= task.estimate or account.plan.kind in kinds, "started without credits"
            begin(organization, task, now_s)

        scheduler.begin_attempt = watched  # type: ignore[method-assign]

    def _allowed(self, organization: Organization, price: int) -> bool:
        account = organization.account
        exceeding = account.plan.kind in self.emulator.edition.overage_kinds and not account.ended
        return account.balance >= price or exceeding

    @rule(
        name=st.sampled_from(NAMES), task_types=st.lists(st.sampled_from(TASK_TYPES), min_size=1, max_size=5)
    )
    def submit(self, name: str, task_types: list[str]) -> None:
        for task_type in task_types:
            self._submit(name, task_type)

    def _submit(self, name: str, task_type: str) -> None:
        key = self.keys[name]
        include = {"include": {"expandProducts": True}} if task_type == "AIMODE" else {}
        task = {"taskType": task_type, "payload": body(task_type, **include)}
        price = self.emulator.estimate(key, task)
        organization = key.organization
        possible = self._allowed(organization, price) and organization.queued_tasks < organization.queue_max

        async def create() -> None:
            accepted = self.emulator.create_task(key, task)
            self.emulator.scheduler.admit(organization, accepted, accepted.created_s)

        try:
            self.runner.run(create())
        except RefusalError as refusal:
            assert not possible, refusal.code
        else:
            assert possible

    @rule(name=st.sampled_from(NAMES), task_type=st.sampled_from(TASK_TYPES))
    def call(self, name: str, task_type: str) -> None:
        key = self.keys[name]
        organization = key.organization
        prices = self.emulator.registry.prices(organization, key.edition)
        price = prices.base[task_type] + prices.sync_surcharge
        possible = self._allowed(organization, price) and organization.slots_used < organization.slots
        exchange = Exchange(cast(Any, _Open()), key)
        self.runner.run(self._start(exchange, organization, task_type, possible))

    async def _start(
        self, exchange: Exchange, organization: Organization, task_type: str, possible: bool
    ) -> None:
        call = asyncio.ensure_future(self.sync.run(exchange, task_type, body(task_type)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if call.done():
            assert not possible, call.exception()
            assert isinstance(call.exception(), RefusalError)
        else:
            assert possible
            self.calls.append((organization, call, exchange))

    @rule(seconds=st.sampled_from([1, 30, 90, 600, 86_400, 20 * 86_400, 35 * 86_400]))
    def wait(self, seconds: int) -> None:
        async def pass_time() -> None:
            await self.emulator.advance(seconds)
            for _ in range(5):
                await asyncio.sleep(0)

        self.runner.run(pass_time())
        for organization, call, exchange in [item for item in self.calls if item[1].done()]:
            if call.exception() is None:
                self.sync_charged[organization.name] += int(exchange.headers["X-Credits-Charged"])
        self.calls = [item for item in self.calls if not item[1].done()]

    @rule(name=st.sampled_from(NAMES), left=st.integers(0, 12))
    def spend(self, name: str, left: int) -> None:
        """Bring the balance near zero, where the gates matter; a new cycle or an upgrade makes plenty of
        it."""
        organization = self.emulator.organizations[name]
        amount = max(0, organization.account.balance - left)
        organization.charge(amount, "GOOGLE", self.emulator.clock.now())
        self.sync_charged[name] += amount

    @rule(name=st.sampled_from(("public", "contract", "free")), plan=st.sampled_from(PLAN_NAMES))
    def change_plan(self, name: str, plan: str) -> None:
        organization = self.emulator.organizations[name]
        account = organization.account
        balance, before, ended = account.balance, account.plan, account.ended
        try:
            self.emulator.registry.change_plan(organization, plan)
        except BillingError:
            assert PLANS[plan].credits == before.credits or ended
            return
        rise = PLANS[plan].credits - before.credits
        assert account.balance == balance + max(0, rise)

    @rule(name=st.sampled_from(("public", "contract")))
    def cancel(self, name: str) -> None:
        self.emulator.organizations[name].account.cancel()

    @rule(
        name=st.sampled_from(NAMES),
        prices=st.dictionaries(st.sampled_from(TASK_TYPES), st.integers(0, 9), max_size=3),
    )
    def negotiate(self, name: str, prices: dict[str, int]) -> None:
        self.emulator.registry.override_prices(self.emulator.organizations[name], prices)

    @rule(fail=st.sampled_from([0.0, 0.5, 1.0]), wrong=st.sampled_from([0.0, 0.5]))
    def misbehave(self, fail: float, wrong: float) -> None:
        self.emulator.options.faults.fail = fail
        self.emulator.options.faults.wrong_charge = wrong

    @rule(name=st.sampled_from(NAMES))
    def clear(self, name: str) -> None:
        self.emulator.organizations[name].clear_queue()

    @rule(name=st.sampled_from(NAMES), credits=st.integers(1, 20))
    def top_up(self, name: str, credits: int) -> None:
        if self.emulator.edition.top_up:
            self.emulator.registry.top_up(self.emulator.organizations[name], credits)

    @invariant()
    def statements_balance(self) -> None:
        for name in NAMES if hasattr(self, "emulator") else ():
            statement = books(self.emulator.organizations[name], self.emulator.clock.now(), with_tasks=False)
            for cycle in statement["cycles"]:
                left = (
                    cycle["opening"]
                    + cycle["allocation"]
                    - cycle["charges"]
                    - cycle["expiry"]
                    + cycle["overage"]
                )
                assert left == cycle["closing"], cycle
                assert cycle["allocation"] == sum(grant["credits"] for grant in cycle["grants"]), cycle
                assert cycle["charges"] == sum(line["credits"] for line in cycle["lines"]), cycle
            for closed, following in zip(statement["cycles"], statement["cycles"][1:], strict=False):
                assert closed["closing"] == following["opening"] == 0
                assert following["overageBilledBefore"] in (0, closed["overage"])
            assert statement["opening"] - statement["charged"] == statement["remaining"]

    @invariant()
    def charges_are_those_of_the_tasks(self) -> None:
        for name in NAMES if hasattr(self, "emulator") else ():
            organization = self.emulator.organizations[name]
            tasks = [*organization.archive, *organization.tasks.values()]
            total = sum(task.charged or 0 for task in tasks) + self.sync_charged[name]
            assert organization.charged == total, name

    @invariant()
    def shared_accounts_add_up(self) -> None:
        if hasattr(self, "emulator"):
            pair = [self.emulator.organizations[name] for name in ("contract", "branch")]
            assert pair[0].account is pair[1].account
            assert pair[0].account.charged_ever == sum(organization.charged for organization in pair)

    @invariant()
    def slots_are_what_runs(self) -> None:
        for name in NAMES if hasattr(self, "emulator") else ():
            organization: Organization = self.emulator.organizations[name]
            running = sum(1 for item in self.calls if item[0] is organization)
            assert organization.slots_used == organization.processing + running
            assert organization.queued_tasks <= organization.queue_max + organization.slots

    def teardown(self) -> None:
        async def drop() -> None:
            for _, call, _ in self.calls:
                call.cancel()
            running = list(self.sync.running) if hasattr(self, "sync") else []
            for task in running:
                task.cancel()
            await asyncio.gather(*running, *(call for _, call, _ in self.calls), return_exceptions=True)

        self.runner.run(drop())
        self.runner.close()


Organizations.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
TestOrganizations = Organizations.TestCase
