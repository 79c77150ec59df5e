"""Reads a file of prompts, CSV or JSON Lines, one record at a time: it never holds more than one record.

May import the domain only. Nothing it says contains a prompt. Whatever is wrong comes out as a `BadLine`, in
its place among the tasks; only a source that cannot be opened or read raises (OSError).
"""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from app.domain.engines.rules import EngineProblem
from app.domain.own_columns import NAMES_MAX, BadLine, own_names
from app.domain.task import TaskSpec
from app.prompts.own import too_many_names
from app.prompts.record import Defaults, check_defaults, read_record, split_include
from app.prompts.rows import RECORD_BYTES_MAX, Lines, TooLongError, UnreadableError, csv_rows, jsonl_rows

__all__ = ["BadLine", "Defaults", "PromptReader", "read_prompts", "split_include"]

_SUFFIXES = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}
_BOM = b"\xef\xbb\xbf"


class PromptReader:
    """Iterate over it once: tasks and bad lines in the order of the source. A fault of the file itself, such
    as an unknown column, is a BadLine after which nothing follows."""

    def __init__(self, source: Path | BinaryIO | None, defaults: Defaults) -> None:
        problems = check_defaults(defaults)
        if problems:
            raise ValueError("; ".join(f"{p.field}: {p.problem}; {p.remedy}" for p in problems))
        self._source = source
        self._defaults = defaults
        self._lines: Lines | None = None
        self.format: str | None = None
        """csv or jsonl; None until the first record, and for an empty source."""
        self.records = 0
        """Records read so far, bad ones included; the ordinal of the last one."""
        self.bad_records = 0
        self._own_names: dict[str, None] = {}

    @property
    def own_columns(self) -> list[str]:
        """Columns so far that are not ours; kept with the tasks, not sent."""
        return list(self._own_names)

    @property
    def sha256(self) -> str:
        """Of the raw bytes; of the whole source once the iteration has come to its end by itself."""
        return (self._lines.digest if self._lines else hashlib.sha256()).hexdigest()

    def __iter__(self) -> Iterator[TaskSpec | BadLine]:
        if self._lines is not None:
            raise RuntimeError("a source of prompts can be read only once")
        if isinstance(self._source, Path):
            with self._source.open("rb") as raw:
                yield from self._read(raw)
        else:
            yield from self._read(self._source or sys.stdin.buffer)

    def _read(self, raw: BinaryIO) -> Iterator[TaskSpec | BadLine]:
        self._lines = lines = Lines(raw)
        try:
            self.format = _find_format(lines, self._source)
            rows = (
                csv_rows(lines, self._defaults) if self.format == "csv" else jsonl_rows(lines, self._defaults)
            )
            for line, cells in rows:
                self.records += 1
                spec = self._record(line, cells) if isinstance(cells, dict) else cells
                if isinstance(spec, TaskSpec):
                    yield spec
                    continue
                self.bad_records += 1
                yield from (BadLine(line, *problem) for problem in spec)
            if not self.records:
                yield BadLine(lines.number, "file", "a header without records", "write one record a line")
        except UnreadableError as error:
            yield from (BadLine(error.line, *problem) for problem in error.problems)

    def _record(self, line: int, cells: dict[str, object]) -> TaskSpec | list[EngineProblem]:
        spec = read_record(self.records, cells, self._defaults, line=line)
        if isinstance(spec, TaskSpec) and spec.own is not None and spec.own.metadata is not None:
            new = [name for name in own_names(spec.own.metadata) if name not in self._own_names]
            if len(self._own_names) + len(new) > NAMES_MAX:
                return [too_many_names(new[-1])]
            self._own_names.update(dict.fromkeys(new))
        return spec


def read_prompts(source: Path | BinaryIO | None, defaults: Defaults) -> PromptReader:
    """Tasks and bad lines of a file, of an open binary stream, or of standard input (None).

    Raises ValueError, naming field and remedy, for wrong defaults.
    """
    return PromptReader(source, defaults)


def _find_format(lines: Lines, source: object) -> str:
    """By the file's ending, else by its first byte that is not blank, which stays to be read."""
    try:
        line = lines.read()
        if line is not None:
            line = line.removeprefix(_BOM)
            if line.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise UnreadableError(1, EngineProblem("file", "UTF-16, not UTF-8", "save it as UTF-8"))
        while line is not None and not line.strip():
            line = lines.read()
    except TooLongError:
        remedy = f"keep each line below {RECORD_BYTES_MAX:,} bytes"
        raise UnreadableError(
            lines.number, EngineProblem("file", "its first line is too long", remedy)
        ) from None
    if line is None:
        raise UnreadableError(1, EngineProblem("file", "empty", "write a header line and one record a line"))
    lines.keep(line)
    named = _SUFFIXES.get(source.suffix.lower()) if isinstance(source, Path) else None
    first = line.lstrip()[:1]
    if first == b"[" and named != "csv":
        remedy = "write one JSON object a line, without brackets around them or commas between"
        raise UnreadableError(lines.number + 1, EngineProblem("file", "a JSON array, not JSON Lines", remedy))
    return named or ("jsonl" if first == b"{" else "csv")
