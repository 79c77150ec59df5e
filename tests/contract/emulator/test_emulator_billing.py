"""C-F: plans, cycles, proration, overage, shared plans; and a year of billing against a hand-computed
table."""

from datetime import UTC, datetime
from typing import Any

import pytest
from emulator_harness import LIVE_KEY, Provider

from app.emulator.billing.account import Account, BillingError, months_after
from app.emulator.billing.organization_spec import KeySpec, OrganizationSpec
from app.emulator.billing.pricing import PLANS
from app.emulator.data.editions import EDITIONS
from app.emulator.engine.clock import Clock, iso
from app.emulator.engine.emulator import Emulator
from app.emulator.engine.faults import FaultRates
from app.emulator.engine.options import Options

OTHER_KEY = "sk_live_22222222222222222222222222222222"


def unix_s(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def account(plan: str, subscribed: str, edition: str = "2026", **over: Any) -> Account:
    at = unix_s(subscribed)
    return Account("a", PLANS[plan], EDITIONS[edition], subscribed_s=at, now_s=at, **over)


@pytest.mark.parametrize(
    ("name", "usd", "credits", "concurrency", "kind"),
    [
        ("free", 0, 500, 1, "free"),
        ("lite", 30, 37_500, 10, "public"),
        ("hobby", 100, 250_000, 20, "public"),
        ("starter", 250, 650_000, 50, "public"),
        ("growth", 500, 1_350_000, 75, "public"),
        ("business", 1_000, 2_800_000, 100, "public"),
        ("enterprise-2k", 2_000, 5_871_025, 135, "self_serve"),
        ("enterprise-3k", 3_000, 9_306_606, 175, "self_serve"),
        ("enterprise-4k", 4_000, 12_756_261, 215, "self_serve"),
        ("enterprise-5k", 5_000, 16_391_783, 255, "self_serve"),
        # 12-month contract: the tier plus 20 %, its slots times 1.3.
        ("enterprise-annual", 5_000, 19_670_140, 331, "contract"),
    ],
)
def test_f_plan_table(name: str, usd: int, credits: int, concurrency: int, kind: str) -> None:
    plan = PLANS[name]
    assert (plan.usd, plan.credits, plan.concurrency, plan.kind) == (usd, credits, concurrency, kind)


def test_f_cycle_starts_on_the_subscription_date_and_allocates_in_full() -> None:
    cycle = account("hobby", "2025-03-10T08:30:00").cycle
    assert (iso(cycle.starts_s), iso(cycle.ends_s)) == (
        "2025-03-10T08:30:00.000Z",
        "2025-04-10T08:30:00.000Z",
    )
    assert (cycle.opening, cycle.allocation) == (0, 250_000)


def test_f_unused_credits_expire() -> None:
    subject = account("hobby", "2025-03-10T08:30:00")
    subject.charge(1_000)
    subject.renew()
    (closed,) = subject.closed
    assert (closed.charges, closed.expiry, closed.overage, closed.balance) == (1_000, 249_000, 0, 0)
    assert subject.balance == 250_000


def test_f_downgrade_comes_with_the_next_cycle() -> None:
    subject = account("growth", "2025-03-10T08:30:00")
    subject.downgrade(PLANS["lite"])
    assert (subject.plan.name, subject.balance) == ("growth", 1_350_000)
    subject.renew()
    assert (subject.plan.name, subject.balance, subject.slots) == ("lite", 37_500, 10)


def test_f_cancel_keeps_service_until_the_end() -> None:
    subject = account("lite", "2025-03-10T08:30:00")
    subject.cancel()
    assert subject.covers(1)
    subject.renew()
    assert not subject.covers(1)
    assert subject.cycle.invoices == []
    subject.renew()
    assert subject.balance == 0
    with pytest.raises(BillingError):
        subject.upgrade(PLANS["hobby"], subject.cycle.starts_s)


def test_f_upgrade_after_use_and_its_price() -> None:
    """30-day cycle, 20 days left: (500 - 100) * 20 / 30 = 266.67 USD; 1,350,000 - 60,000 credits."""
    subject = account("hobby", "2025-04-10T00:00:00")
    subject.charge(60_000)
    subject.upgrade(PLANS["growth"], unix_s("2025-04-20T00:00:00"))
    assert (subject.balance, subject.cycle.invoices[-1].cents) == (1_290_000, 26_667)
    assert subject.cycle.plan == "growth"


@pytest.mark.parametrize(
    ("method", "plan"), [("upgrade", "lite"), ("upgrade", "growth"), ("downgrade", "business")]
)
def test_f_changes_in_the_wrong_direction_are_refused(method: str, plan: str) -> None:
    subject = account("growth", "2025-04-10T00:00:00")
    arguments = (PLANS[plan], subject.cycle.starts_s) if method == "upgrade" else (PLANS[plan],)
    with pytest.raises(BillingError):
        getattr(subject, method)(*arguments)


def test_f_contract_overage_is_billed_with_the_next_cycle() -> None:
    """19,670,140 credits for 5,000 USD; 1,000,000 beyond cost 254.19 USD in the next month."""
    subject = account("enterprise-annual", "2025-04-10T00:00:00")
    subject.charge(20_670_140)
    assert subject.covers(1_000)
    assert subject.cycle.as_json()["overage"] == 1_000_000
    assert subject.cycle.as_json()["closing"] == 0
    subject.renew()
    (closed,) = subject.closed
    assert (closed.overage, closed.expiry, closed.balance) == (1_000_000, 0, 0)
    assert subject.cycle.overage_billed_before == 1_000_000
    assert subject.cycle.invoices[-1].cents == 25_419
    assert subject.balance == 19_670_140


def test_f_public_overdraft_is_written_off() -> None:
    subject = account("lite", "2025-04-10T00:00:00")
    subject.charge(37_510)
    subject.renew()
    assert subject.closed[0].overage == 10
    assert subject.cycle.overage_billed_before == 0


async def test_f_renewal_happens_by_itself(emulate: Any) -> None:
    provider = await emulate(plan="lite", credits=3, concurrency=1)
    await provider.create("GOOGLE")
    await provider.step(60)
    assert (await provider.post("/v1/async/task", provider.task())).status == 403
    await provider.step(31 * 86_400)
    assert (await provider.post("/v1/async/task", provider.task())).status == 200
    books = await provider.books()
    assert [cycle["closing"] for cycle in books["cycles"]] == [0, 37_500]


async def test_f_a_statement_lists_grants_and_charges_line_by_line(emulate: Any) -> None:
    """2025-01-15 12:00 on: Lite, an upgrade to Hobby on the third day."""
    provider = await emulate(plan="lite", edition="2026", concurrency=5)
    for task_type in ("GOOGLE", "GOOGLE", "CHATGPT"):
        await provider.create(task_type)
    await provider.step(2 * 86_400)
    await provider.control("organizations/default", {"plan": "hobby"})
    await provider.create("GOOGLE")
    await provider.step(86_400)
    (cycle,) = (await provider.books())["cycles"]
    assert [(grant["at"][:10], grant["what"], grant["credits"]) for grant in cycle["grants"]] == [
        ("2025-01-15", "plan lite", 37_500),
        ("2025-01-17", "upgrade lite to hobby", 212_500),
    ]
    assert [(line["day"], line["taskType"], line["count"], line["credits"]) for line in cycle["lines"]] == [
        ("2025-01-15", "CHATGPT", 1, 5),
        ("2025-01-15", "GOOGLE", 2, 6),
        ("2025-01-17", "GOOGLE", 1, 3),
    ]
    assert {(line["organization"], line["sync"]) for line in cycle["lines"]} == {("default", False)}


async def test_f_several_organizations_on_one_enterprise_plan(emulate: Any) -> None:
    """One pool of credits, the slots split as agreed."""
    specs = (
        OrganizationSpec(name="north", plan="enterprise-2k", slots=100, keys=(KeySpec(key=LIVE_KEY),)),
        OrganizationSpec(name="south", shares_plan_of="north", slots=35, keys=(KeySpec(key=OTHER_KEY),)),
    )
    provider = await emulate(organizations=specs)
    assert (await provider.get("/v1/async/status", key=LIVE_KEY)).body["concurrency"]["max"] == 100
    assert (await provider.get("/v1/async/status", key=OTHER_KEY)).body["concurrency"]["max"] == 35
    await provider.create("CHATGPT", key=LIVE_KEY)
    await provider.create("GOOGLE", key=OTHER_KEY)
    await provider.step(120)
    north, south = await provider.books("north"), await provider.books("south")
    assert north["remaining"] == south["remaining"] == 5_871_025 - 8
    assert (north["chargedHere"], south["chargedHere"]) == (5, 3)
    assert (north["active_tasks"], len(north["tasks"]), len(south["tasks"])) == (0, 1, 1)


async def test_f_shares_are_checked(emulate: Any) -> None:
    provider = await emulate(organizations=(OrganizationSpec(name="north", plan="enterprise-2k", slots=100),))
    for wrong in (
        {"name": "south", "sharesPlanOf": "north", "slots": 36},
        {"name": "south", "sharesPlanOf": "north"},
        {"name": "south", "sharesPlanOf": "default", "slots": 1},
        {"name": "south", "sharesPlanOf": "nobody", "slots": 1},
        {"name": "north"},
        {"name": "south", "plan": "nothing"},
        {"name": "south", "surprise": 1},
        {"name": "south", "subscribedAt": "2099-01-01T00:00:00Z"},
    ):
        assert (await provider.post("/_emulator/organizations", wrong, key=None)).status == 400, wrong
    right = {"name": "south", "sharesPlanOf": "north", "slots": 35, "keys": [{"key": OTHER_KEY}]}
    assert (await provider.post("/_emulator/organizations", right, key=None)).status == 200
    assert (await provider.get("/v1/async/status", key=OTHER_KEY)).status == 200


@pytest.mark.parametrize(
    ("anchor", "expected"),
    [
        # Clamped to the last day, and back on the anchor day afterwards (L31).
        ("2024-01-31T10:00:00", ["02-29", "03-31", "04-30", "05-31", "06-30", "07-31", "08-31", "09-30"]),
        ("2025-01-30T10:00:00", ["02-28", "03-30", "04-30", "05-30", "06-30", "07-30", "08-30", "09-30"]),
        ("2025-01-29T10:00:00", ["02-28", "03-29", "04-29", "05-29", "06-29", "07-29", "08-29", "09-29"]),
        ("2025-01-15T10:00:00", ["02-15", "03-15", "04-15", "05-15", "06-15", "07-15", "08-15", "09-15"]),
    ],
)
def test_f_month_ends(anchor: str, expected: list[str]) -> None:
    start = unix_s(anchor)
    assert [iso(months_after(start, month))[5:10] for month in range(1, 9)] == expected
    assert iso(months_after(start, 12))[:10] == anchor.replace(anchor[:4], str(int(anchor[:4]) + 1))[:10]


# Computed by hand. A contract from 31 January 2025, so that every month end is met; what each cycle uses is
# nothing, part, all, too much. Columns: first day, charges, expiry, overage, overage billed at the cycle's
# start.
ALLOCATION = 19_670_140
YEAR = [
    ("2025-01-31", 0, 19_670_140, 0, 0),
    ("2025-02-28", 1, 19_670_139, 0, 0),
    ("2025-03-31", 19_670_140, 0, 0, 0),
    ("2025-04-30", 19_670_141, 0, 1, 0),
    ("2025-05-31", 10_000_000, 9_670_140, 0, 1),
    ("2025-06-30", 20_000_000, 0, 329_860, 0),
    ("2025-07-31", 25_000_000, 0, 5_329_860, 329_860),
    ("2025-08-31", 19_670_139, 1, 0, 5_329_860),
    ("2025-09-30", 30_000_000, 0, 10_329_860, 0),
    ("2025-10-31", 0, 19_670_140, 0, 10_329_860),
    ("2025-11-30", 19_670_140, 0, 0, 0),
    ("2025-12-31", 19_670_150, 0, 10, 0),
]


async def test_f_a_year_of_billing_on_the_stepped_clock() -> None:
    """Twelve cycles over all month ends; each closes at 0 and matches the table."""
    start = unix_s("2025-01-31T09:00:00")
    options = Options(plan="enterprise-annual", faults=FaultRates(internal_retry=0))
    emulator = Emulator(options, clock=Clock(0.0, start_s=start))
    organization = emulator.organizations["default"]
    for _, charges, *_ in YEAR:
        organization.charge(charges, "GOOGLE", emulator.clock.now())
        ends = organization.account.cycle.ends_s
        await emulator.advance(ends - emulator.clock.now())
    closed = [cycle.as_json() for cycle in organization.account.closed]
    seen = [
        (c["startsAt"][:10], c["charges"], c["expiry"], c["overage"], c["overageBilledBefore"])
        for c in closed
    ]
    assert seen == YEAR
    assert all(cycle["closing"] == 0 and cycle["allocation"] == ALLOCATION for cycle in closed)
    assert organization.account.cycle.overage_billed_before == 10
    assert iso(organization.account.cycle.starts_s) == "2026-01-31T09:00:00.000Z"


async def test_f_a_year_of_billing_through_the_api(emulate: Any) -> None:
    """The same month ends with real tasks: one more search each month, everything else expires."""
    spec = OrganizationSpec(
        name="year",
        plan="lite",
        subscribed_at=datetime(2024, 12, 31, 12, tzinfo=UTC),
        keys=(KeySpec(key=LIVE_KEY),),
    )
    provider: Provider = await emulate(organizations=(spec,), requests_per_s=0)
    organization = provider.emulator.organizations["year"]
    for month in range(1, 13):
        for _ in range(month):
            await provider.create("GOOGLE", key=LIVE_KEY)
        await provider.step(organization.account.cycle.ends_s - provider.emulator.clock.now())
    cycles = (await provider.books("year"))["cycles"]
    expected = [
        "01-31",
        "02-28",
        "03-31",
        "04-30",
        "05-31",
        "06-30",
        "07-31",
        "08-31",
        "09-30",
        "10-31",
        "11-30",
    ]
    assert [cycle["endsAt"][5:10] for cycle in cycles[:11]] == expected
    assert [cycle["charges"] for cycle in cycles[:12]] == [3 * month for month in range(1, 13)]
    assert [cycle["expiry"] for cycle in cycles[:12]] == [37_500 - 3 * month for month in range(1, 13)]
