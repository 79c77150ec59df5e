"""Reading the same source again: S16 to S19 of the failure catalogue."""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.domain.source_change import SourceChanged
from app.services.load import Duplicates
from app.store import Store
from tests.clock import SteppedClock
from tests.integration.loading.reading import load, run_state, stored_prompts, write_prompts

ROOT = Path(__file__).parents[3]
PROMPTS = [f"question {n}" for n in range(1, 1_301)]
STORED = [(n, prompt) for n, prompt in enumerate(PROMPTS, 1)]
ROUNDS = 3


async def interrupted_run(store: Store, path: Path, clock: SteppedClock, after: int = 1_100) -> str:
    """A run whose producer was killed after so many records; its id."""
    with pytest.raises(InterruptedError):
        await load(store, path, clock, after=after)
    (run_id,) = await store.loading.loading_runs(str(path))
    return run_id


async def test_an_interrupted_submit_goes_on_where_it_was(
    store: Store, tmp_path: Path, clock: SteppedClock
) -> None:
    path = write_prompts(tmp_path / "p.csv", PROMPTS)
    run_id = await interrupted_run(store, path, clock)
    assert len(await stored_prompts(store, run_id)) == 1_000, "whole stretches only"
    loaded = await load(store, path, clock, resume=run_id)
    assert (loaded.started, loaded.tasks, loaded.resumed_after) == (True, 1_300, 1_000)
    assert await stored_prompts(store, run_id) == STORED
    assert await run_state(store, run_id) == "running"
    assert await store.loading.loading_runs(str(path)) == []


async def test_a_source_that_cannot_be_read_at_all_leaves_no_open_run(
    store: Store, tmp_path: Path, clock: SteppedClock
) -> None:
    path = write_prompts(tmp_path / "p.csv", PROMPTS)
    with pytest.raises(InterruptedError):
        await load(store, path, clock, after=0)
    assert await store.loading.loading_runs(str(path)) == []


