"""The physical lines of a source: numbered, bounded, each with its place in the file; in whatever encoding
and with whatever ends."""

import io
from typing import NamedTuple, Protocol

from app.domain.engines.rules import EngineProblem
from app.prompts.encoding import Encoding

UTF_8 = Encoding("utf-8")

RECORD_BYTES_MAX = 128 * 1024
"""A prompt of 10,000 characters, each written as two \\uXXXX, is 120,000 bytes. Also Python's own limit on a
CSV field."""
PASSED_BYTES_MAX = 64 << 20
"""Of one line that is passed over because it is too long; then this is no file of lines."""
BLANK_LINES_MAX = 2_000_000
"""One after the other. A sheet has 1,048,576 rows, and Excel may write every one of them."""
BLANK = b" \t\r\n\x00,;"


class Readable(Protocol):
    """What gives a line, or as much of it as is asked for; nothing after the last."""

    def readline(self, bytes_max: int, /) -> bytes: ...


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


class BadByte(NamedTuple):
    """The first byte of a line that is none of the encoding's."""

    offset: int
    """From the beginning of the source, unpacked."""
    byte: int


class Lines:
    """The lines of a source whose mark, if it has one, was read already."""

    def __init__(
        self, raw: Readable, *, encoding: Encoding = UTF_8, end: str = "\n", skipped_bytes: int = 0
    ) -> None:
        self._raw = raw
        self._end = end.encode(encoding.name)
        self._quote = '"'.encode(encoding.name)
        self._kept: bytes | None = None
        self._blank = 0
        self.encoding = encoding
        self.number = 0
        self.offset = skipped_bytes
        """Of the line that was read last; counted in bytes."""
        self._next_offset = skipped_bytes

    def read(self) -> bytes | None:
        """The next line with its end, None after the last; raises TooLongError, UnreadableError."""
        if self._kept is not None:
            line, self._kept = self._kept, None
            self.number += 1
            return line
        self.offset = self._next_offset
        line = self._take(RECORD_BYTES_MAX + 1)
        if not line:
            return None
        self.number += 1
        self._count_blank(line)
        if len(line) <= RECORD_BYTES_MAX:
            return line
        quotes = line.count(self._quote)
        while line and not line.endswith(self._end):
            line = self._take(RECORD_BYTES_MAX)
            quotes += line.count(self._quote)
            if self._next_offset - self.offset > PASSED_BYTES_MAX:
                problem = f"a line longer than {PASSED_BYTES_MAX >> 20} MB"
                raise UnreadableError(
                    self.number, EngineProblem("file", problem, "write one record a line; is it a text file?")
                )
        raise TooLongError(quotes_match=quotes % 2 == 0)

    def keep(self, line: bytes) -> None:
        """Put one line back."""
        self._kept = line
        self.number -= 1

    def text(self, line: bytes) -> tuple[str, BadByte | None]:
        """The line that was read last, and the first byte of it that means nothing."""
        name = self.encoding.name
        try:
            text = line.decode(name)
        except UnicodeDecodeError as error:
            bad = BadByte(self.offset + error.start, line[error.start])
            return line.decode(name, "replace"), bad
        return text, self._mixed(line)

    def bad_byte_problem(self, bad: BadByte) -> EngineProblem:
        """What to say about it."""
        problem = f"not {self.encoding.shown} (byte 0x{bad.byte:02x} at offset {bad.offset:,})"
        other = "utf-8" if self.encoding.guessed else "cp1252"
        remedy = f"save the file as UTF-8, or name its encoding, such as --encoding {other}"
        return EngineProblem("line", problem, remedy)

    def _mixed(self, line: bytes) -> BadByte | None:
        """In a text that was guessed to be cp1252, the first byte of a line that is UTF-8: one of the two is
        wrong. (No word of a Western language reads as UTF-8 by chance.)"""
        if not self.encoding.guessed or self.encoding.name != "cp1252" or line.isascii():
            return None
        try:
            line.decode()
        except UnicodeDecodeError:
            return None
        place = next(place for place, byte in enumerate(line) if byte > 127)
        return BadByte(self.offset + place, line[place])

    def _take(self, bytes_max: int) -> bytes:
        line = self._raw.readline(bytes_max)
        self._next_offset += len(line)
        return line

    def _count_blank(self, line: bytes) -> None:
        self._blank = 0 if line.strip(BLANK) else self._blank + 1
        if self._blank > BLANK_LINES_MAX:
            problem = f"more than {BLANK_LINES_MAX:,} blank lines, one after the other"
            raise UnreadableError(self.number, EngineProblem("file", problem, "remove them"))


class SplitLines:
    """Lines of what io splits wrongly: those that end with CR, and those whose characters have several bytes,
    a half of which may look like an end."""

    PART_BYTES = 64 * 1024

    def __init__(self, raw: "io.BufferedReader[io.RawIOBase]", end: bytes) -> None:
        self._read = raw.read1
        self._end = end
        self._buffer = b""
        self._start = 0

    def readline(self, bytes_max: int, /) -> bytes:
        bytes_max += -bytes_max % len(self._end)  # whole characters
        searched = self._start
        while True:
            found = self._find_end(searched)
            until = found if found is not None else len(self._buffer)
            if found is not None or until - self._start >= bytes_max:
                until = min(until, self._start + bytes_max)
                line = self._buffer[self._start : until]
                self._start = until
                return line
            searched = self._refill(max(searched, until - len(self._end)))
            if searched < 0:
                line, self._buffer, self._start = self._buffer[self._start :], b"", 0
                return line

    def _find_end(self, start: int) -> int | None:
        """Behind the next end that stands where a character begins."""
        width = len(self._end)
        found = self._buffer.find(self._end, start)
        while found >= 0 and (found - self._start) % width:
            found = self._buffer.find(self._end, found + 1)
        return found + width if found >= 0 else None

    def _refill(self, searched: int) -> int:
        """Read on; where to search from then, -1 at the end of the source."""
        part = self._read(self.PART_BYTES)
        if not part:
            return -1
        searched -= self._start
        self._buffer, self._start = self._buffer[self._start :] + part, 0
        return searched
