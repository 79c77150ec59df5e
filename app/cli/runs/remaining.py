"""Writes the tasks of a run that have no answer as an input file, which asks the same again. Samples of one
record are one again, which asks for as many as it lacks.
"""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from app.cli.terminal import draw_line, error_console, show, stdout_bytes
from app.domain.task import OPEN_STATES
from app.domain.text import agreeing, counted, storable
from app.errors import USAGE, UserError
from app.files.atomic_file import atomic_file
from app.files.export import Format, csv_line
from app.prompts.columns import COLUMNS
from app.prompts.rewrite import CannotSay, Stored, csv_record, json_record, own_name
from app.store import Store
from app.store.read.exports import Row
from app.store.read.runs import RunRow
from app.views.own_columns import own_cells
from app.views.runs import Document, run_document

OTHER_ENDINGS = (".tsv", ".tab", ".gz", ".parquet")
"""By which a file is read otherwise than it would be written here."""


def remaining_format(given: str | None, output: str) -> Format:
    """As it is asked for, else by the ending of the file, since whoever reads it goes by that. Raises
    UserError."""
    ending = Path(output).suffix.lower()
    if ending in OTHER_ENDINGS:
        raise _bad(f"{output} would be read as something else", "let it end in .csv or .jsonl")
    is_csv = ending == ".csv"
    format_ = Format(given) if given else Format.CSV if is_csv else Format.JSONL
    if format_ is Format.PARQUET:
        raise _bad("--remaining writes an input file, which is jsonl or csv", "leave out --format parquet")
    if output != "-" and is_csv != (format_ is Format.CSV):
        ending = "something else than .csv" if is_csv else ".csv"
        raise _bad(
            f"{output} would be read as {'CSV' if is_csv else 'JSON Lines'}", f"let it end in {ending}"
        )
    return format_


async def export_remaining(store: Store, run: RunRow, format_: Format, output: str, *, as_json: bool) -> None:
    """Write the file, or to standard output, and say what was written. Without a task the file is empty:
    one of an earlier time that stayed would be bought again."""
    rows, is_open, is_repeated = 0, 0, False
    async for row in store.exports.remaining(run.id):
        rows += 1
        is_open += row["state"] in OPEN_STATES
        is_repeated |= row["repeats"] is not None
    if output != "-":
        with atomic_file(Path(output)) as file:
            if rows:
                await _write(store, run, format_, file, is_repeated=is_repeated)
    elif rows:
        await _write(store, run, format_, stdout_bytes(format_), is_repeated=is_repeated)
    document = _document(run, rows, is_open, output)
    if output == "-":
        error_console().print(document["message"], markup=False, highlight=False)
    else:
        show(document, as_json=as_json, draw=draw_line)


async def _write(store: Store, run: RunRow, format_: Format, output: BinaryIO, *, is_repeated: bool) -> None:
    line = _json_line if format_ is Format.JSONL else await _csv_lines(store, run, output, is_repeated)
    async for row in _records(store.exports.remaining(run.id)):
        # Said of each record, so that --repeats adds nothing to one that lacks a single sample.
        output.write(line(row if is_repeated else row | {"repeats": None}))
    output.flush()


async def _records(rows: AsyncIterator[Row]) -> AsyncIterator[Row]:
    """The first row of each record, its `repeats` the samples of it that are among `rows`."""
    record: Row | None = None
    async for row in rows:
        if record is not None and row["repeats"] is not None and _first(row) == _first(record):
            record["repeats"] += 1
            continue
        if record is not None:
            yield record
        record = row | {"repeats": 1, "sample": row["sample"] or 1}
    if record is not None:
        yield record


def _first(row: Row) -> int:
    return int(row["ordinal"] - row["sample"])


def _stored(row: Row) -> Stored:
    return Stored(
        row["task_type"], row["payload"], row["priority"], row["custom_id"], row["metadata"], row["repeats"]
    )


def _json_line(row: Row) -> bytes:
    return msgspec.json.encode(json_record(_stored(row))) + b"\n"


async def _csv_lines(
    store: Store, run: RunRow, output: BinaryIO, is_repeated: bool
) -> Callable[[Row], bytes]:
    """Write the header, of the columns that the run uses; the lines below it."""
    used = {"task_type", "priority"} | ({"repeats"} if is_repeated else set())
    async for row in store.exports.remaining(run.id):
        used |= row["payload"].keys() | ({"custom_id"} if row["custom_id"] is not None else set())
    columns = [column for column in COLUMNS if column in used]
    own = await store.exports.own_column_names(run.id)
    output.write(csv_line([*columns, *(own_name(name, columns) for name in own)]))

    def line(row: Row) -> bytes:
        try:
            cells = csv_record(_stored(row))
        except CannotSay as error:
            what = f"record {row['ordinal']} asks for something that CSV has no words for"
            raise UserError("unwritable", what, "choose --format jsonl") from error
        texts = (storable(cell or "") for cell in own_cells(row["metadata"], own))
        return csv_line([*(cells.get(column, "") for column in columns), *texts])

    return line


def _document(run: RunRow, rows: int, is_open: int, output: str) -> Document:
    message = f"{counted(rows, 'task')} of {run.name} without an answer written to {output}"
    if not rows:
        rest = "there is nothing to write" if output == "-" else f"{output} is empty"
        message = f"every task of {run.name} has its answer: {rest}"
    elif output == "-":
        message = f"{counted(rows, 'task')} of {run.name} without an answer written"
    if is_open:
        message += (
            f"; {is_open} of them {agreeing(is_open)} open and may "
            f"be answered yet: submit the file when the run is over, "
            "or they are bought twice"
        )
    return {"run": run_document(run), "rows": rows, "open": is_open, "output": output, "message": message}


def _bad(what: str, remedy: str) -> UserError:
    return UserError("bad_option", what, remedy, exit_code=USAGE)
