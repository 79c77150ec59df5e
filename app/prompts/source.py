"""The bytes of a source of prompts: hashed as they go by, unpacked where they are packed, and their head
looked at without taking it away. Knows nothing of what the bytes mean.
"""

import codecs
import errno
import gzip
import hashlib
import io
import zlib
from typing import Any, BinaryIO

HEAD_BYTES = 256 * 1024
"""What is looked at before the first record is read: the longest record that is taken, twice."""
UNPACKED_BYTES_MAX = 4 << 30
"""A million prompts of 4 KB. 1 KB of gzip may hold 1 MB, so that somebody's joke must end somewhere."""
GZIP = b"\x1f\x8b"
FOREIGN = {
    b"PK\x03\x04": ("a ZIP archive or an Excel workbook", "save the sheet as CSV UTF-8"),
    b"\xd0\xcf\x11\xe0": ("an Excel workbook", "save the sheet as CSV UTF-8"),
    b"\x28\xb5\x2f\xfd": ("packed with zstd", "unpack it: zstd -d FILE, or pack it with gzip"),
    b"BZh": ("packed with bzip2", "unpack it: bunzip2 FILE, or pack it with gzip"),
    b"\xfd7zXZ": ("packed with xz", "unpack it: unxz FILE, or pack it with gzip"),
    b"PAR1": ("a Parquet file", "write it as CSV or JSON Lines"),
    b"%PDF": ("a PDF", "write its prompts as CSV or JSON Lines"),
    GZIP: ("packed with gzip twice", "unpack it once: gunzip FILE"),
}
"""(what it is, what to do) by its first bytes."""
MARKUP = {
    b"<!doctype html": ("a web page", "get the file itself: perhaps a log-in stands before it"),
    b"<html": ("a web page", "get the file itself: perhaps a log-in stands before it"),
    b"<?xml": ("XML", "save the sheet as CSV UTF-8"),
    b"{\\rtf": ("a text with formats (RTF)", "save it as plain text"),
}
"""The same by how it begins, whatever is blank before it and whatever its letter case."""


class DamagedError(OSError):
    """What is packed cannot be unpacked to its end; nothing of the source is to be believed complete."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(errno.EIO, problem)
        self.remedy = remedy


class Source:
    """A readable stream of a source's bytes. `head` stays to be read."""

    def __init__(self, raw: BinaryIO) -> None:
        hashed = _Hashed(raw)
        self.digest = hashed.digest
        """Of the bytes as they are kept, packed ones included, as far as they were read."""
        head = _head_of(hashed)
        stream: io.RawIOBase = _Rewound(head, hashed)
        self.packed = head.startswith(GZIP)
        if self.packed:
            unpacked = _Unpacked(stream)
            head = _head_of(unpacked)
            stream = _Rewound(head, unpacked)
        self.head = head
        """Its first HEAD_BYTES, or all of it."""
        self.whole = len(head) < HEAD_BYTES
        """Whether nothing follows the head."""
        self.stream: io.BufferedReader[io.RawIOBase] = io.BufferedReader(stream)

    def foreign(self) -> tuple[str, str] | None:
        """(what it is, what to do) where it is no text."""
        begins = self.head[:1_000].removeprefix(codecs.BOM_UTF8).lstrip().lower()
        found = [words for magic, words in FOREIGN.items() if self.head.startswith(magic)]
        found += [words for magic, words in MARKUP.items() if begins.startswith(magic)]
        return found[0] if found else None


def _head_of(stream: io.RawIOBase) -> bytes:
    # A pipe gives what it has: a head that is short is not the end yet.
    parts = []
    missing = HEAD_BYTES
    while missing and (part := stream.read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


class _Hashed(io.RawIOBase):
    def __init__(self, raw: BinaryIO) -> None:
        super().__init__()
        self._raw = raw
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        # What is there, and not more: whoever types shall not have to fill a buffer.
        read = getattr(self._raw, "read1", self._raw.read)
        part: bytes = read(len(buffer)) or b""
        buffer[: len(part)] = part
        self.digest.update(part)
        return len(part)


class _Rewound(io.RawIOBase):
    """The head once more, then the rest."""

    def __init__(self, head: bytes, rest: io.RawIOBase) -> None:
        super().__init__()
        self._head: memoryview | None = memoryview(head)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._head is None:
            return self._rest.readinto(buffer) or 0
        part = self._head[: len(buffer)]
        buffer[: len(part)] = part
        self._head = self._head[len(part) :] or None
        return len(part) or self.readinto(buffer)


class _Unpacked(io.RawIOBase):
    """Of gzip, several members one after the other included. Raises DamagedError."""

    def __init__(self, packed: io.RawIOBase) -> None:
        super().__init__()
        self._gzip = gzip.GzipFile(fileobj=io.BufferedReader(packed), mode="rb")
        self._bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            count = self._gzip.readinto(buffer)
        except EOFError:
            raise DamagedError(
                f"its gzip data breaks off after {self._bytes:,} bytes unpacked", "copy or make it again"
            ) from None
        except (zlib.error, gzip.BadGzipFile) as error:
            problem = f"its gzip data is damaged after {self._bytes:,} bytes unpacked ({error})"
            raise DamagedError(problem, "copy or make it again; gzip -t FILE tests it") from None
        self._bytes += count
        if self._bytes > UNPACKED_BYTES_MAX:
            problem = f"it unpacks to more than {UNPACKED_BYTES_MAX >> 30} GB"
            raise DamagedError(problem, "is this a file of prompts? split it into several")
        return count
