"""The state of the whole: what each gauge says, that one worker says it, and that reading it stays cheap."""

from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.domain.accounting.balances import Balance
from app.domain.delivery import RawDelivery
from app.domain.settlement import Source
from app.domain.state_gauges import STATE_GAUGES, Reading
from app.domain.task import new_id
from app.limits import DAY_S, Limits
from app.services.forecast import look_ahead
from app.services.state import forecast_readings, read_state
from app.signals.board import Board
from app.store import Store
from app.store.read import state as state_reads
from benchmarks.old_tasks import add_history
from tests.integration.store.scenes import execute, report_on, rows, settle_all, start_run, submit_all
from tests.integration.store.test_growth import scans_of
from tests.integration.store.test_run_plans import most_read
from workers.duties.state import StateReader
from workers.signals import WorkerSignals

HOUR_MS = 3_600_000
ACCOUNT = "default"


async def read(store: Store, *, has_archive: bool = False) -> dict[tuple[str, ...], float]:
    """(gauge, labels …) -> value."""
    found = await read_state(store, [ACCOUNT], Limits(), has_archive=has_archive)
    return {(each.name, *each.labels.values()): each.value for each in found}


def delivery(at_ms: int, source: Source = Source.DELIVERY) -> RawDelivery:
    return RawDelivery(new_id(at_ms), source, at_ms, b"{}", account=ACCOUNT)


async def test_nothing_is_old_where_nothing_waits(store: Store) -> None:
    state = await read(store)
    assert state["inbox_oldest_seconds",] == state["poll_overdue_seconds",] == 0
    assert state["unreported_retention_ratio", ACCOUNT] == state["pending_oldest_seconds", ACCOUNT] == 0
    assert ("last_delivery_seconds",) not in state, "nobody knows"


@pytest.mark.parametrize("looked_through", [1_000, 1])
async def test_each_age_is_its_oldest_rows(
    looked_through: int, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_reads, "WAITING_MAX", looked_through)
    now = await store.health.database_ms()
    await start_run(store, 6, now_ms=now - 8 * HOUR_MS)
    sent = await submit_all(store, now_ms=now - 6 * HOUR_MS)
    await start_run(store, 3, now_ms=now - HOUR_MS)
    old, new = delivery(now - 2 * HOUR_MS), delivery(now - HOUR_MS)
    await store.inbox.store_deliveries([old, new], due_at_ms=now)
    # Held up again and again: it is due behind the other.
    await execute(
        store, f"UPDATE deliveries SET due_at_ms = {now + 99_000} WHERE received_at_ms = {old.received_at_ms}"
    )
    await execute(
        store,
        f"UPDATE tasks SET next_poll_at_ms = {now + HOUR_MS} WHERE next_poll_at_ms IS NOT NULL",
        f"UPDATE tasks SET next_poll_at_ms = {now - 3 * HOUR_MS} WHERE ordinal = 4",
    )
    state = await read(store)

    def hours(*key: str) -> Any:
        return pytest.approx(state[key] / 3_600, abs=0.1)  # a busy machine may need minutes

    assert hours("inbox_oldest_seconds") == 2
    assert hours("last_delivery_seconds") == 1
    assert hours("poll_overdue_seconds") == 3
    assert hours("unreported_oldest_seconds", ACCOUNT) == 6
    assert hours("pending_oldest_seconds", ACCOUNT) == 1
    assert state["unreported_retention_ratio", ACCOUNT] == pytest.approx(0.25, abs=0.01)
    assert state["tasks", ACCOUNT, "submitted"] == 6
    assert state["tasks", ACCOUNT, "pending"] == 3
    assert state["runs", ACCOUNT, "running"] == 2
    assert state["held_credits", ACCOUNT] == float(sum(task.credits_estimate for task in sent))
    # A task of a lower priority that was sent before.
    await execute(
        store,
        f"UPDATE tasks SET priority = 1, first_sent_at_ms = {now - 18 * HOUR_MS} WHERE ordinal = 6",
        "UPDATE tasks SET priority = 9 WHERE ordinal < 6",
    )
    assert (await read(store))["unreported_retention_ratio", ACCOUNT] == pytest.approx(0.75, abs=0.01)


async def test_polls_are_no_deliveries(store: Store) -> None:
    now = await store.health.database_ms()
    await store.inbox.store_deliveries([delivery(now - 120 * HOUR_MS)], due_at_ms=now)
    polls = [delivery(now - HOUR_MS, Source.POLL) for _ in range(150)]
    await store.inbox.store_deliveries(polls, due_at_ms=now)
    assert (await read(store))["last_delivery_seconds",] / 3_600 == pytest.approx(120, abs=0.1)
    more = [delivery(now - HOUR_MS, Source.POLL) for _ in range(150)]
    await store.inbox.store_deliveries(more, due_at_ms=now)
    assert (await read(store))["last_delivery_seconds",] / 3_600 == pytest.approx(1, abs=0.1), "at least"


async def test_credits_of_the_account_and_what_nobody_charged(store: Store) -> None:
    now = await store.health.database_ms()
    await start_run(store, 3, now_ms=now)
    tasks = await submit_all(store, now_ms=now)
    await settle_all(store, report_on(tasks[0], None), report_on(tasks[1]), now_ms=now)
    balance = Balance(now - 60_000, Decimal("123.5"), Decimal(1_000), now + 20 * 24 * HOUR_MS)
    await store.accounts.store_balance(ACCOUNT, balance)
    await store.rollup.fold_rollup()
    state = await read(store)
    assert state["balance_credits", ACCOUNT] == 123.5
    assert 60 <= state["balance_age_seconds", ACCOUNT] < 360
    assert state["unknown_credits", ACCOUNT] == 5
    assert state["held_credits", ACCOUNT] == 5
    seen = await look_ahead(store, ACCOUNT, provider=None, rate_per_s=500, now_ms=now)
    assert {each.name for each in forecast_readings(ACCOUNT, seen)} >= {"burn_credits_per_hour"}


