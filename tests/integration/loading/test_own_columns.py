"""What a record says for its author stays with its task, whatever becomes of the task."""

import csv
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.cli.runs.remaining import export_remaining, remaining_format
from app.domain.own_columns import OwnColumns
from app.domain.source_change import SourceChanged
from app.domain.task import TaskSpec, TaskState
from app.files.export import Format
from app.services.load import CHUNK
from app.store import Store
from app.store.tables import task_metadata
from app.views.export_rows import SETTLED_COLUMNS, settled_row
from tests.clock import SteppedClock
from tests.integration.loading.reading import load
from tests.integration.services.pipeline import Pipeline

HOUR_MS = 3_600_000
TASKS = CHUNK + 100


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    defaults = {"task_type": "CHATGPT", "country": "DE"}
    path.write_text("".join(json.dumps(defaults | row) + "\n" for row in rows))
    return path


def numbered(count: int) -> list[dict[str, Any]]:
    return [
        {"prompt": f"q{n}", "custom_id": f"row {n}", "brand_id": f"{n:05}", "more": {"z": n, "a": [1.5]}}
        for n in range(1, count + 1)
    ]


async def own_of(store: Store, run_id: str) -> list[tuple[str | None, Any]]:
    return [
        (row["custom_id"], None if row["metadata"] is None else json.loads(row["metadata"]))
        async for row in store.exports.export(run_id)
    ]


def expected(rows: list[dict[str, Any]]) -> list[tuple[str | None, Any]]:
    return [(row["custom_id"], {"brand_id": row["brand_id"], "more": row["more"]}) for row in rows]


async def stored_rows(store: Store) -> int:
    count = sa.select(sa.func.count()).select_from(task_metadata)
    return await store.db.read(lambda connection: connection.scalar(count)) or 0


async def test_own_columns_survive_an_interrupted_submit(
    store: Store, tmp_path: Path, clock: SteppedClock
) -> None:
    rows = numbered(TASKS)
    path = write_rows(tmp_path / "p.jsonl", rows)
    with pytest.raises(InterruptedError):
        await load(store, path, clock, after=CHUNK + 10)
    (run_id,) = await store.loading.loading_runs(str(path))
    assert await stored_rows(store) == CHUNK
    for change in ({"brand_id": "x"}, {"custom_id": "x"}, {"more": None}):
        write_rows(path, [rows[0] | change, *rows[1:]])
        with pytest.raises(SourceChanged, match="record 1 has another custom_id or other own columns"):
            await load(store, path, clock, resume=run_id)
    loaded = await load(store, write_rows(path, rows), clock, resume=run_id)
    assert (loaded.tasks, loaded.bad_lines) == (TASKS, 0)
    assert await own_of(store, run_id) == expected(rows)
    assert await store.exports.own_column_names(run_id) == ["brand_id", "more"]


async def test_a_custom_id_is_one_records_of_its_run(
    store: Store, tmp_path: Path, clock: SteppedClock
) -> None:
    rows = numbered(TASKS)
    rows[3]["custom_id"] = "row 2"
    rows[CHUNK + 5]["custom_id"] = "row 7"
    rows[CHUNK + 6]["custom_id"] = ""
    path = write_rows(tmp_path / "p.jsonl", rows)
    loaded = await load(store, path, clock)
    assert (loaded.tasks, loaded.bad_lines) == (TASKS - 2, 2)
    assert [(bad.line, bad.field, bad.problem) for bad in loaded.bad.kept] == [
        (4, "custom_id", "'row 2' is the custom_id of line 2 too"),
        (CHUNK + 6, "custom_id", "'row 7' is the custom_id of line 7 too"),
    ]
    again = await load(store, path, clock)
    assert again.tasks == TASKS - 2, "unique within a run, not among runs"
    strict = await load(store, path, clock, strict=True)
    assert not strict.started
    assert await store.queries.find_runs(strict.run_id) == []


async def test_a_file_without_own_columns_costs_no_row(
    store: Store, tmp_path: Path, clock: SteppedClock
) -> None:
    path = tmp_path / "p.csv"
    path.write_text("task_type,country,prompt\nCHATGPT,DE,a\n")
    run_id = (await load(store, path, clock)).run_id
    assert await own_of(store, run_id) == [(None, None)]
    assert await stored_rows(store) == 0


