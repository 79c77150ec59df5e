"""The worker's loop: finds out, logs and sends; alone and beside another worker, on both databases."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any, cast

import pytest
from aiohttp import web
from structlog.testing import capture_logs

import workers.duties.notices
from app.config import ConfigError, load_settings
from app.domain.accounting.balances import Balance
from app.domain.run_reason import BY_HAND, ReasonCode, RunReason
from app.domain.task import RunState
from app.limits import Limits
from app.provider.client import Client
from app.queue import Queue
from app.services.notice_triggers import Watcher
from app.store import Store
from tests.clock import SteppedClock
from tests.integration.notices.receiver import SECRET, Receiver
from tests.integration.services.pipeline import Pipeline, until
from tests.integration.test_workers import running
from workers.__main__ import serve
from workers.context import Context
from workers.duties.notices import Looker, run_notices


@pytest.fixture(autouse=True)
def no_pause_after_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.duties.notices, "LOOK_SHARE", 0)


def context_on(store: Store, clock: SteppedClock, pipeline: Pipeline, **settings: Any) -> Context:
    chosen = load_settings(_env_file=None, notice_every_s=0.02, forecast_every_s=0.001, **settings)
    providers = {"default": cast(Client, pipeline.provider)}
    return Context(chosen, store, providers, cast(Queue, None), clock=clock, jitter=lambda: 0.0)


async def test_two_workers_report_each_thing_once(
    store: Store, clock: SteppedClock, receiver: Receiver
) -> None:
    pipeline = Pipeline(store, clock)
    where = {"notice_url": receiver.url, "notice_secret": SECRET, "notice_timeout_s": 60.0}
    workers = [context_on(store, clock, pipeline, **where) for _ in range(2)]
    receiver.answers.append(web.Response(status=500))
    with capture_logs() as logs:
        async with contextlib.AsyncExitStack() as stack:
            for one in workers:
                await stack.enter_async_context(running(run_notices(one), one))
            await pipeline.start(2)
            await pipeline.submit()
            await store.runs.halt_run_if_running(pipeline.run_id, RunState.PAUSED, BY_HAND)
            await until(lambda: len(receiver.got) == 1)
            first = receiver.ids[0]
            done = [pipeline.provider.finish(f"{i}.1", charged=None) for i in pipeline.task_ids]
            done[0].charged = done[0].charged and done[0].charged + 2
            await pipeline.deliver(*done)
            await until(lambda: len(receiver.got) == 3)
            # The receiver refused the first; its next try is due later, and the others went before it.
            await until_rows(store, lambda rows: "HTTP 500" in [row.error for row in rows])
            clock.advance(2_500)
            await until(lambda: len(receiver.got) == 4)
    assert receiver.refused == [] and receiver.ids[3] == first
    assert sorted(receiver.types) == ["discrepancy.found", "run.finished", "run.paused", "run.paused"]
    lines = [line for line in logs if line["event"] == "notice"]
    assert sorted(line["kind"] for line in lines) == ["discrepancy.found", "run.finished", "run.paused"]
    assert {line["log_level"] for line in lines if line["kind"] != "run.finished"} == {"warning"}
    assert [line["event"] for line in logs if line["event"] in ("turn_failed", "store_unavailable")] == []
    assert {row.state for row in await store.notices.list_notices()} == {"sent"}


async def test_warnings_are_reported_and_a_silent_receiver_holds_nothing_up(
    sqlite_store: Store, clock: SteppedClock, receiver: Receiver
) -> None:
    pipeline = Pipeline(sqlite_store, clock)
    receiver.answers.extend([60.0] * 3)
    where = {"notice_url": receiver.url, "notice_secret": SECRET}
    hasty, patient = (
        context_on(sqlite_store, clock, pipeline, **where, notice_timeout_s=timeout_s)
        for timeout_s in (0.1, 60)
    )
    await pipeline.start(30)
    await pipeline.submit()
    await sqlite_store.accounts.store_balance("default", Balance(clock(), Decimal(50), None, None))
    async with running(run_notices(hasty), hasty):
        await until(lambda: len(receiver.got) >= 2)
        await until_rows(sqlite_store, lambda rows: all(row.error == "TimeoutError" for row in rows))
    receiver.answers.clear()
    async with running(run_notices(patient), patient):
        while {row.state for row in await sqlite_store.notices.list_notices()} != {"sent"}:
            clock.advance(10_000)
            await asyncio.sleep(0.02)
    assert set(receiver.types) == {"credits.low", "credits.short"}
    assert len(set(receiver.ids)) == 2


async def until_rows(store: Store, condition: Callable[[list[Any]], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition(await store.notices.list_notices()):  # noqa: ASYNC110 - rows have no event
            await asyncio.sleep(0.02)


async def test_without_a_url_the_log_is_all(sqlite_store: Store, clock: SteppedClock) -> None:
    pipeline = Pipeline(sqlite_store, clock)
    one = context_on(sqlite_store, clock, pipeline)
    await pipeline.start(1)
    await sqlite_store.runs.halt_run_if_running(
        pipeline.run_id, RunState.STOPPED, RunReason(ReasonCode.BAD_KEY, "the key is wrong")
    )
    with capture_logs() as logs:
        async with running(run_notices(one), one):
            await until_rows(sqlite_store, lambda rows: [row.state for row in rows] == ["logged"])
    (line,) = [line for line in logs if line["event"] == "notice"]
    assert line["message"] == "Run run is stopped: the key is wrong."


async def test_settings_that_cannot_work_stop_the_worker_at_once() -> None:
    with pytest.raises(ConfigError, match="TALLYHOOK_NOTICE_SECRET is not set"):
        await serve(load_settings(_env_file=None, notice_url="https://example.org/x"))


async def test_a_document_is_stored_as_it_is_sent(
    sqlite_store: Store, clock: SteppedClock, receiver: Receiver
) -> None:
    pipeline = Pipeline(sqlite_store, clock)
    one = context_on(sqlite_store, clock, pipeline, notice_url=receiver.url, notice_secret=SECRET)
    await pipeline.start(1)
    await sqlite_store.runs.halt_run_if_running(
        pipeline.run_id, RunState.PAUSED, RunReason(ReasonCode.BY_HAND, 'ünïcode \x00 \ud800 "quoted"')
    )
    async with running(run_notices(one), one):
        await until(lambda: len(receiver.got) == 1)
    (row,) = await sqlite_store.notices.list_notices()
    assert json.loads(row.body) == receiver.got[0][1]


async def test_a_worker_that_ends_is_replaced_at_once(
    sqlite_store: Store, clock: SteppedClock, receiver: Receiver
) -> None:
    pipeline = Pipeline(sqlite_store, clock)
    where = {"notice_url": receiver.url, "notice_secret": SECRET}
    await pipeline.start(1)
    for count, state in enumerate((RunState.PAUSED, RunState.STOPPED), start=1):
        one = context_on(sqlite_store, clock, pipeline, **where)
        await sqlite_store.runs.halt_run_if_running(pipeline.run_id, state, BY_HAND)
        async with running(run_notices(one), one):
            await until(lambda count=count: len(receiver.got) == count)
        await sqlite_store.runs.resume_run_if_halted(pipeline.run_id)


@pytest.mark.parametrize(("share", "rest_max_s", "looks"), [(0, 15, 3), (10**9, 15, 1), (10**9, 0, 3)])
async def test_looking_takes_a_share_of_the_time_at_most_and_rests_so_long_at_most(
    sqlite_store: Store,
    clock: SteppedClock,
    monkeypatch: pytest.MonkeyPatch,
    share: int,
    rest_max_s: int,
    looks: int,
) -> None:
    monkeypatch.setattr(workers.duties.notices, "LOOK_SHARE", share)
    monkeypatch.setattr(workers.duties.notices, "REST_MAX_S", rest_max_s)
    counted: list[int] = []
    looker = workers.duties.notices.Looker(context_on(sqlite_store, clock, Pipeline(sqlite_store, clock)))

    async def look(_watcher: Watcher) -> int:
        counted.append(1)
        return 0

    monkeypatch.setattr(Watcher, "look", look)
    for _ in range(3):
        await looker.look()
    assert len(counted) == looks


async def test_f38_a_worker_pauses_what_fails_and_lets_it_go_on(store: Store, clock: SteppedClock) -> None:
    pipeline = Pipeline(store, clock)
    looker = Looker(context_on(store, clock, pipeline, engine_tasks=5))
    await pipeline.start(20, pause_failing_engines=True)
    pipeline.limits = Limits(claim_size=5, submit_in_flight=1)
    await pipeline.submit(stopping=lambda: len(pipeline.provider.sends) >= 5)
    sent = list(pipeline.provider.sends)
    await pipeline.deliver(*(pipeline.provider.finish(key, "FAILED") for key in sent))
    with capture_logs() as logs:
        await looker.look()
        assert await store.queries.accounts_with_due(clock()) == []
        for _ in range(3):
            clock.advance(90_000)
            await pipeline.submit()
            await pipeline.deliver(pipeline.provider.finish(pipeline.provider.sends[-1], text="x" * 99))
        assert len(pipeline.provider.sends) == len(sent) + 3
        await looker.look()
    told = [line for line in logs if line["event"].startswith("engine_")]
    assert [(line["event"], line["engine"], line["log_level"]) for line in told] == [
        ("engine_paused", "CHATGPT", "warning"),
        ("engine_resumed", "CHATGPT", "info"),
    ]
    assert (told[0]["tasks"], told[0]["usable"]) == (5, 0)
    assert await store.queries.accounts_with_due(clock()) == ["default"]
