"""When the worker audits, and that two workers do not both."""

import asyncio
import json
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog

from app.config import Settings
from app.domain.accounting.balances import Balance
from app.domain.accounting.comparable import SNAPSHOTS_MAX, thinned
from app.ports import BalanceAnswer, BalanceEnd
from app.services.audit import Audits
from app.store import Store
from tests.clock import SteppedClock, unix_ms
from tests.integration.audit.auditing import HOUR_MS, MINUTE_MS, Account
from workers.duties.audits import audit_once, tell
from workers.signals import WorkerSignals

EVERY_MS = MINUTE_MS


@pytest.fixture
async def account(sqlite_store: Store, clock: SteppedClock) -> Account:
    clock.now_ms = unix_ms("2026-10-10T00:10:00")
    account = Account(sqlite_store, clock)
    await account.spend(5)
    return account


def audits(account: Account) -> Audits:
    return Audits(account.store, {"default": account}, every_ms=EVERY_MS, clock=account.clock)


async def looks(audits: Audits, account: Account, minutes: int) -> int:
    """How often the provider is asked within so many minutes of looking every twenty seconds."""
    before = account.asked
    for _ in range(minutes * 3):
        account.clock.advance(20_000)
        await audits.audit_due()
    return account.asked - before


async def test_as_long_as_credits_move_and_a_while_longer(account: Account) -> None:
    regular = audits(account)
    await regular.audit_due()
    assert account.asked == 1
    assert await looks(regular, account, 10) == 3, "one of the movement, and more after the lag"
    out = await account.send(credits=5)
    assert await looks(regular, account, 4) == 4, "something is out"
    await account.settle(out, 5)
    assert 2 <= await looks(regular, account, 10) <= 4


async def test_a_new_cycle_is_looked_at(account: Account) -> None:
    regular = audits(account)
    account.clock.now_ms = unix_ms("2026-11-09T20:00:00")
    await regular.audit_due()
    await looks(regular, account, 5)
    account.clock.now_ms = unix_ms("2026-11-10T00:00:30")
    assert await regular.audit_due() == []
    account.clock.now_ms = unix_ms("2026-11-10T00:01:30")
    assert len(await regular.audit_due()) == 1


async def test_others_are_looked_for_now_and_then(account: Account) -> None:
    regular = audits(account)
    await regular.audit_due()
    await looks(regular, account, 10)
    account.clock.advance(6 * HOUR_MS)
    assert len(await regular.audit_due()) == 1


async def test_an_edition_without_balances_is_not_asked_all_the_time(account: Account) -> None:
    async def nothing(now_ms: int) -> BalanceAnswer:
        account.asked += 1
        return BalanceAnswer(BalanceEnd.ABSENT)

    account.balance = nothing  # type: ignore[method-assign]
    regular = audits(account)
    assert await looks(regular, account, 10) <= 4


async def test_accounts_that_nobody_uses_or_knows_are_left_alone(account: Account) -> None:
    regular = Audits(account.store, {"other": account}, every_ms=EVERY_MS, clock=account.clock)
    assert await regular.audit_due() == []
    assert account.asked == 0


async def test_what_takes_long_is_done_less_often(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """The balance is taken every minute all the same, and at the end everything taken is judged."""
    monkeypatch.setattr("app.services.audit.RESTS", 20)
    regular, store = audits(account), account.store
    snapshots, judged = store.audits.snapshots, 0

    async def slow(*given: Any) -> Any:
        nonlocal judged
        judged += 1
        account.clock.advance(10_000)
        return await snapshots(*given)

    store.audits.snapshots = slow  # type: ignore[method-assign]
    out = await account.send(credits=5)
    asked = await looks(regular, account, 10)
    assert (asked >= 8, judged) == (True, 3)
    await account.settle(out, 5)
    await looks(regular, account, 20)
    assert judged > 3
    assert await looks(regular, account, 20) == 0


async def test_a_worker_keeps_all_that_is_known_of_an_account(account: Account) -> None:
    settings, signals, store = Settings(_env_file=None, sweep_lease_s=60.0), WorkerSignals(), account.store
    given = {"clock": account.clock, "settings": settings, "store": store, "signals": signals}
    context = cast(Any, SimpleNamespace(**given, providers={}))
    assert await audit_once(context, "one", audits(account), {}) == 1
    sheet = await store.account_sheets.sheet("default")
    assert sheet is not None
    known = json.loads(sheet.body)
    assert (known["plan"]["used"], known["plan"]["remaining"]) == (5, known["audit"]["books"])


async def test_one_worker_at_a_time(account: Account) -> None:
    settings = Settings(_env_file=None, sweep_lease_s=60.0)
    signals = WorkerSignals()
    context = cast(
        Any,
        SimpleNamespace(
            clock=account.clock, settings=settings, store=account.store, signals=signals, providers={}
        ),
    )
    inside, release = asyncio.Event(), asyncio.Event()
    ask = account.balance

    async def slow(now_ms: int) -> Any:
        inside.set()
        await release.wait()
        return await ask(now_ms)

    account.balance = slow  # type: ignore[method-assign]
    first = asyncio.create_task(audit_once(context, "one", audits(account), {}))
    await inside.wait()
    assert await audit_once(context, "two", audits(account), {}) == 0
    assert account.asked == 0
    release.set()
    assert await first == 1
    assert signals.registry.get_sample_value("tallyhook_drift_credits", {"account": "default"}) == 0
    await audit_once(context, "two", audits(account), {})
    assert account.asked == 1, "the first one goes on"
    await account.store.runs.release_lease("audit", "one")
    await audit_once(context, "two", audits(account), {})
    assert account.asked == 2


async def test_the_log_has_entries_and_drift(account: Account) -> None:
    with structlog.testing.capture_logs() as logs:
        tell(await account.audit())
        account.remaining += 50
        tell(await account.twice("2026-10-11T00:00:00"))
    assert [(line["event"], line.get("credits"), line.get("unexplained")) for line in logs] == [
        ("account_entry", 1_000, None),
        ("drift", None, 50),
    ]


def test_a_month_of_snapshots_is_thinned() -> None:
    taken = [
        Balance(n * MINUTE_MS, Decimal(n), Decimal(1 if n < 30_001 else 2), 10**12) for n in range(43_000)
    ]
    kept = thinned(taken)
    assert len(kept) <= SNAPSHOTS_MAX + 4
    assert {taken[0], taken[-1], taken[30_000], taken[30_001]} <= set(kept)
    assert kept == sorted(kept, key=lambda s: s.at_ms)
    assert thinned(taken[:7]) == taken[:7]
    assert thinned([]) == []
