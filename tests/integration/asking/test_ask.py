"""Asking the emulator, in every edition that it speaks."""

import json
from typing import Any

import pytest

from app.domain.sync_call import SyncEnd
from app.emulator.engine.faults import FaultRates
from app.emulator.http.server import EMULATOR
from app.store import Store
from tests.clock import SteppedClock
from tests.integration.asking.asking import EDITIONS, emulator, question, served


@pytest.mark.parametrize("edition", EDITIONS)
@pytest.mark.parametrize(
    ("engine", "options"),
    [("chatgpt", {}), ("chatgpt", {"include": ["shopping"]}), ("google/news", {}), ("gemini", {})],
)
async def test_an_answer_is_billed_with_its_surcharge(
    store: Store, clock: SteppedClock, edition: str, engine: str, options: dict[str, Any]
) -> None:
    app = emulator(edition, prices="2026", faults=FaultRates(internal_retry=0))
    async with served(store, clock, app) as asking:
        asked_for = question(engine, **options)
        asked = await asking(asked_for)
        assert asked.answer.end is SyncEnd.ANSWERED
        assert asked.answer.slots_used == 1
        billed = app[EMULATOR].organizations["default"].totals.sync_charged
    task = await asking.task()
    assert (task["state"], task["verdict"], task["money"]) == ("completed", "matched", "posted")
    assert task["credits_charged"] == billed == asked_for.estimate
    assert task["settled_by"] == "sync"
    books = await asking.books()
    assert books.entries("hold") == books.entries("post") == {task["idempotency_key"]: billed}
    assert isinstance(json.loads(books.results[0]["response"]), dict)
    (run,) = await store.queries.find_runs(asked.run_id)
    report = await store.reports.report(run)
    assert (report.recovered_submits, report.swept, report.unknown) == (0, 0, 0)


@pytest.mark.parametrize("edition", EDITIONS)
async def test_a_failure_is_free(store: Store, clock: SteppedClock, edition: str) -> None:
    async with served(store, clock, emulator(edition, faults=FaultRates(fail=1))) as asking:
        assert (await asking(question())).answer.end is SyncEnd.FAILED
    task = await asking.task()
    assert (task["state"], task["verdict"], task["money"]) == ("failed", "free_failure", "voided")


@pytest.mark.parametrize("edition", EDITIONS)
async def test_no_slot_is_waited_for(store: Store, clock: SteppedClock, edition: str) -> None:
    app = emulator(edition, concurrency=1)
    organization = app[EMULATOR].organizations["default"]
    organization.slots_used = 1
    async with served(store, clock, app) as asking:

        async def give_slot() -> None:
            if len(asking.slept) == 3:
                organization.slots_used = 0

        asking.while_waiting = give_slot
        asked = await asking(question())
    assert (asked.answer.end, asked.calls) == (SyncEnd.ANSWERED, 4)
    assert asking.slept == [0.75, 1.5, 3.0]
    assert [row["answer"] for row in (await asking.books()).submissions] == [
        "rate_limited",
        "rate_limited",
        "rate_limited",
        "accepted",
    ]
    assert (await asking.task())["state"] == "completed"


@pytest.mark.parametrize("edition", EDITIONS)
async def test_no_slot_within_the_bound_costs_nothing(
    store: Store, clock: SteppedClock, edition: str
) -> None:
    app = emulator(edition, concurrency=1)
    app[EMULATOR].organizations["default"].slots_used = 1
    async with served(store, clock, app) as asking:
        asked = await asking(question())
    assert asked.answer.end is SyncEnd.BUSY
    assert asked.answer.slots == 1
    assert 30 < sum(asking.slept) <= 60
    task = await asking.task()
    assert (task["state"], task["money"], task["credits_charged"]) == ("rejected", "voided", 0)
    assert task["error_code"] in ("CONCURRENT_LIMIT_EXCEEDED", "CONCURRENCY_LIMIT_EXCEEDED")


@pytest.mark.parametrize("edition", EDITIONS)
async def test_refusals_cost_nothing_and_are_not_repeated(
    store: Store, clock: SteppedClock, edition: str
) -> None:
    async with served(store, clock, emulator(edition, credits=1)) as asking:
        asked = await asking(question())
        assert (asked.answer.end, asked.calls) == (SyncEnd.REFUSED, 1)
        assert (await asking.task())["error_code"] == asked.answer.code
        assert (await asking(question(), key="sk_live_" + "f" * 32)).answer.http_status == 401
    assert {task["money"] for task in (await asking.books()).tasks} == {"voided"}
