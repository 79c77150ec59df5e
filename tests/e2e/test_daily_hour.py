"""The daily hour by the real commands and in real processes: an engine fails and waits, what is left is
bought by a second file, answers of yesterday count as samples of today, and lost webhooks hold nobody up.
"""

import csv
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.domain.run_reason import BY_HAND
from app.domain.task import RunState
from tests.e2e.forking import Forks
from tests.e2e.stack import Stack, running_stack

COUNT, SAMPLES, TASKS = 24, 2, 20
SETTINGS = {
    # Far above the time of this test: what is asked for earlier is asked for because it is late.
    "TALLYHOOK_POLL_AFTER_S": "600",
    "TALLYHOOK_ENGINE_TASKS": str(TASKS),
    "TALLYHOOK_ENGINE_SUCCESS_MIN": "0.9",
    "TALLYHOOK_ENGINE_PROBE_EVERY_S": "0.5",
    "TALLYHOOK_NOTICE_EVERY_S": "0.3",
}


@dataclass
class Hour:
    """A stack, and commands beside it."""

    stack: Stack
    forked: Forks

    def ended(self, line: str) -> Any:
        """What a command says as JSON."""
        return self.lines(f"{line} --json")[-1]

    def lines(self, line: str) -> list[Any]:
        """The lines that a command prints."""
        ran = self.forked.run(*line.split(), env=self.stack.env)
        assert ran.code == 0, f"{line}: {ran.out!r}{ran.err}\n{self.stack.logs()}"
        return [json.loads(text) for text in ran.out.splitlines()]

    async def until_over(self, submitted: Any) -> None:
        """Until the run has no open task."""

        async def is_over() -> bool:
            return (await self.stack.store.queries.progress(submitted["run"]["id"])).open == 0

        await self.stack.until(is_over, "the end of a run")

    async def until_noticed(self) -> Any:
        """The notice of an engine that fails, as a command shows it."""

        async def is_noticed() -> bool:
            return any(row.kind == "engine.failing" for row in await self.stack.store.notices.list_notices())

        await self.stack.until(is_noticed, "the notice")
        notices = self.ended("notices")["notices"]
        return next(notice["data"] for notice in notices if notice["kind"] == "engine.failing")


