"""Several samples of a prompt are tasks with keys of their own, and stay together."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.cli.runs.remaining import export_remaining
from app.domain.source_change import SourceChanged
from app.domain.task import TaskSpec
from app.files.export import Format
from app.services.load import CHUNK, Duplicates
from app.store import Store
from app.store.tables import task_metadata, task_repeats
from tests.books import check_books, read_books
from tests.clock import SteppedClock
from tests.integration.loading.reading import load
from tests.integration.services.pipeline import Pipeline

HOUR_MS = 3_600_000
Record = tuple[str, int, dict[str, Any]]
"""Prompt, number of samples, own columns."""


def write(path: Path, *records: Record) -> Path:
    defaults = {"task_type": "CHATGPT", "country": "DE"}
    rows = [defaults | {"prompt": prompt, "repeats": n} | own for prompt, n, own in records]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


async def rows_of(store: Store, run_id: str) -> list[dict[str, Any]]:
    return [row async for row in store.exports.export(run_id)]


async def answer(pipeline: Pipeline, count: int) -> None:
    """Send all, and have so many answered, the others failed."""
    await pipeline.submit()
    accepted = [row for rows in pipeline.provider.accepted.values() for row in rows]
    for n, row in enumerate(accepted):
        row.status = "COMPLETED" if n < count else "FAILED"
        row.charged = row.to_charge if n < count else Decimal(0)
        row.response = {"text": f"answer {n}"} if n < count else None
        await pipeline.deliver(row)
    pipeline.provider.accepted.clear()


async def test_samples_are_cut_anywhere_and_resumed(
    store: Store, tmp_path: Path, clock: SteppedClock
) -> None:
    many = CHUNK // 2 + 100
    records: list[Record] = [
        ("a", many, {"custom_id": "x", "brand": 1}),
        ("b", many, {"custom_id": "y"}),
        ("c", 1, {}),
    ]
    repeated: Record = ("a", 2, {"custom_id": "x"})
    path = write(tmp_path / "p.jsonl", *records, repeated)
    with pytest.raises(InterruptedError):
        await load(store, path, clock, after=CHUNK + 10)
    (run_id,) = await store.loading.loading_runs(str(path))
    with pytest.raises(SourceChanged, match="record 2 asks something else"):
        await load(store, write(path, records[0], ("z", many, {})), clock, resume=run_id)
    loaded = await load(store, write(path, *records, repeated), clock, resume=run_id)
    assert (loaded.tasks, loaded.estimate) == (2 * many + 1, Decimal(5) * (2 * many + 1))
    assert (loaded.repeated, loaded.samples, loaded.resumed_record) == (2, 2 * many, 2)
    assert (loaded.bad_lines, loaded.bad.kept[0].line, loaded.duplicates) == (1, 4, 0)
    rows = await rows_of(store, run_id)
    assert [(r["custom_id"], r["sample"], r["repeats"]) for r in rows] == [
        *(("x", n, many) for n in range(1, many + 1)),
        *(("y", n, many) for n in range(1, many + 1)),
        (None, None, None),
    ]
    assert rows[many - 1]["metadata"] == '{"brand":1}'
    assert {row["samples_answered"] for row in rows} == {0, None}
    keys = {task["idempotency_key"] for task in (await read_books(store)).tasks}
    assert len(keys) == len(rows)


async def test_samples_repeat_nothing_and_other_records_do(
    store: Store, tmp_path: Path, clock: SteppedClock
) -> None:
    path = write(tmp_path / "p.jsonl", ("a", 3, {}), ("b", 2, {}), ("a", 2, {}))
    assert (await load(store, path, clock)).duplicates == 1
    merged = await load(store, path, clock, duplicates=Duplicates.MERGE)
    assert (merged.tasks, merged.duplicates, merged.repeated, merged.samples) == (5, 1, 2, 5)
    refused = await load(store, path, clock, duplicates=Duplicates.ERROR)
    assert refused.duplicates_named == [(3, 1)], "records are named, not tasks"


async def test_a_row_is_stored_for_a_record_that_needs_one_only(
    store: Store, tmp_path: Path, clock: SteppedClock
) -> None:
    path = write(tmp_path / "p.jsonl", ("a", 2, {}), ("a", 2, {}))
    await load(store, path, clock, duplicates=Duplicates.ERROR)
    await load(store, write(path, ("a", 1, {}), ("b", 1, {})), clock)
    await load(store, write(path, ("a", 5, {"brand": 1})), clock)
    own = sa.select(sa.func.count()).select_from(task_metadata)
    assert await store.db.read(lambda connection: connection.scalar(own)) == 1, "a row for each sample"
    count = sa.select(sa.func.count()).select_from(task_repeats)
    assert await store.db.read(lambda connection: connection.scalar(count)) == 1


async def test_what_lacks_is_asked_for_again_and_what_is_there_is_reused(
    store: Store, tmp_path: Path, clock: SteppedClock
) -> None:
    pipeline = Pipeline(store, clock)
    path = write(
        tmp_path / "p.jsonl", ("a", 3, {"custom_id": "x"}), ("b", 2, {"custom_id": "y"}), ("c", 1, {})
    )
    first = await load(store, path, clock)
    await answer(pipeline, 2)
    rows = await rows_of(store, first.run_id)
    assert [(row["sample"], row["repeats"], row["samples_answered"]) for row in rows] == [
        (1, 3, 2),
        (2, 3, 2),
        (3, 3, 2),
        (1, 2, 0),
        (2, 2, 0),
        (None, None, None),
    ]
    followed = (await store.settled.settled_after(0)).rows
    assert sorted((row["ordinal"], row["sample"], row["repeats"]) for row in followed)[:2] == [
        (1, 1, 3),
        (2, 2, 3),
    ]
    (run,) = await store.queries.find_runs(first.run_id)
    rest = tmp_path / "rest.jsonl"
    await export_remaining(store, run, Format.JSONL, str(rest), as_json=True)
    kept = [json.loads(line) for line in rest.read_text().splitlines()]
    assert [(row.get("custom_id"), row["repeats"]) for row in kept] == [("x", 1), ("y", 2), (None, 1)]

    clock.advance(1)
    again = await load(store, path, clock, reuse_within_ms=HOUR_MS)
    assert (again.tasks, again.reused, again.estimate) == (6, 2, Decimal(20))
    reused = [row["reused_from"] for row in await rows_of(store, again.run_id)]
    assert sorted(reused[:2]) == sorted(row["task_id"] for row in rows[:2]), "each sample another answer"
    assert reused[2:] == [None] * 4
    assert await reused_one_by_one(store, clock) == [*reused[:2], None], "wherever a chunk ends"
    check_books(await read_books(store))


async def reused_one_by_one(store: Store, clock: SteppedClock) -> list[str | None]:
    """What three samples of "a" are answered by, each in a chunk of its own."""
    run_id = await store.runs.create_run(
        name="x", source="-", budget=None, now_ms=clock(), reuse_within_ms=HOUR_MS
    )
    spec = TaskSpec(1, "CHATGPT", {"prompt": "a", "country": "DE"}, repeats=3)
    for sample in spec.samples():
        await store.loading.store_chunk(
            run_id, [(sample, Decimal(5))], after=sample.ordinal - 1, known_to=0, merge=True, now_ms=clock()
        )
    return [row["reused_from"] for row in await rows_of(store, run_id)]
