"""What an audit appends to the books of an account, on both databases."""

import asyncio
from decimal import Decimal

import pytest

from app.domain.accounting.billing import Statement, cycles
from app.services.audit import audit, statement
from app.store import Store
from tests.clock import SteppedClock, unix_ms
from tests.integration.audit.auditing import DAY_MS, HOUR_MS, MINUTE_MS, Account

START = ("allocation", Decimal(1_000), "cycle_start")


@pytest.fixture
def account(store: Store, clock: SteppedClock) -> Account:
    clock.now_ms = unix_ms("2026-10-10T00:10:00")
    return Account(store, clock)


async def test_a_cycle_begins_with_its_allocation(account: Account) -> None:
    found = await account.twice("2026-10-10T00:10:00")
    assert await account.entries() == [START]
    assert found.position is not None
    assert found.position.statement.remaining == 1_000
    assert (found.drift.unexplained, found.drift.external_highest) == (0, 0)
    assert account.asked == 2


async def test_spending_of_ours_is_no_external_usage(account: Account) -> None:
    await account.audit()
    await account.spend(5)
    await account.spend(7, "GOOGLE", by="sync")
    found = await account.twice("2026-10-10T02:00:00")
    assert await account.entries() == [START]
    assert found.drift.explained
    books = (found.position or pytest.fail()).statement
    assert [(p.day, p.task_type, p.sync, p.count, p.credits) for p in books.posts] == [
        ("2026-10-10", "CHATGPT", False, 1, Decimal(5)),
        ("2026-10-10", "GOOGLE", True, 1, Decimal(7)),
    ]
    assert (books.used, books.remaining) == (12, 988)


async def test_spending_of_others_is_booked_once_it_is_certain(account: Account) -> None:
    await account.audit()
    account.remaining -= 100
    task_id = await account.send(credits=40)
    await account.twice("2026-10-10T02:00:00")
    # 40 of the 100 may be the task that is still out.
    assert await account.entries() == [START, ("foreign", Decimal(60), "other_users")]
    account.clock.advance(MINUTE_MS)
    await account.settle(task_id, 5)
    await account.twice("2026-10-10T03:00:00")
    assert (await account.entries())[2:] == [("foreign", Decimal(35), "other_users")]
    books = (await account.audit()).position or pytest.fail()
    assert (books.statement.external_usage, books.statement.remaining) == (95, 900)


async def test_what_was_taken_for_external_usage_is_taken_back(account: Account) -> None:
    """A task may cost more than it said; until its report, the rest looks like somebody else's."""
    await account.audit()
    task_id = await account.send(credits=5)
    account.remaining -= 9
    await account.twice("2026-10-10T02:00:00")
    assert (await account.entries())[1:] == [("foreign", Decimal(4), "other_users")]
    await account.settle(task_id, 9)
    await account.twice("2026-10-10T03:00:00")
    assert (await account.entries())[2:] == [("foreign", Decimal(-4), "other_users")]


async def test_what_a_restored_run_sent_before_the_backup_is_no_external_usage(account: Account) -> None:
    """The provider charged it before we, for all we know, sent it (W19)."""
    account.run_id = await account.store.runs.create_run(
        name="r", source="-", budget=None, now_ms=account.clock()
    )
    await account.store.runs.start_run_if_loading(account.run_id, sha256="", bad_lines=0)
    await account.audit()
    account.remaining -= 40
    await account.twice("2026-10-10T02:00:00")
    assert (await account.entries())[1:] == [("foreign", Decimal(40), "other_users")], "as far as we know"
    assert await account.store.runs.resume_restored_run(account.run_id)
    account.clock.advance(HOUR_MS)
    delivered, lost = [await account.send(credits=20) for _ in range(2)]
    await account.settle(delivered, 20)
    found = await account.twice("2026-10-10T04:00:00")
    assert (await account.entries())[2:] == [("foreign", Decimal(-20), "other_users")]
    assert found.drift.explained
    await account.settle(lost, 20)
    assert (await account.twice("2026-10-10T05:00:00")).drift.explained
    assert (await account.entries())[3:] == [("foreign", Decimal(-20), "other_users")]


async def test_a_run_under_way_does_not_move_what_is_booked(account: Account) -> None:
    await account.audit()
    account.remaining -= 50
    await account.twice("2026-10-10T02:00:00")
    for _ in range(3):
        await account.send(credits=30)
        await account.twice(f"2026-10-10T0{3 + _}:00:00")
    assert await account.entries() == [START, ("foreign", Decimal(50), "other_users")]


async def test_an_upgrade_is_an_adjustment(account: Account) -> None:
    """New allocation less the used is available (C-F)."""
    await account.audit()
    await account.spend(300)
    await account.twice("2026-10-12T00:00:00")
    account.per_cycle, account.remaining = Decimal(5_000), Decimal(5_000) - 300
    found = await account.twice("2026-10-20T00:00:00")
    assert await account.entries() == [START, ("adjustment", Decimal(4_000), "plan_changed")]
    assert found.drift.explained
    assert (found.position or pytest.fail()).statement.remaining == 4_700


