"""Writes rows, such as a run's tasks with their answers, as JSON lines, CSV or Parquet, one by one, however
many there are.
"""

import codecs
import functools
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from app.domain.credits import to_json_number
from app.domain.time_format import iso_utc
from app.errors import USAGE, UserError
from app.files.atomic_file import atomic_file
from app.store import Store
from app.store.read.exports import Row
from app.views.export_rows import ColumnKind, ExportContent, flat_row, row_line, table_columns

NUMBER = re.compile(r"[+-]?[0-9]+([.,][0-9]+)?([eE][+-]?[0-9]+)?")
FORMULA = re.compile(r"[\t\r]|[\s\u200b\ufeff]*[=+\-@＝＋－＠]")
"""How a text begins that some spreadsheet takes for a formula: blanks before it, and the full-width signs of
Japanese keyboards, change nothing for it."""
EXCEL_CHARS_MAX = 32_767
"""In a cell, counted in UTF-16; Excel cuts what is longer as it opens a file."""


class Format(StrEnum):
    """How rows are written out."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


@dataclass(frozen=True, slots=True)
class Shape:
    """What rows of one kind have, in every format."""

    columns: Mapping[str, ColumnKind]
    values_of: Callable[[Any], list[Any]]
    """A row's values, in the order of the columns."""
    line_of: Callable[[Any], bytes] = row_line
    """A row as a line of JSON."""


def shape_of(what: ExportContent, own: Sequence[str] = ()) -> Shape:
    """Of the rows of a run; `own`: the own columns that a table has."""
    return Shape(table_columns(what, own), functools.partial(flat_row, what, own))


class Sink(Protocol):
    """Takes rows one at a time, and keeps no more of them than it says."""

    def write(self, row: Any) -> None: ...

    def close(self) -> None:
        """Write what is still kept. The file itself is the caller's."""


def rows_of(store: Store, what: ExportContent, run_id: str) -> AsyncIterator[Row]:
    """The rows of a run, from the store."""
    return (
        store.exports.export(run_id) if what is ExportContent.RESULTS else store.exports.export_ledger(run_id)
    )


def sink_for(
    what: ExportContent,
    format_: Format,
    output: BinaryIO,
    own: Sequence[str] = (),
    long_cells: "Counter[str] | None" = None,
) -> Sink:
    """The writer of a run's rows. Raises UserError, as `writer`."""
    return writer(shape_of(what, own), format_, output, long_cells)


def writer(shape: Shape, format_: Format, output: BinaryIO, long_cells: "Counter[str] | None" = None) -> Sink:
    """Of a format. Raises UserError when what it needs is not installed."""
    if format_ is Format.JSONL:
        return JsonLines(output, shape.line_of)
    if format_ is Format.CSV:
        return CsvTable(shape, output, long_cells)
    refuse_without_pyarrow()
    from app.files.export_parquet import ParquetTable

    return ParquetTable(shape.columns, shape.values_of, output)


def refuse_without_pyarrow() -> None:
    """Raises UserError with the remedy when Parquet cannot be written."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise UserError(
            "parquet_missing",
            "Parquet needs pyarrow, which is not installed",
            "pip install 'tallyhook[parquet]', or choose jsonl or csv",
            exit_code=USAGE,
        ) from error


async def write_file(
    rows: AsyncIterator[Row],
    what: ExportContent,
    format_: Format,
    path: Path,
    own: Sequence[str] = (),
    long_cells: "Counter[str] | None" = None,
) -> int:
    """As write_rows, into a file that is there whole or not at all. Raises UserError."""
    with atomic_file(path) as output:
        return await write_rows(rows, sink_for(what, format_, output, own, long_cells))


async def write_rows(rows: AsyncIterator[Row], sink: Sink) -> int:
    """Write every row; how many."""
    count = 0
    try:
        async for row in rows:
            sink.write(row)
            count += 1
    finally:
        # Also after an error: pyarrow would otherwise close its file later, when there is none any more.
        sink.close()
    return count


class JsonLines:
    """One JSON object a line."""

    def __init__(self, output: BinaryIO, line_of: Callable[[Any], bytes] = row_line) -> None:
        self._output = output
        self._line_of = line_of

    def write(self, row: Any) -> None:
        self._output.write(self._line_of(row))

    def close(self) -> None:
        self._output.flush()


class CsvTable:
    """A header row and one row for each; UTF-8, which Excel believes only behind a byte order mark."""

    def __init__(self, shape: Shape, output: BinaryIO, long_cells: "Counter[str] | None" = None) -> None:
        self._values_of = shape.values_of
        self._names = list(shape.columns)
        self._kinds = list(shape.columns.values())
        self._output = output
        self._long_cells = long_cells
        if long_cells is not None:
            self._output.write(codecs.BOM_UTF8)
        self._output.write(csv_line(map(_guarded, self._names)))

    def write(self, row: Any) -> None:
        cells = list(map(_cell, self._kinds, self._values_of(row)))
        if self._long_cells is not None:
            self._long_cells.update(
                name for name, cell in zip(self._names, cells, strict=True) if _is_too_long_for_excel(cell)
            )
        self._output.write(csv_line(cells))

    def close(self) -> None:
        self._output.flush()


def csv_line(cells: Iterable[str]) -> bytes:
    """One row of cells that are written as they are."""
    return f"{','.join(map(_quoted, cells))}\n".encode()


def _cell(kind: ColumnKind, value: Any) -> str:
    if value is None:
        return ""
    if kind is ColumnKind.WHOLE:
        return str(value)
    if kind is ColumnKind.CREDITS:
        return str(to_json_number(value))
    if kind is ColumnKind.TIME:
        return str(iso_utc(value))
    text = " ".join(value) if kind is ColumnKind.TEXTS else str(value)
    # A number is no formula, whatever its sign; in a column of figures the apostrophe would be in the way.
    return text if kind is ColumnKind.OWN and NUMBER.fullmatch(text) else _guarded(text)


def _guarded(text: str) -> str:
    # Answers and prompts are other people's text: a spreadsheet must not take one for a formula.
    return f"'{text}" if FORMULA.match(text) else text


def _is_too_long_for_excel(cell: str) -> bool:
    return 2 * len(cell) > EXCEL_CHARS_MAX and len(cell.encode("utf-16-le")) > 2 * EXCEL_CHARS_MAX


def _quoted(cell: str) -> str:
    # The csv module goes through an answer of 18 KB character by character, which makes an export four times
    # as slow; and it leaves a lone carriage return unquoted, which readers take for the end of a row.
    if any(mark in cell for mark in ',"\r\n'):
        return '"' + cell.replace('"', '""') + '"'
    return cell
