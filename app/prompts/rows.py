"""The records of a source of prompts, CSV or JSON Lines, each as cells by column; one at a time, bounded."""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator

import msgspec

from app.domain.engines.rules import EngineProblem, display
from app.domain.own_columns import NAMES_MAX, PREFIX
from app.prompts.columns import COLUMNS, find_column, find_own_column, given_twice, is_asked, unsure_columns
from app.prompts.delimiter import shown
from app.prompts.lines import RECORD_BYTES_MAX, BadByte, Lines, TooLongError, UnreadableError
from app.prompts.own import too_many_names
from app.prompts.record import Defaults

REPEATED_NAMED = 10
"""Names of one object that stand in it twice: whoever sends thousands gets no answer as long."""
Row = tuple[int, dict[str, object] | list[EngineProblem]]
"""(line on which the record begins, its cells by column or what is wrong with it)."""


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
        text, bad = lines.text(line)
        if bad is not None:
            yield lines.number, [lines.bad_byte_problem(bad)]
            continue
        if not text.strip():
            continue
        try:
            fields = _fields(text.encode())
            yield lines.number, repeated_members(text) or _named(fields, defaults)
        except msgspec.DecodeError as error:
            yield lines.number, [EngineProblem("line", str(error), _json_remedy(text))]
        except RecursionError:
            yield lines.number, [EngineProblem("line", "nested too deeply", "write a plain object")]


def _json_remedy(line: str) -> str:
    """What to do with a line that is no JSON, by the ways in which programs write it."""
    if _NO_NUMBER.search(line):
        return "write null: JSON has no word for what is no number"
    if line.rstrip().endswith("},"):
        return "write one JSON object a line, without commas between"
    if re.match(r"\s*\{\s*'", line):
        return "write names and texts in double quotes"
    if _HALF.search(line):
        return "write the whole character: half of a pair was cut off"
    return "write one JSON object on one line"


def repeated_members(line: str) -> list[EngineProblem]:
    """What is wrong with a JSON text that says one thing twice: any parser keeps the last of equal
    names, and drops the others without a word."""
    found: list[EngineProblem] = []

    def look(pairs: list[tuple[str, None]]) -> None:
        counts = Counter(name for name, _ in pairs)
        if len(counts) < len(pairs):
            repeated = [name for name, count in counts.items() if count > 1]
            found.extend(
                EngineProblem(display(name)[1:-1], "given twice", "keep one of them")
                for name in repeated[:REPEATED_NAMED]
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
    if len(fields) > NAMES_MAX + len(_COLUMNS):
        # Each would be compared with ours: of thousands in each record nobody else had a turn.
        return [too_many_names(next(reversed(fields)))]
    found = [pair for name, cell in fields.items() for pair in _columns_of(name, cell)]
    named = [(column, cell) for column, cell in found if isinstance(column, str)]
    columns = [column for column, _ in named]
    problems = [column for column, _ in found if not isinstance(column, str)]
    problems += given_twice(columns, "given") + unsure_columns(fields, columns, defaults.named())
    return problems or {column: _read(column, cell) for column, cell in named}


def _columns_of(name: str, cell: object) -> Iterator[tuple[str | EngineProblem, object]]:
    """The column of a field; those of the members of an object `metadata`, which are all own columns."""
    if name == "metadata" and isinstance(cell, msgspec.Raw) and bytes(cell).startswith(b"{"):
        members = _RAW_FIELDS.decode(cell)
        if len(members) > NAMES_MAX:
            yield too_many_names(next(reversed(members))), cell
            return
        for member, value in members.items():
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
        self.bad: BadByte | None = None
        """The first of the record."""

    def begin_record(self) -> None:
        """The next line is the first of one."""
        self.record_bytes = 0
        self.bad = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._lines.read()
        if line is None:
            raise StopIteration
        self.record_bytes += len(line)
        if self.record_bytes > RECORD_BYTES_MAX:
            raise TooLongError(quotes_match=False)
        text, bad = self._lines.text(line)
        self.bad = self.bad or bad
        # What programs write that add a carriage return to one that is there.
        return f"{text[:-3]}\r\n" if text.endswith("\r\r\n") else text


def csv_rows(lines: Lines, delimiter: str, defaults: Defaults) -> Iterator[Row]:
    """The records below the header; rows without any text are passed over, as spreadsheets write them."""
    columns: list[str | None] | None = None
    for line, row in _csv_records(lines, delimiter):
        if isinstance(row, list):
            if columns is None:
                raise UnreadableError(line, *row)
            yield line, row
        elif columns is None:
            columns = _header(line, row, defaults)
        elif any(cell.strip() for cell in row):
            yield line, _cells(columns, row, delimiter)


def _csv_records(lines: Lines, delimiter: str) -> Iterator[tuple[int, tuple[str, ...] | list[EngineProblem]]]:
    """(line, cells as text or what is wrong) of every record, the header included."""
    text = _CsvText(lines)
    reader = csv.reader(text, strict=True, delimiter=delimiter)
    while True:
        line = lines.number + 1
        text.begin_record()
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
        if text.bad is not None:
            yield line, [lines.bad_byte_problem(text.bad)]
        elif any("\x00" in cell for cell in row):
            yield line, [EngineProblem("line", "contains a NUL byte", "remove it; is this a text file?")]
        else:
            yield line, tuple(row)


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
        remedy = "begin the file with a line of column names, such as prompt,task_type,country"
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


def _cells(
    columns: list[str | None], row: tuple[str, ...], delimiter: str
) -> dict[str, object] | list[EngineProblem]:
    # Blank cells at the end are nothing that anybody wrote: spreadsheets add them, and leave them out.
    surplus, missing = row[len(columns) :], columns[len(row) :]
    if any(cell.strip() for cell in surplus) or any(column is not None for column in missing):
        sign = shown(delimiter)
        remedy = (
            f"put quotes around a text that contains {sign}"
            if surplus
            else f"write {sign} for blank cells too"
        )
        count = "1 field" if len(row) == 1 else f"{len(row)} fields"
        return [EngineProblem("line", f"{count}, but the header has {len(columns)}", remedy)]
    cells: dict[str, object] = {}
    for column, cell in zip(columns, row, strict=False):
        if column is not None:
            cells[column] = cell
        elif cell.strip():
            remedy = "name the column in the header, or take it out"
            return [EngineProblem("line", "a cell in a column without a name", remedy)]
    return cells


_COLUMNS = frozenset(COLUMNS)
_NO_NUMBER = re.compile(r"[:\[,]\s*[-+]?(?:NaN|Infinity|nan|inf)\s*[,\]}]")
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_DECODER = msgspec.json.Decoder()
_RAW_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