async def test_days_without_an_archive_or_a_partition_are_seen(store: Store) -> None:
    now = await store.health.database_ms()
    await store.inbox.store_deliveries([delivery(now - 5 * 24 * HOUR_MS)], due_at_ms=now)
    lag_s = (await read(store, has_archive=True))["archive_lag_seconds",]
    assert 2 * DAY_S <= lag_s <= 3 * DAY_S, "two days after its end it was due"
    ahead = (await read(store)).get(("partition_days_ahead",))
    assert ahead is None if store.db.is_sqlite else ahead is not None


async def test_when_the_provider_last_accepted_something(store: Store) -> None:
    """By account; at most, where of the newest sends none was accepted."""
    assert (await store.state.accepted_ms())[ACCOUNT] == 0, "nothing was ever sent"
    await start_run(store, 2)
    await submit_all(store)
    await execute(store, "UPDATE submissions SET at_ms = 5000 + id")
    (newest,) = await rows(store, "SELECT max(at_ms) AS at_ms FROM submissions")
    accepted = await store.state.accepted_ms()
    assert (accepted[ACCOUNT], accepted["eu"]) == (newest["at_ms"], 0)
    await execute(store, "UPDATE submissions SET answer = 'unavailable'")
    assert (await store.state.accepted_ms())[ACCOUNT] == 0, "these were all"


async def test_deliveries_that_were_lost_lately(store: Store) -> None:
    insert = "INSERT INTO findings (at_ms, verdict, detail) VALUES"
    await execute(
        store, f"{insert} (5000, 'lost_after_ack', ''), (9000, 'lost_after_ack', ''), (9000, 'unmatched', '')"
    )
    assert await store.state.lost_since(6_000) == 1
    assert await store.state.lost_since(1_000) == 2


async def test_one_worker_shows_it_and_another_one_after_it(sqlite_store: Store) -> None:
    def reader() -> tuple[StateReader, WorkerSignals]:
        signals = WorkerSignals()
        settings = SimpleNamespace(archive_url="", state_every_s=5.0, retention_s=DAY_S, archive_after_days=2)
        context: Any = SimpleNamespace(
            store=sqlite_store,
            signals=signals,
            settings=settings,
            providers={ACCOUNT: None},
            clock=lambda: 1_800_000_000_000,
        )
        return StateReader(cast(Any, context)), signals

    def shown(signals: WorkerSignals) -> float | None:
        return signals.registry.get_sample_value("tallyhook_inbox_oldest_seconds")

    (one, its), (other, others) = reader(), reader()
    await one.turn()
    await other.turn()
    assert (shown(its), shown(others)) == (0, None)
    await one.leave()
    await other.turn()
    assert (shown(its), shown(others)) == (None, 0)


def test_readings_that_are_not_renewed_are_shown_no_more() -> None:
    at_s = [0.0]
    board = Board(monotonic=lambda: at_s[0])

    def shown() -> list[tuple[str, float]]:
        return [(s.name, s.value) for family in board.collect() for s in family.samples]

    board.put("state", [Reading("inbox_oldest_seconds", 3.0)], for_s=10)
    at_s[0] = 9
    assert shown() == [("tallyhook_inbox_oldest_seconds", 3.0)]
    board.keep("state", for_s=10)
    at_s[0] = 18
    assert shown()
    at_s[0] = 19
    assert shown() == []
    assert {family.name for family in board.collect()} == {f"tallyhook_{name}" for name in STATE_GAUGES}


OLD_TASKS, OLD_RUNS = 3_000, 8


async def _work(store: Store) -> None:
    """Some of all that is read, in the midst of work."""
    now = await store.health.database_ms()
    await start_run(store, 30, now_ms=now)
    tasks = await submit_all(store, now_ms=now)
    await settle_all(store, *(report_on(task) for task in tasks[:20]), now_ms=now)
    await store.inbox.store_deliveries([delivery(now)], due_at_ms=now)


async def test_a_look_reads_no_history(own_store: Store) -> None:
    await add_history(own_store, tasks=OLD_TASKS, runs=OLD_RUNS, paused=100)
    await _work(own_store)
    for _ in range(2):
        found = await most_read(own_store, lambda: read(own_store, has_archive=True), rows_max=400)
        assert found == {}
        await execute(own_store, "ANALYZE")


async def test_a_look_scans_nothing_on_sqlite(sqlite_store: Store) -> None:
    await add_history(sqlite_store, tasks=OLD_TASKS // 10, runs=OLD_RUNS, paused=20)
    await _work(sqlite_store)
    scans = await scans_of(sqlite_store, lambda: read(sqlite_store, has_archive=True))
    # An index from one of its ends, as far as its LIMIT; or one of few rows.
    ends = "SCAN deliveries USING INDEX"
    small = (
        "-",
        ends,
        "SCAN leases",
        "SCAN processes",
        "SCAN relay_endpoints",
        "SCAN runs",
        "SCAN engine_pauses",
    )
    assert {scan for scan in scans if not scan.startswith(small)} == set()
