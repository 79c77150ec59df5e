"""Reads a file of prompts, CSV or JSON Lines, one record at a time: it never holds more than one record.

May import the domain only. Nothing it says contains a prompt. Whatever is wrong comes out as a `BadLine`, in
its place among the tasks; only a source that cannot be opened or read raises (OSError, such as DamagedError).
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from app.domain.engines.rules import EngineProblem
from app.domain.own_columns import NAMES_MAX, BadLine, own_names
from app.domain.task import TaskSpec
from app.prompts.lines import RECORD_BYTES_MAX, Lines, TooLongError, UnreadableError
from app.prompts.own import too_many_names
from app.prompts.reading import SUFFIXES, Opened, Reading, check_reading
from app.prompts.record import Defaults, check_defaults, read_record, split_include
from app.prompts.rows import Row, csv_rows, jsonl_rows
from app.prompts.source import DamagedError, Source

__all__ = ["BadLine", "DamagedError", "Defaults", "PromptReader", "Reading", "read_prompts", "split_include"]


AS_IT_SAYS = Reading()


class PromptReader:
    """Iterate over it once: tasks and bad lines in the order of the source. A fault of the file itself, such
    as an unknown column, is a BadLine after which nothing follows."""

    def __init__(
        self, source: Path | BinaryIO | None, defaults: Defaults, reading: Reading = AS_IT_SAYS
    ) -> None:
        problems = [*check_defaults(defaults), *check_reading(reading)]
        if problems:
            raise ValueError("; ".join(f"{p.field}: {p.problem}; {p.remedy}" for p in problems))
        self._source = source
        self._defaults = defaults
        self._reading = reading
        self._bytes: Source | None = None
        self.remark: str | None = None
        """How the file is read, where it does not say so itself; known from the first record on."""
        self.format: str | None = None
        """csv or jsonl; None until the first record, and for an empty source."""
        self.records = 0
        """Records read so far, bad ones included."""
        self._ordinal = 0
        self.bad_records = 0
        self._own_names: dict[str, None] = {}

    @property
    def own_columns(self) -> list[str]:
        """Columns so far that are not ours; kept with the tasks, not sent."""
        return list(self._own_names)

    @property
    def sha256(self) -> str:
        """Of the raw bytes, packed ones as they are; of the whole source once the iteration has come to its
        end by itself."""
        if self._bytes is None:
            raise RuntimeError("nothing was read yet")
        return self._bytes.digest.hexdigest()

    def __iter__(self) -> Iterator[TaskSpec | BadLine]:
        if self._bytes is not None:
            raise RuntimeError("a source of prompts can be read only once")
        if isinstance(self._source, Path):
            with self._source.open("rb") as raw:
                yield from self._read(raw)
        else:
            yield from self._read(self._source or sys.stdin.buffer)

    def _read(self, raw: BinaryIO) -> Iterator[TaskSpec | BadLine]:
        self._bytes = source = Source(raw)
        try:
            opened = Opened(source, self._source if isinstance(self._source, Path) else None, self._reading)
            self.format = _find_format(opened)
            rows = self._rows(opened)
            self.remark = opened.remark()
            for line, cells in rows:
                self.records += 1
                spec = self._record(line, cells) if isinstance(cells, dict) else cells
                if isinstance(spec, TaskSpec):
                    self._ordinal += spec.repeats
                    yield from spec.samples()
                    continue
                self._ordinal += 1
                self.bad_records += 1
                yield from (BadLine(line, *problem) for problem in spec)
            if not self.records:
                yield BadLine(
                    opened.lines.number, "file", "a header without records", "write one record a line"
                )
        except UnreadableError as error:
            yield from (BadLine(error.line, *problem) for problem in error.problems)

    def _record(self, line: int, cells: dict[str, object]) -> TaskSpec | list[EngineProblem]:
        spec = read_record(self._ordinal + 1, cells, self._defaults, line=line)
        if isinstance(spec, TaskSpec) and self._ordinal + 1 != self.records:
            spec = replace(spec, record=self.records)
        if isinstance(spec, TaskSpec) and spec.own is not None and spec.own.metadata is not None:
            new = [name for name in own_names(spec.own.metadata) if name not in self._own_names]
            if len(self._own_names) + len(new) > NAMES_MAX:
                return [too_many_names(new[-1])]
            self._own_names.update(dict.fromkeys(new))
        return spec

    def _rows(self, opened: Opened) -> Iterator[Row]:
        if self.format == "jsonl":
            return jsonl_rows(opened.lines, self._defaults)
        delimiter = opened.delimiter()
        if delimiter.says_itself:
            opened.lines.read()
        return csv_rows(opened.lines, delimiter.sign, self._defaults)


def read_prompts(
    source: Path | BinaryIO | None, defaults: Defaults, reading: Reading = AS_IT_SAYS
) -> PromptReader:
    """Tasks and bad lines of a file, of an open binary stream, or of standard input (None).

    Raises ValueError, naming field and remedy, for wrong defaults or a wrong reading.
    """
    return PromptReader(source, defaults, reading)


def _find_format(opened: Opened) -> str:
    """By the file's ending, else by its first character that is not blank, which stays to be read."""
    lines = opened.lines
    named = opened.kind or SUFFIXES.get(opened.suffix)
    first = _first_text(lines)
    if first is None:
        remedy = (
            "write one JSON object a line"
            if named == "jsonl"
            else "write a header line and one record a line"
        )
        raise UnreadableError(1, EngineProblem("file", "empty", remedy))
    if first == "[":
        remedy = "write one JSON object a line, without brackets around them or commas between"
        raise UnreadableError(lines.number + 1, EngineProblem("file", "a JSON array, not JSON Lines", remedy))
    if first == "{" and named == "csv":
        remedy = "send it as application/x-ndjson" if opened.kind else "give it a name that ends in .jsonl"
        says = "it is sent as CSV" if opened.kind else f"its name ends in {opened.suffix}"
        problem = f"JSON, but {says}"
        raise UnreadableError(lines.number + 1, EngineProblem("file", problem, remedy))
    return named or ("jsonl" if first == "{" else "csv")


def _first_text(lines: Lines) -> str | None:
    """The first character that is not blank; its line stays to be read. None: there is none."""
    try:
        while (line := lines.read()) is not None:
            if text := lines.text(line)[0].strip():
                lines.keep(line)
                return text[0]
    except TooLongError:
        remedy = f"keep each line below {RECORD_BYTES_MAX:,} bytes"
        raise UnreadableError(
            lines.number, EngineProblem("file", "its first line is too long", remedy)
        ) from None
    return None