async def test_a_balance_that_lags_behind_an_upgrade_is_not_believed(account: Account) -> None:
    await account.twice("2026-10-12T00:00:00")
    account.per_cycle = Decimal(5_000)
    await account.audit("2026-10-12T00:30:00")
    assert (await account.entries())[1:] == [("adjustment", Decimal(4_000), "plan_changed")]
    account.remaining = Decimal(5_000)
    await account.twice("2026-10-12T00:31:30")
    assert len(await account.entries()) == 2


async def test_what_is_left_at_the_end_expires(account: Account) -> None:
    await account.audit()
    await account.spend(300)
    await account.twice("2026-11-09T23:00:00")
    account.remaining, account.resets_at_ms = Decimal(1_000), unix_ms("2026-12-10")
    found = await account.twice("2026-11-10T00:05:00")
    # The old cycle is closed by the second audit, when no clock can be in doubt about its end any more.
    assert sorted(await account.entries()) == [START, START, ("expiry", Decimal(700), "cycle_end")]
    assert found.drift.explained
    assert [(r.allocation, r.expired_lowest, r.expired_highest) for r in found.drift.resets] == [
        (1_000, 700, 700)
    ]
    assert (found.position or pytest.fail()).statement.remaining == 1_000


async def test_a_cycle_stays_open_while_its_work_does(account: Account) -> None:
    await account.audit()
    account.clock.now_ms = unix_ms("2026-11-09T23:59:00")
    task_id = await account.send(credits=5)
    account.resets_at_ms = unix_ms("2026-12-10")
    await account.twice("2026-11-10T00:05:00")
    assert [kind for kind, _, _ in await account.entries()] == ["allocation", "allocation"]
    await account.settle(task_id, 5)
    account.remaining -= 5
    await account.twice("2026-11-10T00:15:00")
    assert [kind for kind, _, _ in await account.entries()][2:] == ["expiry"]


async def test_a_report_later_than_that_corrects_the_expiry(account: Account) -> None:
    await account.audit()
    account.clock.now_ms = unix_ms("2026-11-09T12:00:00")
    task_id = await account.send(credits=5)
    account.resets_at_ms = unix_ms("2026-12-10")
    await account.twice("2026-11-11T13:00:00")
    assert ("expiry", Decimal(1_000), "cycle_end") in await account.entries()
    # Its report was taken before the end, and told no charge; asked again, the provider tells it now.
    await account.settle(task_id, 5, reported_ms=unix_ms("2026-11-09T12:00:30"))
    await account.twice("2026-11-11T14:00:00")
    assert (await account.entries())[-1] == ("adjustment", Decimal(5), "late_report")
    books = await _first_statement(account)
    assert (books.used, books.expired, books.closing) == (5, 995, 0)


async def test_overage_is_what_was_used_beyond_it(account: Account) -> None:
    await account.audit()
    await account.spend(1_200)
    await account.twice("2026-11-09T23:00:00")
    account.remaining, account.resets_at_ms = Decimal(1_000), unix_ms("2026-12-10")
    await account.twice("2026-11-10T00:05:00")
    books = await _first_statement(account)
    assert (books.closed, books.remaining, books.expired, books.overage, books.closing) == (
        True,
        -200,
        0,
        200,
        0,
    )


async def test_books_that_begin_in_the_middle_of_a_cycle(account: Account) -> None:
    account.remaining = Decimal(640)
    await account.twice("2026-10-20T00:00:00")
    assert await account.entries() == [START, ("foreign", Decimal(360), "before_the_books")]
    account.remaining -= 10
    await account.twice("2026-10-21T00:00:00")
    assert (await account.entries())[2:] == [("foreign", Decimal(10), "other_users")]


async def test_a_first_balance_above_the_allocation(account: Account) -> None:
    """Credits that were bought before there were books (C-B43)."""
    account.remaining = Decimal(1_500)
    found = await account.twice("2026-10-20T00:00:00")
    assert await account.entries() == [START, ("adjustment", Decimal(500), "before_the_books")]
    assert (found.position or pytest.fail()).statement.remaining == 1_500


async def test_credits_that_come_back_are_unexplained_and_not_booked(account: Account) -> None:
    await account.audit()
    await account.spend(300)
    await account.twice("2026-10-12T00:00:00")
    account.remaining += 20
    found = await account.twice("2026-10-13T00:00:00")
    assert found.drift.unexplained == 20
    assert await account.entries() == [START]


async def test_a_month_that_nobody_looked_at(account: Account) -> None:
    await account.twice("2026-10-12T00:00:00")
    account.resets_at_ms = unix_ms("2027-01-10")
    await account.twice("2026-12-20T00:00:00")
    kinds = [kind for kind, _, _ in await account.entries()]
    assert (kinds.count("allocation"), kinds.count("expiry")) == (3, 2)


