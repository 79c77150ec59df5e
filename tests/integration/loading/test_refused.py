"""What a source that is refused, or was not read to its end, leaves behind."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.run_reason import BY_HAND
from app.domain.task import RunState
from app.ports import NameTaken
from app.prompts.reader import Defaults, read_prompts
from app.services.load import CHUNK, Duplicates, NewRun, load_run
from app.store import Store
from app.store.tables import metadata
from tests.clock import SteppedClock
from tests.integration.loading.reading import Interrupted
from tests.integration.store.scenes import start_run, submit_all

LINES = [f"q{n},CHATGPT,US" for n in range(2 * CHUNK)]


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(["prompt,task_type,country", *lines]) + "\n")
    return path


async def rows(store: Store) -> dict[str, int]:
    """Tables that have rows, without those of the database's own care."""

    async def count(connection: AsyncConnection) -> dict[str, int]:
        counts = {
            table.name: await connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0
            for table in metadata.sorted_tables
        }
        return {name: n for name, n in counts.items() if n and name not in ("sequences", "seen", "leases")}

    return await store.db.read(count)


@pytest.mark.parametrize(
    ("lines", "changes"),
    [
        ([], {}),
        (["q,NOPE,US"], {}),
        (["q,NOPE,US", *LINES], {"strict": True}),
        ([*LINES, "q,NOPE,US"], {"strict": True}),
        ([*LINES, LINES[0]], {"duplicates": Duplicates.ERROR}),
    ],
    ids=["empty", "all bad", "bad at once", "bad at the end", "repeated"],
)
async def test_a_refused_source_leaves_no_row(
    store: Store, tmp_path: Path, clock: SteppedClock, lines: list[str], changes: dict[str, object]
) -> None:
    before = await rows(store)
    source = read_prompts(write(tmp_path / "p.csv", lines), Defaults())
    new = NewRun("one", "p.csv", is_name_new=True, **changes)  # type: ignore[arg-type]
    loaded = await load_run(store, source, new, sha256=str, clock=clock)
    assert not loaded.started
    assert await rows(store) == before
    again = read_prompts(write(tmp_path / "p.csv", LINES), Defaults())
    assert (await load_run(store, again, new, sha256=str, clock=clock)).started, "its name is free"


async def test_what_another_producer_let_begin_is_not_discarded(store: Store) -> None:
    run_id, _ = await start_run(store)
    assert not await store.runs.discard_run(run_id)
    assert len(await store.queries.find_runs(run_id)) == 1


async def test_a_source_that_breaks_off_is_gone_on_with_and_is_not_the_latest(
    store: Store, tmp_path: Path, clock: SteppedClock
) -> None:
    path = write(tmp_path / "p.csv", LINES)
    for after, left in ((1, 0), (CHUNK + 10, 1)):
        source = Interrupted(iter(read_prompts(path, Defaults())), after)
        with pytest.raises(InterruptedError):
            await load_run(store, source, NewRun("one", str(path)), sha256=str, clock=clock)
        assert len(await store.queries.list_runs()) == left, "before its first tasks there is no run"
    assert await store.queries.latest_run() is None
    loading = await store.queries.loading_run(str(path))
    assert loading is not None
    source = read_prompts(path, Defaults())
    loaded = await load_run(
        store, source, NewRun("one", str(path)), sha256=str, clock=clock, resume=loading.id
    )
    assert (loaded.started, loaded.tasks) == (True, len(LINES))
    latest = await store.queries.latest_run()
    assert latest is not None and latest.id == loading.id


async def test_a_name_is_taken_once(store: Store, clock: SteppedClock) -> None:
    made = {"name": "monday", "source": "-", "budget": None, "now_ms": clock()}
    await store.runs.create_run(**made, is_name_new=True)  # type: ignore[arg-type]
    with pytest.raises(NameTaken):
        await store.runs.create_run(**made, is_name_new=True)  # type: ignore[arg-type]
    await store.runs.create_run(**made)  # type: ignore[arg-type]
    assert len(await store.queries.find_runs("monday")) == 2


async def test_the_latest_run_has_sent_something_or_will(store: Store, clock: SteppedClock) -> None:
    async def made(state: RunState | None) -> str:
        run_id = await store.runs.create_run(name="r", source="-", budget=None, now_ms=clock.advance(1))
        await store.runs.start_run_if_loading(run_id, sha256="", bad_lines=0)
        if state is RunState.CANCELLED:
            await store.runs.cancel_run(run_id, "by hand")
        return run_id

    async def latest() -> str | None:
        row = await store.queries.latest_run()
        return row.id if row else None

    assert await latest() is None
    paused, tasks = await start_run(store)
    clock.advance(60_000)
    await submit_all(store)
    await store.runs.halt_run_if_running(paused, RunState.PAUSED, BY_HAND)
    assert tasks
    assert await latest() == paused
    await made(RunState.CANCELLED)
    assert await latest() == paused, "that one never sent anything"
    await store.runs.cancel_run(paused, "by hand")
    assert await latest() == paused, "this one has"
    assert await latest() != await made(None) == await latest()


async def test_a_run_is_finished_for_everybody_as_soon_as_no_task_is_open(store: Store) -> None:
    run_id, _ = await start_run(store)
    await store.runs.halt_run_if_running(run_id, RunState.PAUSED, BY_HAND)
    [run] = await store.queries.find_runs(run_id)
    assert run.state == "paused"
    await store.db.write(
        lambda connection: connection.execute(sa.update(metadata.tables["tasks"]).values(state="completed"))
    )
    [run] = await store.queries.find_runs(run_id)
    assert (run.state, (await store.queries.list_runs())[0].state) == ("finished", "finished")
