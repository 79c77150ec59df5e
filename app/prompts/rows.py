"""The records of a source of prompts, CSV or JSON Lines, each as cells by column; one at a time, bounded."""

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import msgspec

from app.domain.engines.rules import EngineProblem, display
from app.domain.own_columns import PREFIX
from app.prompts.columns import COLUMNS, find_column, find_own_column, given_twice, is_asked, unsure_columns
from app.prompts.record import Defaults

RECORD_BYTES_MAX = 128 * 1024
"""A prompt of 10,000 characters, each written as two \\uXXXX, is 120,000 bytes. Also Python's own limit on a
CSV field."""

Row = tuple[int, dict[str, object] | list[EngineProblem]]
"""(line on which the record begins, its cells by column or what is wrong with it)."""


class UnreadableError(Exception):
    """The rest of the source cannot be read with any certainty."""

    def __init__(self, line: int, *problems: EngineProblem) -> None:
        super().__init__(line, problems)
        self.line = line
        self.problems = problems


class TooLongError(Exception):
    """A line above the bound; it has been passed over."""

    def __init__(self, *, quotes_match: bool) -> None:
        super().__init__()
        self.quotes_match = quotes_match


class Lines:
    """The physical lines of a source: numbered, bounded, hashed as they go by."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._kept: bytes | None = None
        self.number = 0
        self.digest = hashlib.sha256()

    def read(self) -> bytes | None:
        """The next line with its end, None after the last; raises TooLongError."""
        if self._kept is not None:
            line, self._kept = self._kept, None
            self.number += 1
            return line
        line = self._take(RECORD_BYTES_MAX + 1)
        if not line:
            return None
        self.number += 1
        if len(line) <= RECORD_BYTES_MAX:
            return line
        quotes = line.count(b'"')
        while line and not line.endswith(b"\n"):
            line = self._take(RECORD_BYTES_MAX)
            quotes += line.count(b'"')
        raise TooLongError(quotes_match=quotes % 2 == 0)

    def keep(self, line: bytes) -> None:
        """Put one line back."""
        self._kept = line
        self.number -= 1

    def _take(self, bytes_max: int) -> bytes:
        line = self._raw.readline(bytes_max)
        self.digest.update(line)
        return line


def jsonl_rows(lines: Lines, defaults: Defaults) -> Iterator[Row]:
    """A record a line; a faulty one never touches the next."""
    while True:
        try:
            line = lines.read()
        except TooLongError:
            yield lines.number, [_too_long()]
            continue
        if line is None:
            return
        if not line.strip():
            continue
        try:
            fields = _fields(line)
            yield lines.number, _repeated(line) or _named(fields, defaults)
        except UnicodeDecodeError:
            yield lines.number, [EngineProblem("line", "not UTF-8", "save the file as UTF-8")]
        except msgspec.DecodeError as error:
            yield lines.number, [EngineProblem("line", str(error), "write one JSON object on one line")]
        except RecursionError:
            yield lines.number, [EngineProblem("line", "nested too deeply", "write a plain object")]


def _repeated(line: bytes) -> list[EngineProblem]:
    """What is wrong with a JSON text that says one thing twice: any parser keeps the last of equal
    names, and drops the others without a word."""
    found: list[EngineProblem] = []

    def look(pairs: list[tuple[str, None]]) -> None:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            repeated = dict.fromkeys(name for name in names if names.count(name) > 1)
            found.extend(
                EngineProblem(display(name)[1:-1], "given twice", "keep one of them") for name in repeated
            )

    # Numbers are not read: one of many digits would be refused.
    json.loads(line, object_pairs_hook=look, parse_int=_unread, parse_float=_unread)
    return found


def _unread(_number: str) -> None:
    return None


def _fields(line: bytes) -> object:
    """The fields of a JSON object by name; as they were written, where one of them may be an own column, so
    that not a digit of its numbers changes. Raises DecodeError."""
    try:
        value = _DECODER.decode(line)
    except msgspec.ValidationError:
        # A number that no machine type holds; an own column may have it.
        return _RAW_FIELDS.decode(line)
    if isinstance(value, dict) and not value.keys() <= _COLUMNS:
        return _RAW_FIELDS.decode(line)
    return value


def _named(fields: object, defaults: Defaults) -> dict[str, object] | list[EngineProblem]:
    if not isinstance(fields, dict):
        return [EngineProblem("line", "not a JSON object", 'write {"prompt": "…"} with its fields')]
    if fields.keys() <= _COLUMNS and not any(type(cell) is msgspec.Raw for cell in fields.values()):
        return fields
    found = [pair for name, cell in fields.items() for pair in _columns_of(name, cell)]
    named = [(column, cell) for column, cell in found if isinstance(column, str)]
    columns = [column for column, _ in named]
    problems = [column for column, _ in found if not isinstance(column, str)]
    problems += given_twice(columns, "given") + unsure_columns(fields, columns, defaults.named())
    return problems or {column: _read(column, cell) for column, cell in named}


def _columns_of(name: str, cell: object) -> Iterator[tuple[str | EngineProblem, object]]:
    """The column of a field; those of the members of an object `metadata`, which are all own columns."""
    if name == "metadata" and isinstance(cell, msgspec.Raw) and bytes(cell).startswith(b"{"):
        for member, value in _RAW_FIELDS.decode(cell).items():
            yield find_own_column(member), value
    else:
        yield find_column(name), cell


def _read(column: str, cell: object) -> object:
    is_read = column.startswith(PREFIX) or not isinstance(cell, msgspec.Raw)
    return cell if is_read else _DECODER.decode(cell)  # type: ignore[arg-type]


class _CsvText:
    """Lines as text for csv.reader, which asks for as many as a record needs."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self.record_bytes = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._lines.read()
        if line is None:
            raise StopIteration
        self.record_bytes += len(line)
        if self.record_bytes > RECORD_BYTES_MAX:
            raise TooLongError(quotes_match=False)
        # Bytes that are not UTF-8 stay recognizable, so that only their own record is bad.
        return line.decode("utf-8", "surrogateescape")


