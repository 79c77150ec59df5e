"""The short form of `python -m benchmarks.own_columns`: every export is the input, column by column."""

from pathlib import Path

import pytest

from app.cli.runs.remaining import export_remaining
from app.files.export import Format, rows_of, write_file
from app.prompts.reader import Defaults, read_prompts
from app.services.load import NewRun, load_run
from app.store import Store
from app.views.export_rows import ExportContent
from benchmarks.own_columns import OWN, differing, write_csv, write_jsonl
from tests.clock import SteppedClock

TASKS = 700


@pytest.mark.parametrize("source", ["jsonl", "csv"])
async def test_every_export_is_the_input_column_by_column(
    store: Store, clock: SteppedClock, tmp_path: Path, source: str
) -> None:
    path = tmp_path / f"in.{source}"
    (write_jsonl if source == "jsonl" else write_csv)(path, TASKS)
    reader = read_prompts(path, Defaults("CHATGPT", "DE"))
    loaded = await load_run(
        store, reader, NewRun("own", str(path)), sha256=lambda: reader.sha256, clock=clock
    )
    assert (loaded.tasks, loaded.bad_lines, sorted(reader.own_columns)) == (TASKS, 0, sorted(OWN))
    (run,) = await store.queries.find_runs(loaded.run_id)
    own = await store.exports.own_column_names(run.id)
    outputs = []
    for format_ in Format:
        outputs.append(tmp_path / f"out.{format_}")
        rows = rows_of(store, ExportContent.RESULTS, run.id)
        await write_file(rows, ExportContent.RESULTS, format_, outputs[-1], own)
    for format_ in (Format.JSONL, Format.CSV):
        outputs.append(tmp_path / f"rest.{format_}")
        await export_remaining(store, run, format_, str(outputs[-1]), as_json=True)
    found = {out.name: differing(out, TASKS, is_json_source=source == "jsonl") for out in outputs}
    assert set(found.values()) == {0}, found
