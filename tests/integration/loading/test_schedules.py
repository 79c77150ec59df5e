"""Schedules: each slot once, whatever the workers do."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from app.config import load_settings
from app.domain.relay.message import NewEndpoint, new_secret
from app.provider.wire import read_answer
from app.services.schedule import LEASE, OpenSource, SlotOutcome, start_due
from app.store import Database, Store
from app.store.write.load import LoadWrites
from app.store.write.schedules import ScheduleWrites
from tests.books import Row, read_books
from tests.clock import SteppedClock
from tests.integration.loading.reading import write_prompts
from workers.duties.schedules import source_opener

HOUR_MS = 3_600_000


@pytest.fixture
def opener(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> OpenSource:
    monkeypatch.chdir(tmp_path)
    return source_opener(load_settings())


async def add(store: Store, clock: SteppedClock, path: Path, push_to: Any = None, **options: Any) -> str:
    schedule_id = await store.schedules.add_schedule(
        name=path.stem,
        source=str(path),
        options=json.dumps(options),
        every_ms=HOUR_MS,
        next_at_ms=clock(),
        now_ms=clock(),
        push_to=push_to,
    )
    assert schedule_id is not None
    return schedule_id


async def tick(store: Store, opener: OpenSource, clock: SteppedClock, owner: str = "me") -> list[SlotOutcome]:
    return await start_due(store, opener, clock=clock, owner=owner)


async def slot_runs(store: Store) -> list[Row]:
    return sorted((await read_books(store)).runs, key=lambda row: row["slot_ms"] or 0)


async def test_each_slot_is_a_run_of_its_own(
    store: Store, opener: OpenSource, tmp_path: Path, clock: SteppedClock
) -> None:
    start = clock()
    await add(
        store, clock, write_prompts(tmp_path / "p.csv", ["a", "b"]), budget="7", pause_failing_engines=True
    )
    for _ in range(3):
        (outcome,) = await tick(store, opener, clock)
        assert (outcome.tasks, outcome.error) == (2, None)
        assert await tick(store, opener, clock) == []
        clock.advance(HOUR_MS)
    runs = await slot_runs(store)
    assert [run["slot_ms"] for run in runs] == [start + n * HOUR_MS for n in range(3)]
    assert {(run["state"], run["budget"], run["reason"]) for run in runs} == {("running", 7, None)}
    assert all(run["pause_failing_engines"] for run in runs)
    assert runs[0]["name"] == "p-20261001-000000"


async def test_results_of_each_slot_are_pushed_with_the_secret_that_was_told(
    store: Store, opener: OpenSource, tmp_path: Path, clock: SteppedClock
) -> None:
    to = NewEndpoint("https://example.com/results", new_secret())
    path = write_prompts(tmp_path / "p.csv", ["a"])
    await add(store, clock, path, push_to=("default", to), webhook_url=to.url)
    # A run of the same URL that is refused takes the endpoint not with it.
    refused = await store.runs.create_run(
        name="r", source="-", budget=None, now_ms=clock.advance(1), push_to=NewEndpoint(to.url, new_secret())
    )
    assert await store.runs.discard_run(refused)
    for _ in range(2):
        assert len(await tick(store, opener, clock)) == 1
        clock.advance(HOUR_MS)
    secrets = [await store.relay.secret_of_run(str(run["id"])) for run in await slot_runs(store)]
    assert secrets == [to.secret, to.secret]


async def test_of_missed_slots_only_the_latest_is_run_and_the_others_are_reported(
    store: Store, opener: OpenSource, tmp_path: Path, clock: SteppedClock
) -> None:
    await add(store, clock, write_prompts(tmp_path / "p.csv", ["a"]))
    clock.advance(3 * HOUR_MS + 5)
    outcomes = await tick(store, opener, clock)
    assert [(o.skipped, o.tasks) for o in outcomes] == [(3, 0), (0, 1)]
    (run,) = await slot_runs(store)
    assert run["slot_ms"] == clock() - 5
    (schedule,) = await store.schedules.list_schedules()
    assert run["reason"] == schedule.last_error == "3 earlier slots were skipped: nothing ran"


async def test_a_slot_is_run_once_however_many_workers_look(
    store: Store, store_url: str, opener: OpenSource, tmp_path: Path, clock: SteppedClock
) -> None:
    await add(store, clock, write_prompts(tmp_path / "p.csv", [f"q{n}" for n in range(700)]))
    workers = [Store(Database(store_url), read_answer) for _ in range(4)]
    try:
        for _ in range(3):
            await asyncio.gather(*(tick(w, opener, clock, f"w{n}") for n, w in enumerate(workers)))
            clock.advance(HOUR_MS)
    finally:
        for worker in workers:
            await worker.close()
    runs = await slot_runs(store)
    assert len({run["slot_ms"] for run in runs}) == len(runs) == 3
    books = await read_books(store)
    assert [sum(t["run_id"] == run["id"] for t in books.tasks) for run in runs] == [700] * 3


async def test_a_slot_whose_worker_died_is_read_by_another(
    store: Store, opener: OpenSource, tmp_path: Path, clock: SteppedClock
) -> None:
    schedule_id = await add(store, clock, write_prompts(tmp_path / "p.csv", [f"q{n}" for n in range(700)]))

    def dying(schedule: Any) -> Any:
        opened = opener(schedule)

        def records() -> Any:
            for n, record in enumerate(opened.records):
                if n == 600:
                    raise InterruptedError
                yield record

        return type(opened)(records(), opened.sha256, opened.new)

    # An InterruptedError is an OSError: the lease is kept and the outcome lost, as when a process is killed.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScheduleWrites, "give_slot_up", _killed)
        with pytest.raises(asyncio.CancelledError):
            await tick(store, dying, clock)
    assert await store.runs.acquire_lease(LEASE + schedule_id, "dead", until_ms=clock() + 100, now_ms=clock())
    assert await tick(store, opener, clock) == [], "its lease is not over"
    clock.advance(100)
    (outcome,) = await tick(store, opener, clock, "other")
    assert outcome.tasks == 700
    (run,) = await slot_runs(store)
    assert run["state"] == "running"


async def _killed(*_: Any, **__: Any) -> bool:
    raise asyncio.CancelledError


@pytest.mark.parametrize("fault", ["missing", "bad", "options", "account"])
async def test_a_schedule_that_cannot_run_says_so_and_holds_nobody_up(
    store: Store, opener: OpenSource, tmp_path: Path, clock: SteppedClock, fault: str
) -> None:
    path = write_prompts(tmp_path / "a_bad.csv", ["a"])
    options: dict[str, Any] = {"options": {"country": "ZZ"}, "account": {"account": "gone"}}.get(fault, {})
    await add(store, clock, path, **options)
    await add(store, clock, write_prompts(tmp_path / "good.csv", ["a"]))
    if fault == "missing":
        path.unlink()
    elif fault == "bad":
        path.write_text("nonsense,country\nx,DE\n")
    outcomes = await tick(store, opener, clock)
    assert [(o.schedule, o.error is None) for o in outcomes if o.error is None] == [("good", True)]
    (failed,) = [o for o in outcomes if o.error is not None]
    bad, good = await store.schedules.list_schedules()
    assert bad.last_error == failed.error
    assert good.last_error is None
    errors = {
        "missing": "does not exist",
        "bad": "1 line of its file is bad",
        "options": "country",
        "account": "no account 'gone'",
    }
    assert errors[fault] in str(bad.last_error)
    assert await tick(store, opener, clock) == [], "not again before its next slot"


async def test_the_error_goes_with_the_next_good_slot(
    store: Store, opener: OpenSource, tmp_path: Path, clock: SteppedClock
) -> None:
    path = write_prompts(tmp_path / "p.csv", ["a"])
    await add(store, clock, path)
    path.unlink()
    await tick(store, opener, clock)
    write_prompts(path, ["a"])
    clock.advance(HOUR_MS)
    await tick(store, opener, clock)
    assert [row.last_error for row in await store.schedules.list_schedules()] == [None]


async def test_a_file_that_changes_while_it_is_read_is_given_up(
    store: Store, opener: OpenSource, tmp_path: Path, clock: SteppedClock
) -> None:
    path = write_prompts(tmp_path / "p.csv", [f"q{n}" for n in range(700)])
    await add(store, clock, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LoadWrites, "finish_loading", _killed)
        with pytest.raises(asyncio.CancelledError):
            await tick(store, opener, clock)
    write_prompts(path, ["edited"])
    (outcome,) = await tick(store, opener, clock)
    assert "record 1 asks something else" in str(outcome.error)
    assert {row["state"] for row in (await read_books(store)).tasks} == {"cancelled"}


async def test_paused_removed_and_named_once(
    store: Store, opener: OpenSource, tmp_path: Path, clock: SteppedClock
) -> None:
    path = write_prompts(tmp_path / "p.csv", ["a"])
    schedule_id = await add(store, clock, path)
    again = await store.schedules.add_schedule(
        name="p", source=str(path), options="{}", every_ms=1, next_at_ms=clock(), now_ms=clock()
    )
    assert again is None
    await store.schedules.enable_schedule(schedule_id, enabled=False, next_at_ms=clock())
    assert await tick(store, opener, clock) == []
    await store.schedules.enable_schedule(schedule_id, enabled=True, next_at_ms=clock())
    assert len(await tick(store, opener, clock)) == 1
    await store.schedules.remove_schedule(schedule_id)
    clock.advance(HOUR_MS)
    assert await tick(store, opener, clock) == []
    assert len(await slot_runs(store)) == 1