def csv_rows(lines: Lines, defaults: Defaults) -> Iterator[Row]:
    """The records below the header; rows without any text are passed over, as spreadsheets write them."""
    columns: list[str | None] | None = None
    for line, row in _csv_records(lines):
        if isinstance(row, list):
            if columns is None:
                raise UnreadableError(line, *row)
            yield line, row
        elif columns is None:
            columns = _header(line, row, defaults)
        elif any(cell.strip() for cell in row):
            yield line, _cells(columns, row)


def _csv_records(lines: Lines) -> Iterator[tuple[int, tuple[str, ...] | list[EngineProblem]]]:
    """(line, cells as text or what is wrong) of every record, the header included."""
    text = _CsvText(lines)
    reader = csv.reader(text, strict=True)
    while True:
        line = lines.number + 1
        text.record_bytes = 0
        try:
            row = next(reader, None)
        except csv.Error as error:
            yield line, [_csv_problem(str(error), line, lines.number)]
            continue
        except TooLongError as error:
            # With a quote open, nobody can say where the next record begins.
            if text.record_bytes == 0 and error.quotes_match:
                yield line, [_too_long()]
                continue
            problem = f"a record longer than {RECORD_BYTES_MAX:,} bytes; a quote may be open"
            remedy = "close the quote; nothing after it was read"
            raise UnreadableError(line, EngineProblem("line", problem, remedy)) from None
        if row is None:
            return
        unusable = _bytes_problem(row)
        yield line, [unusable] if unusable else tuple(row)


def _bytes_problem(row: Iterable[str]) -> EngineProblem | None:
    joined = "\n".join(row)
    if "\x00" in joined:
        return EngineProblem("line", "contains a NUL byte", "remove it; is this a text file?")
    try:
        joined.encode()
    except UnicodeEncodeError:
        return EngineProblem("line", "not UTF-8", "save the file as UTF-8")
    return None


def _csv_problem(error: str, first: int, last: int) -> EngineProblem:
    where = f" (lines {first} to {last} were passed over)" if last > first else ""
    if "new-line character" in error:
        remedy = "end lines with LF, and quote texts of several lines"
        return EngineProblem("line", f"a bare carriage return{where}", remedy)
    if "end of data" in error:
        return EngineProblem("line", f"a quote is never closed{where}", 'close the text with "')
    remedy = 'put quotes around the whole text, and write a quote inside it twice ("")'
    return EngineProblem("line", f"a quote in the wrong place{where}", remedy)


def _too_long() -> EngineProblem:
    return EngineProblem("line", f"longer than {RECORD_BYTES_MAX:,} bytes", "shorten it")


def _header(line: int, row: tuple[str, ...], defaults: Defaults) -> list[str | None]:
    """The column of each cell, None for one without a name; raises UnreadableError with all that is wrong."""
    found = [find_column(name) if name.strip() else None for name in row]
    columns = [column if isinstance(column, str) else None for column in found]
    named = [column for column in columns if column is not None]
    faults = [column for column in found if isinstance(column, EngineProblem)]
    faults += unsure_columns(row, named, defaults.named())
    if not any(is_asked(fault) for fault in faults) and all(name.startswith(PREFIX) for name in named):
        separator = next((s for s in (";", "\t", "|") if s in row[0]), None)
        remedy = "begin the file with a line of column names, such as prompt,task_type,country"
        if separator:
            what = "tabs" if separator == "\t" else display(separator)
            remedy = f"separate columns by commas, not by {what}"
        raise UnreadableError(line, EngineProblem("header", "names no known column", remedy))
    faults += given_twice(named, "named")
    # A misspelt name explains a missing one.
    if not faults and not {"prompt", "query", "url"} & set(named):
        faults.append(EngineProblem("prompt", "missing column", "add a column named prompt (or query)"))
    if not faults and defaults.task_type is None and "task_type" not in named:
        remedy = "add a task_type column, or give a default with --task-type"
        faults.append(EngineProblem("task_type", "missing column", remedy))
    if faults:
        raise UnreadableError(line, *faults)
    return columns


def _cells(columns: list[str | None], row: tuple[str, ...]) -> dict[str, object] | list[EngineProblem]:
    if len(row) != len(columns):
        remedy = "write a comma for each blank cell"
        if len(row) > len(columns):
            remedy = "put quotes around a text that contains a comma"
        return [EngineProblem("line", f"{len(row)} fields, but the header has {len(columns)}", remedy)]
    cells: dict[str, object] = {}
    for column, cell in zip(columns, row, strict=True):
        if column is not None:
            cells[column] = cell
        elif cell.strip():
            return [
                EngineProblem("line", "a cell in a column without a name", "name the column in the header")
            ]
    return cells


_COLUMNS = frozenset(COLUMNS)
_DECODER = msgspec.json.Decoder()
_RAW_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
