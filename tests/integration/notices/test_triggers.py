"""What is found out and told, from real rows on both databases: each thing once, whoever looks."""

import asyncio
import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from app.domain.accounting.balances import Balance
from app.domain.notices.failing_engines import EngineBounds
from app.domain.notices.notice import NoticeState
from app.domain.notices.triggers import unexplained_drift
from app.domain.run_reason import BY_HAND, MONTH_BUDGET, NO_CREDITS, ReasonCode, RunReason
from app.domain.task import RunState, TaskState
from app.services.notice_triggers import NEWS_MS, Watcher
from app.store import Store
from app.store.tables import account_entries, task_metadata, task_repeats
from tests.clock import SteppedClock
from tests.integration.services.pipeline import Pipeline


async def stored_notices(store: Store) -> list[tuple[str, str]]:
    """(kind, state) of every notice, oldest first."""
    return [(row.kind, row.state) for row in reversed(await store.notices.list_notices())]


async def last(store: Store) -> dict[str, Any]:
    """What the newest notice says."""
    row = (await store.notices.list_notices(1))[0]
    document: dict[str, Any] = json.loads(row.body)
    assert document["type"] == row.kind
    data: dict[str, Any] = document["data"]
    return data


async def finish(pipeline: Pipeline, count: int, *, charged: int = 5, **how: Any) -> None:
    """Deliver the reports of the next so many tasks."""
    keys = [f"{i}.1" for i in pipeline.task_ids if pipeline.provider.accepted[f"{i}.1"][0].charged is None]
    done = [pipeline.provider.finish(key, charged=Decimal(charged), **how) for key in keys[:count]]
    await pipeline.deliver(*done)


async def test_the_life_of_a_run(store: Store, clock: SteppedClock) -> None:
    pipeline, watcher = Pipeline(store, clock), Watcher(store, clock=clock)
    await pipeline.start(3)
    assert await watcher.look() == 0
    await store.runs.halt_run_if_running(pipeline.run_id, RunState.PAUSED, BY_HAND)
    assert [await watcher.look() for _ in range(2)] == [1, 0]
    assert (await last(store))["message"] == "Run run is paused: paused by hand."
    clock.advance(1_000)
    await store.runs.resume_run_if_halted(pipeline.run_id)
    assert [await watcher.look() for _ in range(3)] == [0, 1, 0], "goes on when seen twice"
    await pipeline.submit()
    clock.advance(1_000)
    await finish(pipeline, 2)
    assert await watcher.look() == 0
    await finish(pipeline, 1)
    assert [await watcher.look() for _ in range(2)] == [1, 0]
    assert [kind for kind, _ in await stored_notices(store)] == ["run.paused", "run.resumed", "run.finished"]
    data = await last(store)
    assert data["message"] == "Run run is finished: 3 completed; 15 credits charged."
    assert (data["run"], data["run_id"], data["credits_charged"]) == ("run", pipeline.run_id, 15)
    assert (data["states"], data["verdicts"]) == ({"completed": 3}, {"matched": 3})
    for row in await store.notices.list_notices():
        assert not any(f'"p{n}"' in row.body or "prompt" in row.body for n in range(1, 4)), row.body


async def test_an_engine_whose_answers_fail_is_reported(store: Store, clock: SteppedClock) -> None:
    bounds = EngineBounds(success_min=0.5, tasks=6, usable_chars_min=3)
    pipeline, watcher = Pipeline(store, clock), Watcher(store, clock=clock, engines=bounds)
    await pipeline.start(12)
    await pipeline.submit()
    keys = [f"{i}.1" for i in pipeline.task_ids]
    await pipeline.deliver(*(pipeline.provider.finish(key) for key in keys[:5]))
    assert await watcher.look() == 0
    await pipeline.deliver(*(pipeline.provider.finish(key, "FAILED") for key in keys[5:9]))
    assert [await watcher.look() for _ in range(2)] == [1, 0]
    data = await last(store)
    assert data["message"].startswith("Engine CHATGPT fails at account default: of its last 6 tasks 4 failed")
    assert (data["usable"], data["failed"], data["short"], data["engine"]) == (2, 4, 0, "CHATGPT")
    assert await Watcher(store, clock=clock, engines=bounds).look() == 0
    clock.advance(25 * 3_600_000)
    assert await Watcher(store, clock=clock, engines=bounds).look() == 0, "of yesterday"


