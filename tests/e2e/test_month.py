"""A stepped month with three plans: our statement equals the emulator's to the credit, line by line (C-E.4,
C-F): a public plan to zero, an upgrade in mid-cycle, an enterprise contract in overage that others use too.
"""

from pathlib import Path
from typing import Any

import pytest

from app.domain.accounting.billing import EntryKind, Statement, cycles
from app.domain.time_format import iso_day
from app.provider.wire import read_answer
from app.services.audit import drift_since, statement
from app.store import Database, Store
from tests.books import check_books, read_books
from tests.clock import unix_ms
from tests.e2e.month import Month, stepped_months

OURS = ("public", "upgraded", "contract")
PRICES = {
    "public": {"GOOGLE": 2_611, "CHATGPT": 1_733},
    "upgraded": {"GOOGLE": 3_001, "CHATGPT": 5_003, "AIMODE": 4_007},
    "contract": {"GOOGLE": 99_991, "GEMINI": 70_009},
}
"""Deals of their own (C-E.5), so that a month's credits are spent by some dozens of tasks."""


async def subscribe(month: Month) -> None:
    await month.subscribe("public", "lite", PRICES["public"])
    await month.subscribe("upgraded", "hobby", PRICES["upgraded"])
    await month.subscribe("contract", "enterprise-annual", PRICES["contract"], slots=60)
    await month.subscribe("neighbour", "enterprise-annual", {}, slots=20, sharesPlanOf="contract")
    month.begin(*OURS)


async def live_through_it(month: Month) -> None:
    """Two months, of which the second is a short one."""
    await month.audit()
    await month.load("public", ("GOOGLE", 9), ("CHATGPT", 3))
    await month.load("upgraded", ("GOOGLE", 4), ("CHATGPT", 3), pages=2)
    await month.load("contract", ("GOOGLE", 60), ("GEMINI", 5))
    await month.spend_elsewhere("neighbour", 7)
    await work_until(month, 0.3)
    await month.ask("upgraded", "chatgpt", 0.4)
    await month.ask("contract", "gemini", 0.5)
    # More than is left: some of it overdraws the balance, some fails at pick-up, and the rest is refused.
    await month.to(3)
    await month.load("public", ("GOOGLE", 14))
    await month.load("upgraded", ("AIMODE", 8), include={"expandProducts": True})
    await work_until(month, 12)
    await month.load("public", ("CHATGPT", 3))
    await month.control("organizations/upgraded", {"plan": "growth"})
    await month.load("upgraded", ("CHATGPT", 6), state="CA")
    await month.load("contract", ("GOOGLE", 170))
    await work_until(month, 27)
    await month.spend_elsewhere("neighbour", 2)
    await work_until(month, 31.01)
    await month.audit()
    await month.load("contract", ("GEMINI", 2))
    await month.load("upgraded", ("GOOGLE", 1))
    await work_until(month, 59.01)
    await month.audit()


async def work_until(month: Month, day: float) -> None:
    """Send what is due, and again what was refused; wait for it, audit, and go on to a day."""
    for _ in range(2):
        for account in OURS:
            await month.send(account)
        await month.later(1_800_000)
    await month.audit()
    await month.to(day)


def ours_of(books: Statement) -> dict[str, Any]:
    """Our statement in the emulator's terms."""
    return {
        "startsAt": books.cycle.starts_ms,
        "endsAt": books.cycle.ends_ms,
        "grants": [
            (iso_day(e.at_ms), e.credits)
            for e in books.entries
            if e.kind in (EntryKind.ALLOCATION, EntryKind.ADJUSTMENT)
        ],
        "lines": [(p.day, p.task_type, p.sync, p.count, p.credits) for p in books.posts],
        "foreign": books.external_usage,
        "expiry": books.expired,
        "overage": books.overage,
        "closing": books.closing,
    }


def theirs_of(cycle: dict[str, Any], name: str) -> dict[str, Any]:
    """The emulator's statement of a cycle, seen from one organization."""
    mine = [line for line in cycle["lines"] if line["organization"] == name]
    return {
        "startsAt": unix_ms(cycle["startsAt"]),
        "endsAt": unix_ms(cycle["endsAt"]),
        "grants": [(grant["at"][:10], grant["credits"]) for grant in cycle["grants"]],
        "lines": [(x["day"], x["taskType"], x["sync"], x["count"], x["credits"]) for x in mine],
        "foreign": sum(x["credits"] for x in cycle["lines"]) - sum(x["credits"] for x in mine),
        "expiry": cycle["expiry"],
        "overage": cycle["overage"],
        "closing": cycle["closing"],
    }


async def test_our_statement_is_the_providers(sqlite_store: Store, tmp_path: Path) -> None:
    await compare_two_months(sqlite_store, tmp_path)


@pytest.mark.slow
async def test_our_statement_is_the_providers_on_postgres(postgres_url: str, tmp_path: Path) -> None:
    store = Store(Database(postgres_url), read_answer)
    try:
        await compare_two_months(store, tmp_path)
    finally:
        await store.close()


async def compare_two_months(store: Store, folder: Path) -> None:
    """Live through them, then lay both statements side by side."""
    async with stepped_months(folder, store) as month:
        await subscribe(month)
        await live_through_it(month)
        check_books(await read_books(store))
        for name in OURS:
            theirs = (await month.control(f"books?organization={name}&tasks=0"))["cycles"]
            known = cycles(await store.audits.seen_resets(name))
            assert len(known) == len(theirs) == 3
            for cycle, reported in zip(known, theirs, strict=True):
                books = await statement(store, name, cycle)
                assert ours_of(books) == theirs_of(reported, name), name
            drift = await drift_since(store, name, 0, month.clock())
            assert drift.explained, (name, drift.unexplained)
            check_scene(name, *theirs[:2])


def check_scene(name: str, first: dict[str, Any], second: dict[str, Any]) -> None:
    """The month was what it should be a test of."""
    if name == "public":
        assert first["overage"] > 0, "the balance was overdrawn, and then nothing more was taken"
        assert sum(line["count"] for line in first["lines"]) < 29
        assert second["charges"] > 0, "what was refused went on with the new cycle"
    elif name == "upgraded":
        assert [grant["what"] for grant in first["grants"]] == ["plan hobby", "upgrade hobby to growth"]
        assert {line["sync"] for line in first["lines"]} == {True, False}
        assert first["expiry"] > 0
    else:
        assert first["overage"] > 1_000_000
        assert {line["organization"] for line in first["lines"]} == {"contract", "neighbour"}