def start_producer(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.integration.loading.producer", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


@pytest.mark.parametrize("rounds", range(ROUNDS))
async def test_s16_two_producers_of_one_file_end_in_one_set_of_tasks(
    store: Store, store_url: str, tmp_path: Path, clock: SteppedClock, rounds: int
) -> None:
    path = write_prompts(tmp_path / "p.csv", PROMPTS)
    run_id = await store.runs.create_run(name="run", source=str(path), budget=None, now_ms=clock())
    go = tmp_path / "go"
    producers = [start_producer(store_url, str(path), run_id, str(go)) for _ in range(2)]
    try:
        for producer in producers:
            assert producer.stdout is not None
            assert producer.stdout.readline() == "ready\n"
        go.touch()
        documents = [json.loads(producer.communicate(timeout=60)[0]) for producer in producers]
    finally:
        for producer in producers:
            producer.kill()
            producer.wait()
    assert documents == [{"started": True, "tasks": 1_300}] * 2
    assert await stored_prompts(store, run_id) == STORED
    assert await run_state(store, run_id) == "running"


async def test_a_producer_that_is_killed_is_resumed_without_a_duplicate(
    store: Store, store_url: str, tmp_path: Path, clock: SteppedClock
) -> None:
    path = write_prompts(tmp_path / "p.csv", PROMPTS)
    run_id = await store.runs.create_run(name="run", source=str(path), budget=None, now_ms=clock())
    go = tmp_path / "go"
    go.touch()
    producer = start_producer(store_url, str(path), run_id, str(go), "2")
    producer.communicate()
    assert producer.returncode == -signal.SIGKILL
    assert await run_state(store, run_id) == "loading"
    known = await store.loading.last_ordinal(run_id)
    assert 0 < known < len(PROMPTS)
    loaded = await load(store, path, clock, resume=run_id)
    assert (loaded.started, loaded.tasks, loaded.resumed_after) == (True, len(PROMPTS), known)
    assert await stored_prompts(store, run_id) == STORED


async def test_s17_the_same_file_again_is_a_run_of_its_own(
    store: Store, tmp_path: Path, clock: SteppedClock
) -> None:
    path = write_prompts(tmp_path / "p.csv", PROMPTS[:3])
    first, second = await load(store, path, clock), await load(store, path, clock)
    assert first.run_id != second.run_id
    assert await stored_prompts(store, first.run_id) == await stored_prompts(store, second.run_id)


async def test_a_run_that_has_begun_takes_the_same_file_and_nothing_more(
    store: Store, tmp_path: Path, clock: SteppedClock
) -> None:
    path = write_prompts(tmp_path / "p.csv", PROMPTS[:3])
    run_id = (await load(store, path, clock)).run_id
    again = await load(store, path, clock, resume=run_id)
    assert (again.started, again.tasks) == (True, 3)
    write_prompts(path, PROMPTS[:4])
    with pytest.raises(SourceChanged, match=r"record 4 is not in the run, which is running"):
        await load(store, path, clock, resume=run_id)
    assert await stored_prompts(store, run_id) == STORED[:3]


EDITS = {
    "another prompt": ([*PROMPTS[:699], "edited", *PROMPTS[700:]], 700),
    "a line put in": ([*PROMPTS[:20], "new", *PROMPTS[20:]], 21),
    "a line taken out": ([*PROMPTS[:20], *PROMPTS[21:]], 21),
    "cut off": (PROMPTS[:900], 901),
    "a bad line among the known": ([*PROMPTS[:4], " ", *PROMPTS[5:]], 5),
}


@pytest.mark.parametrize("edit", EDITS)
async def test_s19_a_changed_file_is_refused_by_its_first_record(
    store: Store, tmp_path: Path, clock: SteppedClock, edit: str
) -> None:
    path = write_prompts(tmp_path / "p.csv", PROMPTS)
    run_id = await interrupted_run(store, path, clock)
    prompts, ordinal = EDITS[edit]
    write_prompts(path, prompts)
    with pytest.raises(SourceChanged) as refused:
        await load(store, path, clock, resume=run_id)
    assert refused.value.record == ordinal
    assert await stored_prompts(store, run_id) == STORED[:1_000]
    assert await run_state(store, run_id) == "loading"
    write_prompts(path, PROMPTS)
    assert (await load(store, path, clock, resume=run_id)).started


async def test_s19_a_line_that_was_bad_and_is_good_now_is_a_change(
    store: Store, tmp_path: Path, clock: SteppedClock
) -> None:
    path = write_prompts(tmp_path / "p.csv", [*PROMPTS[:10], " ", *PROMPTS[11:]])
    run_id = await interrupted_run(store, path, clock)
    write_prompts(path, PROMPTS)
    with pytest.raises(SourceChanged, match="record 11 was bad or left out"):
        await load(store, path, clock, resume=run_id)


async def test_s19_other_options_are_a_change(store: Store, tmp_path: Path, clock: SteppedClock) -> None:
    path = write_prompts(tmp_path / "p.csv", PROMPTS)
    run_id = await interrupted_run(store, path, clock)
    write_prompts(path, PROMPTS, country="FR")
    with pytest.raises(SourceChanged, match="record 1 asks something else"):
        await load(store, path, clock, resume=run_id)


async def test_a_longer_file_that_came_first_keeps_the_shorter_one_from_beginning(
    store: Store, tmp_path: Path, clock: SteppedClock
) -> None:
    long = write_prompts(tmp_path / "long.csv", PROMPTS)
    run_id = await interrupted_run(store, long, clock)
    short = write_prompts(tmp_path / "short.csv", PROMPTS[:500])
    with pytest.raises(SourceChanged, match="record 501 is in the run, and the file ends before it"):
        await load(store, short, clock, resume=run_id)
    assert await run_state(store, run_id) == "loading"


async def test_a_cancelled_run_is_not_resumed(store: Store, tmp_path: Path, clock: SteppedClock) -> None:
    path = write_prompts(tmp_path / "p.csv", PROMPTS)
    run_id = await interrupted_run(store, path, clock)
    await store.runs.cancel_run(run_id, "by hand")
    with pytest.raises(SourceChanged, match="record 1001 is not in the run, which is cancelled"):
        await load(store, path, clock, resume=run_id)
    assert len(await stored_prompts(store, run_id)) == 1_000


async def test_s18_repeated_records_are_kept_and_counted(
    store: Store, tmp_path: Path, clock: SteppedClock
) -> None:
    path = write_prompts(tmp_path / "p.csv", ["a", "b", "a", "a"])
    loaded = await load(store, path, clock)
    assert (loaded.started, loaded.tasks, loaded.duplicates) == (True, 4, 2)


async def test_s18_repeated_records_can_be_an_error(
    store: Store, tmp_path: Path, clock: SteppedClock
) -> None:
    path = write_prompts(tmp_path / "p.csv", ["a", "b", "a", "a"])
    loaded = await load(store, path, clock, duplicates=Duplicates.ERROR)
    assert (loaded.started, loaded.duplicates, loaded.duplicates_named) == (False, 2, [(3, 1), (4, 1)])
    assert await store.queries.find_runs(loaded.run_id) == []
    assert (await load(store, write_prompts(path, ["a", "b"]), clock, duplicates=Duplicates.ERROR)).started


async def test_s18_repeated_records_can_be_merged_however_the_file_is_cut(
    store: Store, tmp_path: Path, clock: SteppedClock, seed: int
) -> None:
    chance = random.Random(seed)
    prompts = [f"q{chance.randrange(900)}" for _ in range(1_600)]
    path = write_prompts(tmp_path / "p.csv", prompts)
    first = {prompt: n for n, prompt in reversed(list(enumerate(prompts, 1)))}
    expected = sorted((n, prompt) for prompt, n in first.items())
    whole = await load(store, path, clock, duplicates=Duplicates.MERGE)
    assert await stored_prompts(store, whole.run_id) == expected, f"seed {seed}"
    assert (whole.tasks, whole.duplicates) == (len(expected), 1_600 - len(expected))
    with pytest.raises(InterruptedError):
        await load(store, path, clock, duplicates=Duplicates.MERGE, after=chance.randrange(600, 1_500))
    (run_id,) = await store.loading.loading_runs(str(path))
    resumed = await load(store, path, clock, duplicates=Duplicates.MERGE, resume=run_id)
    assert await stored_prompts(store, run_id) == expected, f"seed {seed}"
    assert (resumed.started, resumed.tasks, resumed.duplicates) == (True, whole.tasks, whole.duplicates)