async def test_each_task_keeps_its_own_through_reuse_and_retry(
    store: Store, tmp_path: Path, clock: SteppedClock
) -> None:
    pipeline = Pipeline(store, clock)
    first = numbered(2)
    run_id = (await load(store, write_rows(tmp_path / "a.jsonl", first), clock)).run_id
    await pipeline.submit()
    accepted = [row for rows in pipeline.provider.accepted.values() for row in rows]
    for row, status in zip(accepted, ("COMPLETED", "FAILED"), strict=True):
        row.status = status
        row.charged = row.to_charge if status == "COMPLETED" else Decimal(0)
        row.response = {"text": "an answer"} if status == "COMPLETED" else None
        await pipeline.deliver(row)
    chunk = await store.retries.retry_chunk(
        run_id, [TaskState.FAILED], after=0, limit=10, even_if_held=False, now_ms=clock()
    )
    assert chunk.retried == 1
    settled = {row["ordinal"]: row for row in (await store.settled.settled_after(0)).rows}
    metadata = dict(zip(SETTLED_COLUMNS, settled_row(settled[1]), strict=True))["metadata"]
    assert json.loads(metadata) == expected(first)[0][1], "as export --follow has it"
    ledger = [row async for row in store.exports.export_ledger(run_id)]
    assert {row["custom_id"] for row in ledger} == {"row 1", "row 2"}
    assert await own_of(store, run_id) == expected(first)

    second = [row | {"custom_id": f"new {n}", "brand_id": "other"} for n, row in enumerate(first)]
    loaded = await load(store, write_rows(tmp_path / "b.jsonl", second), clock, reuse_within_ms=HOUR_MS)
    assert loaded.reused == 1, "own columns are no part of what is compared"
    assert await own_of(store, loaded.run_id) == expected(second)
    assert await own_of(store, run_id) == expected(first)
    for sent in pipeline.provider.sends:
        assert "brand_id" not in str(sent) and "row 1" not in str(sent)


async def test_a_csv_file_is_as_good(store: Store, tmp_path: Path, clock: SteppedClock) -> None:
    path = tmp_path / "p.csv"
    rows = [
        ["prompt", "task_type", "country", "Brand ID", "notes", "credits"],
        ["a", "CHATGPT", "DE", "007", 'a "quote", and\nmore', "-5"],
        ["b", "CHATGPT", "DE", "", " ", "1e9"],
    ]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    run_id = (await load(store, path, clock)).run_id
    names = rows[0][3:]
    assert await own_of(store, run_id) == [(None, dict(zip(names, row[3:], strict=True))) for row in rows[1:]]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
async def test_what_has_no_answer_is_written_as_a_file_of_the_same_tasks(
    store: Store, tmp_path: Path, clock: SteppedClock, ending: str
) -> None:
    pipeline = Pipeline(store, clock)
    path = tmp_path / "p.csv"
    rows = ["prompt,task_type,country,custom_id,brand_id,market,page url,credits"]
    rows += [f'"=q{n}, ""x""\n",CHATGPT,DE,c{n},00{n},,"a\n{n}",-{n}' for n in range(4)]
    path.write_text("\n".join(rows) + "\n")
    run_id = (await load(store, path, clock)).run_id
    await pipeline.submit()
    accepted = [row for rows in pipeline.provider.accepted.values() for row in rows]
    for row, status in zip(accepted[:2], ("COMPLETED", "FAILED"), strict=True):
        row.status = status
        row.charged = row.to_charge if status == "COMPLETED" else Decimal(0)
        row.response = {"text": "an answer"} if status == "COMPLETED" else None
        await pipeline.deliver(row)
    (run,) = await store.queries.find_runs(run_id)
    out = tmp_path / f"rest.{ending}"
    await export_remaining(store, run, remaining_format(None, str(out)), str(out), as_json=True)
    rest = (await load(store, out, clock)).run_id
    asked = ("task_type", "payload", "priority", "custom_id", "metadata")
    before = [
        [row[name] for name in asked]
        async for row in store.exports.export(run_id)
        if row["state"] != "completed"
    ]
    assert [[row[name] for name in asked] async for row in store.exports.export(rest)] == before
    assert len(before) == 3


async def test_a_run_that_has_every_answer_leaves_nothing_to_be_bought_again(
    store: Store, tmp_path: Path, clock: SteppedClock
) -> None:
    run_id = (await load(store, write_rows(tmp_path / "p.jsonl", numbered(1)), clock)).run_id
    pipeline = Pipeline(store, clock)
    await pipeline.submit()
    ((row,),) = pipeline.provider.accepted.values()
    row.status, row.charged, row.response = "COMPLETED", row.to_charge, {"text": "x"}
    await pipeline.deliver(row)
    (run,) = await store.queries.find_runs(run_id)
    rest = write_rows(tmp_path / "rest.jsonl", numbered(3))
    await export_remaining(store, run, Format.JSONL, str(rest), as_json=True)
    assert rest.read_bytes() == b"", "not what an earlier export left"


async def test_tasks_that_are_stored_at_once_have_theirs_too(store: Store, clock: SteppedClock) -> None:
    run_id = await store.runs.create_run(name="r", source="-", budget=None, now_ms=clock())
    payload = {"prompt": "x", "country": "DE"}
    spec = TaskSpec(1, "CHATGPT", payload, own=OwnColumns(0, "c1", '{"a":1}'))
    await store.runs.add_tasks(run_id, [(spec, Decimal(5))], clock())
    assert await own_of(store, run_id) == [("c1", {"a": 1})]