async def test_a_retried_run_is_reported_again(store: Store, clock: SteppedClock) -> None:
    pipeline, watcher = Pipeline(store, clock), Watcher(store, clock=clock)
    await pipeline.start(1)
    await pipeline.submit()
    key = f"{pipeline.task_ids[0]}.1"
    await pipeline.deliver(pipeline.provider.finish(key, "FAILED"))
    assert await watcher.look() == 1
    await store.retries.retry_chunk(
        pipeline.run_id, [TaskState.FAILED], after=0, limit=9, even_if_held=False, now_ms=clock.advance(1_000)
    )
    assert [await watcher.look() for _ in range(2)] == [0, 1]
    await pipeline.submit()
    clock.advance(1_000)
    await pipeline.deliver(pipeline.provider.finish(f"{pipeline.task_ids[0]}.2"))
    # Another process, which remembers nothing.
    assert await Watcher(store, clock=clock).look() == 1
    assert [kind for kind, _ in await stored_notices(store)] == [
        "run.finished",
        "run.resumed",
        "run.finished",
    ]


async def test_a_run_whose_tasks_are_all_at_the_provider_is_open(store: Store, clock: SteppedClock) -> None:
    pipeline = Pipeline(store, clock)
    await pipeline.start(1)
    await pipeline.submit()
    await store.runs.halt_run_if_running(
        pipeline.run_id, RunState.STOPPED, RunReason(ReasonCode.BAD_KEY, "the key is wrong")
    )
    await Watcher(store, clock=clock).look()
    assert await stored_notices(store) == [("run.stopped", "new")]


async def test_a_run_that_only_tries_for_credits_does_not_go_on(store: Store, clock: SteppedClock) -> None:
    pipeline, watcher = Pipeline(store, clock), Watcher(store, clock=clock)
    await pipeline.start(1)
    for _ in range(3):
        await store.accounts.halt_account_if_running("default", RunState.PAUSED, NO_CREDITS)
        await watcher.look()
        await store.accounts.resume_account_if_paused_for("default", NO_CREDITS.code)
        await watcher.look()
    assert await stored_notices(store) == [("run.paused", "new")]


async def test_budgets(store: Store, clock: SteppedClock) -> None:
    pipeline, watcher = Pipeline(store, clock), Watcher(store, clock=clock)
    await pipeline.start(3, budget=Decimal(5))
    await pipeline.submit()
    assert await watcher.look() == 1
    assert ((await last(store))["run"], (await last(store))["state"]) == ("run", "paused")
    clock.advance(1)
    await pipeline.start(1)
    await store.accounts.note_waiting("default", MONTH_BUDGET)
    assert [await watcher.look() for _ in range(2)] == [1, 0]
    assert await Watcher(store, clock=clock).look() == 0
    assert (await last(store))["month"] == "2026-10"
    clock.advance(31 * 86_400_000)
    assert await watcher.look() == 1
    assert [kind for kind, _ in await stored_notices(store)] == ["budget.reached"] * 3


async def test_f6_an_unknown_balance_is_reported_once_for_each_silence(
    store: Store, clock: SteppedClock
) -> None:
    pipeline, watcher = Pipeline(store, clock), Watcher(store, clock=clock)
    await pipeline.start(1)
    unknown = RunReason(ReasonCode.BALANCE_UNKNOWN, "waiting: balance unknown since then (HTTP 502)")
    for n in range(2):
        told_ms = clock()
        await store.accounts.store_balance("default", Balance(told_ms, Decimal(100), None, None, "credits"))
        clock.advance(600_001)
        await store.accounts.note_waiting("default", unknown)
        assert [await watcher.look() for _ in range(2)] == [1, 0]
        clock.advance(60_000)
        assert await Watcher(store, clock=clock).look() == 0
        assert (await last(store))["last_at_ms"] == told_ms
        await store.accounts.note_waiting("default", None)
        assert await watcher.look() == 0
        assert [kind for kind, _ in await stored_notices(store)] == ["balance.unknown"] * (n + 1)


async def test_old_news_is_kept_and_sent_to_nobody(store: Store, clock: SteppedClock) -> None:
    pipeline = Pipeline(store, clock)
    await pipeline.start(1)
    await pipeline.submit()
    await finish(pipeline, 1)
    clock.advance(NEWS_MS)
    assert await Watcher(store, clock=clock).look() == 0
    assert await stored_notices(store) == [("run.finished", NoticeState.LOGGED)]


