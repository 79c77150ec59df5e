"""What is set aside is told everywhere a person looks, and can be looked at again; by the real commands."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from app.cli.streams import all_done
from app.domain.task import idempotency_key
from app.provider.wire import read_answer
from app.services.notice_triggers import Watcher
from app.store import Database, Store
from tests.clock import SteppedClock
from tests.e2e.test_cli import Cli, cli, here, restored_logging
from tests.integration.services.pipeline import Pipeline

__all__ = ["cli", "here", "restored_logging"]

SECRET_TEXT = "best shoes"


@pytest.fixture
def scene(
    cli: Cli, store_url: str, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch, here: Path
) -> Callable[[Callable[[Pipeline], Awaitable[Any]]], Any]:
    """Runs work on the store that the commands open; call them between."""
    monkeypatch.setenv("DATABASE_URL", store_url)
    kept: dict[str, Any] = {}

    def on(work: Callable[[Pipeline], Awaitable[Any]]) -> Any:
        async def opened() -> Any:
            store = Store(Database(store_url), read_answer)
            pipeline = Pipeline(store, clock)
            for name, value in kept.items():
                setattr(pipeline, name, value)
            try:
                return await work(pipeline)
            finally:
                kept.update(run_id=pipeline.run_id, task_ids=pipeline.task_ids, provider=pipeline.provider)
                await store.close()

        return asyncio.run(opened())

    return on


async def poisoned(pipeline: Pipeline) -> list[str]:
    """Three tasks; one delivery is cut, one names nothing, one charges what no task costs."""
    await pipeline.start(3)
    await pipeline.submit()
    done = [pipeline.provider.finish(idempotency_key(i, 1)) for i in pipeline.task_ids]
    cut = done[0].body().replace(b'"answer"', f'"{SECRET_TEXT}'.encode() + b'\xff\x1b[2J"')
    dear = done[1].body(creditsCharged=10**12)
    ids = await pipeline.receive(cut, dear, b'{"event":"what is it"}', done[2])
    summary = await pipeline.settle(ids)
    assert (summary.settled, summary.quarantined) == (1, 3)
    return ids


def test_what_is_set_aside_is_reported_and_can_be_tried_again(cli: Cli, scene: Any) -> None:
    cut, dear, nothing, _ = scene(poisoned)
    listed = cli("inbox list --json").document
    assert listed["set_aside"] == 3
    assert {row["id"]: row["state"] for row in listed["deliveries"]} == dict.fromkeys(
        (cut, dear, nothing), "set_aside"
    )
    errors = {row["id"]: row["error"] for row in listed["deliveries"]}
    assert errors[dear].startswith("ReportError: creditsCharged is out of range: 1000000000000")
    assert cut in cli("inbox list").out

    shown = cli(f"inbox show {cut}")
    assert shown.code == 0 and SECRET_TEXT not in shown.out, "no body unless it is asked for"
    asked = cli(f"inbox show {cut[-12:]} --body")
    assert SECRET_TEXT in asked.out and "\x1b" not in asked.out
    document = cli(f"inbox show {cut} --body --json").document
    assert SECRET_TEXT in document["body"] and document["body_base64"]

    report = cli("report --json").document
    assert report["set_aside"] == {"named": 2, "unnamed": 1}
    assert "set aside" in cli("report").out
    certificate = cli("certificate --json").document
    questions = [q["question"] for q in certificate["open_questions"] if "set aside" in q["question"]]
    assert len(questions) == 2 and not certificate["complete"]
    checks = {check["name"]: check for check in cli("doctor --json").document["checks"]}
    assert (checks["inbox"]["state"], checks["inbox"]["detail"]) == ("warning", "3 set aside")

    async def look(pipeline: Pipeline) -> list[Any]:
        for _ in range(2):
            await Watcher(pipeline.store, clock=pipeline.clock).look()
        return await pipeline.store.notices.list_notices(10)

    assert [row.kind for row in scene(look)].count("delivery.set_aside") == 1, "told once"

    tried = cli(f"inbox retry {cut} --json")
    assert tried.document["retried"] == [cut]
    assert all_done() == [f"delivery {cut} will be looked at again"], "told should the output be lost"
    assert cli("inbox list --json").document["set_aside"] == 2
    assert len(cli("inbox retry --all --json").document["retried"]) == 2

    async def sweep(pipeline: Pipeline) -> Any:
        pipeline.clock.advance(10_000_000_000_000 - pipeline.clock())  # the commands write the real time
        return await pipeline.sweep()

    scene(sweep)
    assert cli("inbox list --json").document["set_aside"] >= 3, "they are as bad as before"
    assert cli("report --json").document["set_aside"]["named"] >= 2


@pytest.mark.parametrize("line", ["inbox retry", "inbox retry --all x", "inbox show", "inbox list --limit 0"])
def test_a_wrong_question_is_a_usage_error(cli: Cli, scene: Any, line: str) -> None:
    assert cli(line).code == 2


@pytest.mark.parametrize("line", ["inbox show ffff0000", "inbox show nothing", "inbox retry ffff0000"])
def test_what_is_not_there_is_reported(cli: Cli, scene: Any, line: str) -> None:
    ended = cli(f"{line} --json")
    assert (ended.code, ended.document["error"]["code"]) == (1, "no_such_delivery")


def test_a_delivery_that_is_settled_is_not_tried_again(cli: Cli, scene: Any) -> None:
    *_, good = scene(poisoned)
    assert cli(f"inbox retry {good} --json").document["error"]["code"] == "settled"


async def test_a_run_that_is_complete_leaves_nothing_open_for_what_names_nothing(
    store: Store, clock: SteppedClock
) -> None:
    from app.services.certify import certify

    pipeline = Pipeline(store, clock)
    [task_id] = await pipeline.start(1)
    await pipeline.submit()
    await pipeline.deliver(b'{"event":"a test of the dashboard"}')
    before = await certify(store, pipeline.run_id, clock=clock)
    assert any("cannot be made out" in q["question"] for q in before["open_questions"])
    await pipeline.deliver(pipeline.provider.finish(idempotency_key(task_id, 1)))
    assert (await certify(store, pipeline.run_id, clock=clock))["complete"]
