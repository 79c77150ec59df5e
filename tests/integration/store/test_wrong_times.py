"""Moments that a wrong clock wrote, and the database's own time."""

import time
from decimal import Decimal

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.cli.runs.choose import choose_run
from app.domain.accounting.balances import Balance
from app.domain.notices.notice import Notice, NoticeKind
from app.domain.task import TaskSpec
from app.store import Store
from app.store.tables import SLACK_MS, claims, deliveries, notices, schedules, tasks
from app.store.write.future_times import Longest
from tests.integration.store.scenes import FIVE, NOW, claim, receive, report_on, start_run, submit_all

HOUR_MS = 3_600_000
AHEAD_MS = 25 * HOUR_MS
LONGEST = Longest(claim=60_000, poll=600_000, ask=24 * HOUR_MS, delivery=10_000, notice=12 * HOUR_MS)


async def put(store: Store, table: sa.Table, **values: int) -> None:
    async def work(connection: AsyncConnection) -> None:
        await connection.execute(sa.update(table).values(**values))

    await store.db.write(work)


async def read(store: Store, column: sa.Column[int]) -> set[int]:
    async def work(connection: AsyncConnection) -> set[int]:
        return set(await connection.scalars(sa.select(column)))

    return await store.db.read(work)


async def test_f18_polls_of_a_clock_that_was_ahead_are_due_again(store: Store) -> None:
    await start_run(store, 2)
    await submit_all(store)
    await put(store, tasks, next_poll_at_ms=NOW + LONGEST.poll)
    assert await store.future_times.bring_back_times(NOW, LONGEST) == 0, "as far as it may be"
    await put(store, tasks, next_poll_at_ms=NOW + AHEAD_MS)
    assert await store.future_times.bring_back_times(NOW, LONGEST) == 2
    assert len(await store.polls.claim_due_polls(limit=9, now_ms=NOW, interval_ms=1)) == 2


async def test_f18_a_call_that_is_under_way_keeps_its_time(store: Store) -> None:
    await start_run(store, 1)
    await submit_all(store)
    await put(store, tasks, next_poll_at_ms=NOW + 24 * HOUR_MS)

    async def ask(connection: AsyncConnection) -> None:
        await connection.execute(sa.text("UPDATE runs SET source = 'ask'"))

    await store.db.write(ask)
    assert await store.future_times.bring_back_times(NOW, LONGEST) == 0


async def test_f18_claims_deliveries_notices_and_slots_come_back(store: Store) -> None:
    await start_run(store, 3)
    claimed = await claim(store)
    await receive(store, report_on(claimed[0]))
    notice = Notice(NoticeKind.TEST, "default", "one", "A test.", NOW)
    await store.notices.add_notices([notice], NOW)
    await store.schedules.add_schedule(
        name="daily", source="a", options="{}", every_ms=HOUR_MS, next_at_ms=NOW + AHEAD_MS + 5, now_ms=NOW
    )
    await put(store, claims, lease_until_ms=NOW + AHEAD_MS)
    await put(store, deliveries, due_at_ms=NOW + AHEAD_MS)
    await put(store, notices, due_at_ms=NOW + AHEAD_MS)
    assert await store.future_times.bring_back_times(NOW, LONGEST) == 4
    assert await store.submissions.release_overdue_claims(NOW) == 3
    assert len(await store.inbox.claim_overdue_deliveries(limit=9, now_ms=NOW, next_due_at_ms=NOW + 1)) == 1
    assert len(await store.notices.claim_due_notices(limit=9, now_ms=NOW, lease_until_ms=NOW + 1)) == 1
    [slot] = await read(store, schedules.c.next_at_ms)
    assert NOW < slot <= NOW + HOUR_MS and (slot - NOW - 5) % HOUR_MS == 0, "on the same line"
    assert await store.future_times.bring_back_times(NOW, LONGEST) == 0


async def test_f18_a_task_that_was_put_off_too_far_is_sent(store: Store) -> None:
    await start_run(store, 2)
    await put(store, tasks, not_before_ms=NOW + HOUR_MS)
    assert await claim(store) == []
    assert await store.queries.accounts_with_due(NOW) == []
    await put(store, tasks, not_before_ms=NOW + AHEAD_MS)
    assert await store.queries.accounts_with_due(NOW) == ["default"]
    assert len(await claim(store)) == 2


@pytest.mark.parametrize(
    ("ahead_ms", "taken"), [(60_000, False), (60_000 + SLACK_MS, False), (AHEAD_MS, True)]
)
async def test_f18_a_lease_that_lies_too_far_ahead_holds_nobody_up(
    store: Store, ahead_ms: int, taken: bool
) -> None:
    assert await store.runs.acquire_lease("sweep", "ahead", until_ms=NOW + ahead_ms, now_ms=NOW)
    assert await store.runs.acquire_lease("sweep", "me", until_ms=NOW + 60_000, now_ms=NOW) is taken


async def test_f18_a_balance_that_is_dated_ahead_stands_before_no_other(store: Store) -> None:
    """It would be the last one for as long as the clock was ahead, and its age be no age."""
    for at_ms, credits in ((NOW - 5_000, 1), (NOW + AHEAD_MS, 7_200), (NOW - 1_000, 3)):
        await store.accounts.store_balance("default", Balance(at_ms, Decimal(credits), None, None))
    last = await store.accounts.last_balance("default", NOW)
    returned = await store.audits.last_snapshot("default", NOW)
    assert last is not None and returned is not None
    assert (last.remaining, returned.remaining) == (3, 3)
    picture = await store.forecasts.forecast_input("default", NOW)
    assert picture.balances[-1].remaining == 3
    later = await store.accounts.last_balance("default", NOW + AHEAD_MS)
    assert later is not None and later.remaining == 7_200, "what is no longer ahead"


async def test_f18_a_run_that_is_dated_ahead_is_not_the_latest(store: Store) -> None:
    """`tallyhook cancel latest` would take back another run than the one that was just submitted."""
    now = await store.health.database_ms()
    for name, at_ms in (("first", now - 5_000), ("ahead", now + AHEAD_MS), ("last", now)):
        run_id = await store.runs.create_run(name=name, source="a", budget=None, now_ms=at_ms)
        await store.runs.add_tasks(run_id, [(TaskSpec(1, "GROK", {"prompt": "x"}), FIVE)], at_ms)
        await store.runs.start_run_if_loading(run_id, sha256="", bad_lines=0)
    assert [run.name for run in await store.queries.list_runs()] == ["last", "first", "ahead"]
    assert (await choose_run(store, "latest")).name == "last"
    assert [run.name for run in await store.queries.list_runs(1)] == ["last"]


async def test_f18_the_database_has_its_time_and_who_worked_last(store: Store) -> None:
    assert abs(await store.health.database_ms() - time.time() * 1000) < 60_000
    assert (await store.health.last_seen("worker")).seen_ms is None
    one, other = "01a0f4c2-c400-7000-8000-000000000001", "01a0f4c2-c400-7000-8000-000000000002"
    returned = [await store.health.beat(which, "worker") for which in (one, other, one)]
    seen = await store.health.last_seen("worker")
    assert seen.seen_ms == returned[-1] <= seen.now_ms