async def test_discrepancies_are_reported_by_run_and_verdict_as_they_grow(
    store: Store, clock: SteppedClock
) -> None:
    pipeline, watcher = Pipeline(store, clock), Watcher(store, clock=clock)
    await pipeline.start(12)
    await pipeline.submit()
    own = {"ordinal": 1, "line": 2, "custom_id": "row 1", "metadata": '{"brand":"007"}'}
    samples = {"first_ordinal": 1, "repeats": 3}
    for table, row in ((task_metadata, own), (task_repeats, samples)):
        insert = sa.insert(table).values(run_id=pipeline.run_id, **row)
        await store.db.write(lambda connection, insert=insert: connection.execute(insert))
    await finish(pipeline, 3, charged=7)
    assert [await watcher.look() for _ in range(2)] == [1, 0]
    data = await last(store)
    assert data["message"] == "3 × overcharged in run run: 6 credits more than expected."
    assert (data["verdict"], data["count"], data["expected"], data["actual"]) == ("overcharged", 3, 15, 21)
    assert {task["task_id"] for task in data["newest_tasks"]} == set(pipeline.task_ids[:3])
    of_record = {"custom_id": "row 1", "metadata": {"brand": "007"}, "repeats": 3}
    assert all(task.items() >= of_record.items() for task in data["newest_tasks"])
    assert {task["sample"] for task in data["newest_tasks"]} == {1, 2, 3}
    clock.advance(1)
    await finish(pipeline, 6, charged=7)
    assert await watcher.look() == 0, "nine are not ten"
    await finish(pipeline, 1, charged=7)
    await finish(pipeline, 1, charged=4)
    clock.advance(1)
    assert await watcher.look() == 2
    rows = await store.notices.list_notices()
    assert sorted(json.loads(row.body)["data"]["count"] for row in rows) == [1, 3, 10]
    # A delivery of a task that we never sent.
    stranger = pipeline.provider.finish(f"{pipeline.task_ids[-1]}.1")
    await pipeline.deliver(stranger.body(id="t-other", idempotencyKey="somebody's"))
    clock.advance(120_000)
    await pipeline.sweep()
    await watcher.look()
    # The run has ended in the same millisecond.
    newest = [json.loads(row.body)["data"]["message"] for row in await store.notices.list_notices(2)]
    assert "1 × unmatched in account default." in newest


async def test_what_others_spent(store: Store, clock: SteppedClock) -> None:
    cycle = clock() - 86_400_000

    async def book(credits: int, reason: str = "other_users: by the balance of 9") -> None:
        row = {
            "at_ms": clock(),
            "account": "eu",
            "kind": "foreign",
            "credits": Decimal(credits),
            "cycle_ms": cycle,
            "reason": reason,
        }
        await store.db.write(lambda c: c.execute(sa.insert(account_entries), [row]))

    watcher = Watcher(store, clock=clock)
    await book(500, "before_the_books: the first balance seen was 9")
    assert await watcher.look() == 0
    await book(40)
    assert [await watcher.look() for _ in range(2)] == [1, 0]
    await book(50)
    assert await watcher.look() == 0
    await book(10)
    clock.advance(1)
    assert await watcher.look() == 1
    assert (await last(store))[
        "message"
    ] == "100 credits of account eu were spent by others since 2026-09-30."
    drift = unexplained_drift("eu", Decimal("-12"), clock())
    assert [await watcher.tell([drift]) for _ in range(2)] == [1, 0]
    assert await Watcher(store, clock=clock).tell([drift]) == 0


async def test_any_number_of_workers_report_each_thing_once(store: Store, clock: SteppedClock) -> None:
    pipelines = [Pipeline(store, clock) for _ in range(4)]
    for number, pipeline in enumerate(pipelines):
        await pipeline.start(2)
        await pipeline.submit()
        await finish(pipeline, 2, charged=5 + number)
    watchers = [Watcher(store, clock=clock) for _ in range(4)]
    counts: Sequence[int] = await asyncio.gather(*(watcher.look() for watcher in watchers))
    counts = [*counts, *await asyncio.gather(*(watcher.look() for watcher in watchers))]
    assert sum(counts) == 7, counts
    assert (
        sorted(kind for kind, _ in await stored_notices(store))
        == ["discrepancy.found"] * 3 + ["run.finished"] * 4
    )