@asynccontextmanager
async def started(folder: Path, store_url: str, redis_url: str) -> AsyncIterator[Hour]:
    """A stack that buys the prompts of mine.csv from a provider that fails every other task."""
    header = ["prompt", "task_type", "country", "custom_id", "brand_id"]
    rows = [[f"question {n}", "GEMINI", "DE", f"q{n}", f"{n:03}"] for n in range(COUNT)]
    with (folder / "mine.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    options = ("--time-scale", "2000", "--fail", "0.5")
    async with running_stack(folder, store_url, redis_url, *options, env=SETTINGS) as stack:
        yield Hour(stack, Forks(folder))


@pytest.mark.timeout(400)
async def test_an_hour_of_every_day(sqlite_url: str, valkey_url: str, tmp_path: Path) -> None:
    async with started(tmp_path, sqlite_url, valkey_url) as hour:
        await the_report_says_what_the_money_bought(hour)
        hour.stack.change_faults({"fail": 0.0})
        await the_rest_is_bought_by_a_second_file(hour)
        await answers_are_samples_again(hour)
        await lost_webhooks_hold_nobody_up(hour)


@pytest.mark.slow  # a worker judges engines in a hundredth of its time
@pytest.mark.timeout(400)
async def test_f38_tasks_wait_for_a_failing_engine_until_its_answers_can_be_used(
    sqlite_url: str, valkey_url: str, tmp_path: Path
) -> None:
    async with started(tmp_path, sqlite_url, valkey_url) as hour:
        hour.stack.change_faults({"fail": 1.0})
        await hour.until_over(hour.ended("submit mine.csv --name sunday"))
        assert (await hour.until_noticed())["usable"] == 0
        hour.stack.end("worker")
        submitted = hour.ended("submit mine.csv --name monday --pause-failing-engines")
        # Paused by hand until the worker has judged the engine, or it might have sent all of it before.
        await hour.stack.store.runs.halt_run_if_running(submitted["run"]["id"], RunState.PAUSED, BY_HAND)
        hour.stack.start("worker")

        async def waits() -> bool:
            (run,) = await hour.stack.store.queries.find_runs("monday")
            return run.reason is not None and "GEMINI fails" in run.reason

        async def is_judged() -> bool:
            return bool(await hour.stack.store.engine_pauses.list_pauses())

        await hour.stack.until(is_judged, "the engine's pause")
        hour.ended("resume monday")
        await hour.stack.until(waits, "a run that waits for its engine")
        (ahead,) = hour.ended("forecast monday")["runs"]
        assert "until answers of GEMINI can be used again" in ahead["why_not"]
        hour.stack.change_faults({"fail": 0.0})
        await hour.until_over(submitted)
        (bought,) = hour.ended("report monday")["by_engine_country"]
        assert bought["failed"] > 0 and bought["usable"] >= 3


async def the_report_says_what_the_money_bought(hour: Hour) -> None:
    await hour.until_over(hour.ended("submit mine.csv --name monday"))
    failing = await hour.until_noticed()
    assert (failing["engine"], failing["tasks"], failing["short"]) == ("GEMINI", TASKS, 0)
    (bought,) = hour.ended("report monday --html monday.html")["by_engine_country"]
    assert (bought["task_type"], bought["country"], bought["tasks"]) == ("GEMINI", "DE", COUNT)
    assert bought["failed"] + bought["usable"] == COUNT and bought["failed"] > 0 < bought["usable"]
    assert float(bought["posted_per_usable"]) == float(bought["posted"]) / bought["usable"]
    assert bought["short"] == 0 and 0 < bought["p50_ms"] <= bought["p95_ms"]
    hour.stack.env["TALLYHOOK_USABLE_CHARS_MIN"] = "1000000"
    (short,) = hour.ended("report monday")["by_engine_country"]
    assert (short["usable"], short["short"], short["posted_per_usable"]) == (0, bought["usable"], None)
    del hour.stack.env["TALLYHOOK_USABLE_CHARS_MIN"]


async def the_rest_is_bought_by_a_second_file(hour: Hour) -> None:
    failed = hour.ended("export monday --remaining -o rest.csv")["rows"]
    submitted = hour.ended("submit rest.csv --name rest")
    assert (submitted["tasks"], submitted["bad_lines_count"]) == (failed, 0)
    await hour.until_over(submitted)
    answered = [
        (row["custom_id"], row["metadata"]["brand_id"])
        for run in ("monday", "rest")
        for row in hour.lines(f"export {run}")
        if row["state"] == "completed"
    ]
    assert sorted(answered) == sorted((f"q{n}", f"{n:03}") for n in range(COUNT))


async def answers_are_samples_again(hour: Hour) -> None:
    before = hour.stack.books(tasks=False)["totals"]["completed"]
    submitted = hour.ended(f"submit mine.csv --name tuesday --repeats {SAMPLES} --reuse-within 1d")
    assert (submitted["tasks"], submitted["repeats"]["records"]) == (COUNT * SAMPLES, COUNT)
    await hour.until_over(submitted)
    bought = hour.stack.books(tasks=False)["totals"]["completed"] - before
    assert bought == COUNT * (SAMPLES - 1), "one of each was there"
    samples = hour.lines("export tuesday")
    assert {(row["repeats"], row["samples_answered"]) for row in samples} == {(SAMPLES, SAMPLES)}
    assert sum(row["settled_by"] == "reuse" for row in samples) == COUNT


async def lost_webhooks_hold_nobody_up(hour: Hour) -> None:
    hour.stack.change_faults({"drop": 0.5})
    submitted = hour.ended("submit mine.csv --name wednesday")
    await hour.until_over(submitted)
    (bought,) = hour.ended("report wednesday")["by_engine_country"]
    polled = [row for row in hour.lines("export wednesday") if row["settled_by"] == "poll"]
    assert 0 < bought["swept"] == len(polled) <= COUNT, "on a busy machine others are late too"
