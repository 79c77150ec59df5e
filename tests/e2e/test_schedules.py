"""A schedule in real processes: two workers, each slot one run, sent and settled like any other."""

import time
from pathlib import Path

from tests.books import read_books
from tests.e2e.stack import running_stack
from tests.integration.loading.reading import write_prompts

PROMPTS = 40


async def test_two_workers_start_each_slot_once(store_url: str, valkey_url: str, tmp_path: Path) -> None:
    path = write_prompts(tmp_path / "daily.csv", [f"question {n}" for n in range(PROMPTS)])
    async with running_stack(tmp_path, store_url, valkey_url, "--time-scale", "2000") as stack:
        stack.start("worker2")
        now = time.time_ns() // 1_000_000
        await stack.store.schedules.add_schedule(
            name="daily", source=str(path), options="{}", every_ms=1_500, next_at_ms=now, now_ms=now
        )

        async def three_begun() -> bool:
            runs = await stack.store.queries.list_runs()
            return sum(run.state in ("running", "finished") for run in runs) >= 3

        await stack.until(three_begun, "three slots that have begun")
        (schedule,) = await stack.store.schedules.list_schedules()
        await stack.store.schedules.enable_schedule(
            schedule.id, enabled=False, next_at_ms=schedule.next_at_ms
        )

        async def all_settled() -> bool:
            runs = await stack.store.queries.list_runs()
            return all(run.state == "finished" for run in runs)

        await stack.until(all_settled, "every run settled")
        books = await read_books(stack.store)
        slots = [run["slot_ms"] for run in books.runs]
        assert len(set(slots)) == len(slots) >= 3
        assert {sum(t["run_id"] == run["id"] for t in books.tasks) for run in books.runs} == {PROMPTS}
        assert len(stack.books()["tasks"]) == PROMPTS * len(slots), "each prompt sent once for each slot"
