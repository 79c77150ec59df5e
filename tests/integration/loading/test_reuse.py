"""Answering a prompt from an equal, recent result instead of buying it again."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from app.store import Store
from tests.books import check_books, read_books
from tests.clock import SteppedClock
from tests.integration.loading.reading import load, write_prompts
from tests.integration.services.pipeline import Pipeline

HOUR_MS = 3_600_000
ANSWER = {"text": "an answer", "sources": []}


@pytest.fixture
def pipeline(store: Store, clock: SteppedClock) -> Pipeline:
    return Pipeline(store, clock)


async def buy(pipeline: Pipeline, path: Path, prompts: list[str], *, completed: bool = True) -> str:
    """A run whose every task was answered by the provider; its id."""
    loaded = await load(pipeline.store, write_prompts(path, prompts), pipeline.clock)
    await pipeline.submit()
    for accepted in [row for rows in pipeline.provider.accepted.values() for row in rows]:
        accepted.status = "COMPLETED" if completed else "FAILED"
        accepted.charged = accepted.to_charge if completed else Decimal(0)
        accepted.response = ANSWER if completed else None
        await pipeline.deliver(accepted)
    pipeline.provider.accepted.clear()
    return loaded.run_id


async def test_an_equal_recent_result_answers_for_nothing(pipeline: Pipeline, tmp_path: Path) -> None:
    store, clock, path = pipeline.store, pipeline.clock, tmp_path / "p.csv"
    first = await buy(pipeline, path, ["a", "b"])
    clock.advance(HOUR_MS)
    loaded = await load(store, write_prompts(path, ["b", "c"]), clock, reuse_within_ms=2 * HOUR_MS)
    assert (loaded.tasks, loaded.reused, loaded.estimate) == (2, 1, Decimal(5))
    reused, fresh = [row async for row in store.exports.export(loaded.run_id)]
    bought = [row async for row in store.exports.export(first)][1]
    assert (reused["state"], reused["settled_by"], reused["credits_charged"]) == ("completed", "reuse", 0)
    assert (reused["reused_from"], reused["response"]) == (bought["task_id"], bought["response"])
    assert json.loads(reused["response"]) == ANSWER
    assert (fresh["state"], fresh["reused_from"], fresh["response"]) == ("pending", None, None)
    (run,) = await store.queries.find_runs(loaded.run_id)
    report = await store.reports.report(run)
    assert (report.reused, report.posted, report.held, report.progress.estimate) == (1, 0, 0, 5)
    check_books(await read_books(store))


async def test_what_is_reused_is_never_sent(pipeline: Pipeline, tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    await buy(pipeline, path, ["a"])
    await load(pipeline.store, path, pipeline.clock, reuse_within_ms=HOUR_MS)
    pipeline.provider.sends.clear()
    await pipeline.submit()
    assert pipeline.provider.sends == []


async def test_age_counts_from_the_purchase(pipeline: Pipeline, tmp_path: Path) -> None:
    store, clock, path = pipeline.store, pipeline.clock, tmp_path / "p.csv"
    await buy(pipeline, path, ["a"])
    for reused in (1, 1, 0):
        loaded = await load(store, path, clock, reuse_within_ms=2 * HOUR_MS)
        assert loaded.reused == reused, "answered from an answer that was itself reused"
        clock.advance(HOUR_MS)


async def test_other_accounts_failures_and_other_questions_do_not_answer(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    store, clock, path = pipeline.store, pipeline.clock, tmp_path / "p.csv"
    await buy(pipeline, path, ["a"])
    other = await load(store, path, clock, reuse_within_ms=HOUR_MS, account="eu")
    assert other.reused == 0
    await store.runs.cancel_run(other.run_id, "looked at")
    abroad = await load(store, write_prompts(path, ["a"], country="FR"), clock, reuse_within_ms=HOUR_MS)
    assert abroad.reused == 0
    await store.runs.cancel_run(abroad.run_id, "looked at")
    await buy(pipeline, path, ["never answered"], completed=False)
    assert (await load(store, path, clock, reuse_within_ms=HOUR_MS)).reused == 0


async def test_a_disputed_result_does_not_answer(pipeline: Pipeline, tmp_path: Path) -> None:
    store, clock, path = pipeline.store, pipeline.clock, tmp_path / "p.csv"
    await buy(pipeline, path, ["a"])
    (task,) = (await read_books(store)).tasks
    report = {
        "task": {
            "id": task["provider_task_id"],
            "status": "FAILED",
            "idempotencyKey": task["idempotency_key"],
        },
        "credits": {"creditsToCharge": 5, "creditsCharged": 0},
        "response": None,
    }
    await pipeline.deliver(json.dumps(report).encode())
    assert [row["verdict"] for row in (await read_books(store)).findings] == ["conflict"]
    assert (await load(store, path, clock, reuse_within_ms=HOUR_MS)).reused == 0


async def test_resuming_decides_as_the_run_was_asked_to(pipeline: Pipeline, tmp_path: Path) -> None:
    """A stretch that is written again, its commit's answer lost, changes nothing either."""
    store, clock, path = pipeline.store, pipeline.clock, tmp_path / "p.csv"
    await buy(pipeline, path, ["a"])
    run_id = await store.runs.create_run(
        name="r", source=str(path), budget=None, now_ms=clock(), reuse_within_ms=HOUR_MS
    )
    for _ in range(2):
        loaded = await load(store, write_prompts(path, ["a", "b"]), clock, resume=run_id)
        assert (loaded.started, loaded.tasks, loaded.reused) == (True, 2, 1)
    check_books(await read_books(store))
