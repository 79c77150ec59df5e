"""How the bytes of a source are read: packed, in which encoding, with which ends of lines and columns. Looks
at a bounded head; what it took for granted is said in one line, with the options that say otherwise.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from app.domain.engines.rules import EngineProblem
from app.prompts.delimiter import Delimiter, delimiter_problem, find_delimiter, read_delimiter
from app.prompts.encoding import (
    EXAMPLES,
    WIDTHS,
    Encoding,
    encoding_problem,
    find_encoding,
    first_bad_byte,
    read_encoding,
)
from app.prompts.lines import Lines, SplitLines, UnreadableError
from app.prompts.source import Source

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}


@dataclass(frozen=True, slots=True)
class Reading:
    """What the author says about the bytes; None: the bytes do."""

    encoding: str | None = None
    delimiter: str | None = None
    kind: str | None = None
    """csv or jsonl, whatever it is called and however it begins."""
    name: str = "standard input"
    """What it is called where it is no file."""


def check_reading(reading: Reading) -> list[EngineProblem]:
    """What is wrong with it."""
    problems = []
    if reading.encoding is not None and read_encoding(reading.encoding) is None:
        problems.append(EngineProblem("encoding", *encoding_problem(reading.encoding)))
    if reading.delimiter is not None and read_delimiter(reading.delimiter) is None:
        problems.append(EngineProblem("delimiter", *delimiter_problem(reading.delimiter)))
    return problems


class Opened:
    """The lines of a source, and what they are taken for. Raises UnreadableError for what is no text."""

    def __init__(self, source: Source, path: Path | None, reading: Reading) -> None:
        if foreign := source.foreign():
            raise UnreadableError(1, EngineProblem("file", *foreign))
        self._path = path
        self._packed = source.packed
        self._reading = reading
        forced = read_encoding(reading.encoding) if reading.encoding else None
        encoding = find_encoding(source.head, forced, whole=source.whole)
        if encoding is None:
            raise _no_encoding(source.head)
        self.encoding: Encoding = encoding
        mark_bytes = len(encoding.mark)
        source.stream.read(mark_bytes)
        self.head = source.head[mark_bytes:].decode(encoding.name, "replace")
        self._end = _line_end(self.head)
        plain = self._end == "\n" and encoding.name not in WIDTHS
        raw = source.stream if plain else SplitLines(source.stream, self._end.encode(encoding.name))
        self.lines = Lines(raw, encoding=encoding, end=self._end, skipped_bytes=mark_bytes)
        self._delimiter: Delimiter | None = None

    @property
    def suffix(self) -> str:
        """The ending that says what it is, without that of its packing."""
        if self._path is None:
            return ""
        plain = self._path.with_suffix("") if self._path.suffix.lower() == ".gz" else self._path
        return plain.suffix.lower()

    @property
    def kind(self) -> str | None:
        """What its author says that it is."""
        return self._reading.kind

    def delimiter(self) -> Delimiter:
        """What separates its columns, if it is a CSV."""
        default = "\t" if self.suffix in (".tsv", ".tab") else ","
        forced = read_delimiter(self._reading.delimiter) if self._reading.delimiter else None
        self._delimiter = find_delimiter(self.head, forced, default)
        return self._delimiter

    def remark(self) -> str | None:
        """What a reader of the file should know; None: it is read as it says that it is."""
        encoding, delimiter = self.encoding, self._delimiter
        told = self._reading.encoding is None and (encoding.guessed or encoding.name in WIDTHS)
        parts, options = [], []
        if told:
            parts.append(encoding.shown)
            options.append("--encoding")
        if delimiter is not None and delimiter.why:
            parts.append(delimiter.why)
            options.append("--delimiter")
        if self._end == "\r":
            parts.append("lines ended by CR")
        if self._packed and (self._path is None or self._path.suffix.lower() != ".gz"):
            parts.append("packed with gzip")
        if not parts:
            return None
        otherwise = f" ({' and '.join(options)} can say otherwise)" if options else ""
        name = self._path.name if self._path else self._reading.name
        return f"{name} is read as {', '.join(parts)}{otherwise}"


def _line_end(head: str) -> str:
    """CR for what has no other end outside of quotes: files of an old Macintosh, and Excel's of that name."""
    bare = re.sub(r'"[^"]*"', "", head)
    return "\r" if "\r" in bare and "\n" not in bare else "\n"


def _no_encoding(head: bytes) -> UnreadableError:
    offset = first_bad_byte(head)
    line = head.count(b"\n", 0, offset) + 1
    problem = f"byte 0x{head[offset]:02x} at offset {offset:,} is not UTF-8, and its encoding cannot be told"
    return UnreadableError(
        line, EngineProblem("file", problem, f"save it as UTF-8, or name it: --encoding {EXAMPLES}")
    )