async def test_without_a_subscription_there_is_no_cycle(account: Account) -> None:
    account.per_cycle = account.resets_at_ms = None
    await account.audit()
    await account.spend(5)
    found = await account.twice("2026-10-12T00:00:00")
    assert (await account.entries(), found.position) == ([], None)
    assert found.drift.explained


async def test_any_number_of_audits_write_once(account: Account) -> None:
    await account.audit()
    account.remaining -= 100
    await account.audit("2026-10-11T00:00:00")
    account.clock.advance(2 * MINUTE_MS)
    account.per_cycle = Decimal(1_000)
    now = account.clock()
    await asyncio.gather(*(audit(account.store, "default", account, now_ms=now) for _ in range(5)))
    assert await account.entries() == [START, ("foreign", Decimal(100), "other_users")]


async def test_what_is_out_is_listed_apart(account: Account) -> None:
    await account.audit()
    await account.send(credits=5)
    lost = await account.send(credits=7)
    await account.store.polls.expire_if_unreported([(lost, 1)], code="lost", reason="x")
    found = await account.audit("2026-10-10T01:00:00")
    exposure = (found.position or pytest.fail()).exposure
    assert (exposure.held_tasks, exposure.held, exposure.unknown_tasks, exposure.unknown) == (1, 5, 1, 7)
    assert found.drift.exposure == 12
    assert (found.position or pytest.fail()).available == 988


async def test_product_clusters_may_come_on_top(account: Account) -> None:
    await account.send("AIMODE", 4)
    (open_one,) = await account.store.charges.open_movements("default", account.clock())
    assert open_one.credits == 10


async def test_burn_by_engine_and_country(account: Account) -> None:
    await account.spend(5)
    await account.spend(7)
    await account.spend(3, "GOOGLE")
    since = account.clock() - HOUR_MS
    assert await account.store.charges.burn("default", since) == [
        ("CHATGPT", "DE", 2, Decimal(12)),
        ("GOOGLE", "DE", 1, Decimal(3)),
    ]
    assert await account.store.charges.burn("default", account.clock() + DAY_MS) == []
    assert await account.store.charges.burn("other", since) == []


async def test_old_entries_are_passed_over(account: Account) -> None:
    """Posts are looked for from the first id of a time on."""
    for _ in range(20):
        await account.spend(5)
        account.clock.advance(HOUR_MS)
    found = await account.store.charges.post_movements(
        "default", account.clock() - 150 * MINUTE_MS, account.clock()
    )
    assert [m.credits for m in found] == [5, 5]
    assert all(m.to_ms - m.from_ms == 10_000 for m in found)


async def _first_statement(account: Account) -> Statement:
    known = cycles(await account.store.audits.seen_resets("default"))
    return await statement(account.store, "default", known[0])


async def test_a_correction_made_by_hand_explains_what_came_back(account: Account) -> None:
    await account.audit()
    await account.spend(300)
    await account.twice("2026-10-12T00:00:00")
    account.remaining += 20
    assert (await account.twice("2026-10-13T00:00:00")).drift.unexplained == 20
    await account.correct(20, "+20 credits: agreed with support")
    found = await account.twice("2026-10-16T00:00:00")
    assert found.drift.explained
    books = (found.position or pytest.fail()).statement
    assert (books.adjusted, books.remaining, books.external_usage) == (20, 720, 0)


@pytest.mark.parametrize("charged_before", [True, False])
async def test_work_on_the_edge_of_a_cycle_is_where_the_balance_says(
    account: Account, charged_before: bool
) -> None:
    """Sent before the reset, reported after it: charged on one side or the other."""
    await account.audit()
    account.clock.now_ms = unix_ms("2026-11-09T23:59:30")
    task_id = await account.send(credits=5)
    account.resets_at_ms = unix_ms("2026-12-10")
    account.remaining = Decimal(1_000) if charged_before else Decimal(995)
    account.clock.now_ms = unix_ms("2026-11-10T00:00:40")
    await account.settle(task_id, 5)
    await account.audit()
    await account.twice("2026-11-10T00:20:00")
    await account.twice("2026-11-10T00:40:00")
    moved = [e for e in await account.entries() if e[2] == "charged_before_reset"]
    assert [(kind, credits) for kind, credits, _ in moved] == (
        [("adjustment", 5), ("adjustment", -5)] if charged_before else []
    )
    first = await _first_statement(account)
    assert (first.closed, first.expired, first.closing) == (True, 995 if charged_before else 1_000, 0)
    found = await account.audit()
    assert (found.position or pytest.fail()).statement.remaining == account.remaining
    assert found.drift.explained


async def test_a_balance_of_0_hides_what_is_overdrawn(account: Account) -> None:
    """Public plans never show less (C-L8): credits that should have gone may well have."""
    await account.audit()
    account.clock.advance(10 * MINUTE_MS)
    await account.spend(1_200)
    account.remaining = Decimal(0)
    found = await account.twice("2026-10-12T00:00:00")
    assert (found.drift.explained, await account.entries()) == (True, [START])
    books = (found.position or pytest.fail()).statement
    assert (books.overage, books.closing) == (200, 0)
