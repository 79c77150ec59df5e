"""An archive of many files, .zip or .tar.gz, written in one pass: the same files give the same bytes.

With it go a list of what is in it, as JSON lines and as CSV, and a manifest with the SHA-256 of every file.
A .tar.gz needs the same memory however many files there are; a .zip keeps half a kilobyte for each.
"""

import contextlib
import csv
import gzip
import hashlib
import io
import json
import re
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol

from app.errors import USAGE, UserError
from app.files.export import FORMULA

SUFFIXES = (".zip", ".tar.gz")
SPOOLED_BYTES_MAX = 1024 * 1024
"""A list larger than this goes to a temporary file."""
READ_BYTES = 64 * 1024
FILE_MODE = 0o644
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


class Container(Protocol):
    """A format."""

    def write(self, path: str, data: IO[bytes], size: int) -> None: ...

    def close(self) -> None: ...


class Archive:
    """Satisfies services.dispute.Archive. Make it by `open_archive`; `finish` it once at the end."""

    def __init__(self, container: Container, columns: Sequence[str]) -> None:
        self._container = container
        self._files = _Spool()
        self._lines = _Spool()
        self._table = _Spool()
        self._columns = columns
        self._csv = csv.writer(self._table, lineterminator="\n")
        self._csv.writerow(columns)

    def add(self, path: str, data: bytes) -> None:
        """One file."""
        self._add(path, io.BytesIO(data), len(data), hashlib.sha256(data).hexdigest())

    def note(self, document: dict[str, Any]) -> None:
        """One line of the list."""
        self._lines.write(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n")
        self._csv.writerow([_cell(document.get(column)) for column in self._columns])

    def finish(self, list_name: str, head: dict[str, Any]) -> None:
        """Add the list, then the manifest: `head` and every file."""
        self._add_spooled(f"{list_name}.jsonl", self._lines)
        self._add_spooled(f"{list_name}.csv", self._table)
        manifest = _Spool()
        opening = json.dumps(head, ensure_ascii=False, indent=2).removesuffix("\n}")
        manifest.write(f'{opening},\n  "files": [\n')
        for n, line in enumerate(self._files.lines()):
            manifest.write(f"{',' * bool(n)}{chr(10) * bool(n)}    {line}")
        manifest.write("\n  ]\n}\n")
        self._container.write("manifest.json", manifest.file, manifest.rewound())
        manifest.file.close()

    def close(self) -> None:
        """Give up temporary files."""
        for spool in (self._files, self._lines, self._table):
            spool.file.close()

    def _add_spooled(self, path: str, spool: "_Spool") -> None:
        size = spool.rewound()
        digest = hashlib.sha256()
        while chunk := spool.file.read(READ_BYTES):
            digest.update(chunk)
        spool.file.seek(0)
        self._add(path, spool.file, size, digest.hexdigest())

    def _add(self, path: str, data: IO[bytes], size: int, sha256: str) -> None:
        self._container.write(path, data, size)
        self._files.write(json.dumps({"path": path, "bytes": size, "sha256": sha256}) + "\n")


@contextlib.contextmanager
def open_archive(output: BinaryIO, suffix: str, at_ms: int, columns: Sequence[str]) -> Iterator[Archive]:
    """An archive that is written to `output`; every file in it carries the time `at_ms`."""
    container = (_Zip if suffix == ".zip" else _Tar)(output, at_ms)
    archive = Archive(container, columns)
    try:
        yield archive
        container.close()
    except BaseException:
        # A zip that nobody closed writes its end when it is collected, to a file that is closed by then.
        with contextlib.suppress(OSError):
            container.close()
        raise
    finally:
        archive.close()


def suffix_of(path: Path) -> str:
    """Which format a file's name asks for. Raises UserError."""
    suffix = next((s for s in SUFFIXES if path.name.endswith(s) and path.name != s), None)
    if suffix is None:
        raise UserError(
            "unknown_format",
            f"{path.name} ends in neither {' nor '.join(SUFFIXES)}",
            "name the file by the format that it shall have",
            exit_code=USAGE,
        )
    return suffix


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    # Texts of other people: a spreadsheet must not take one for a formula. Figures may be negative.
    is_text = FORMULA.match(text) and not NUMBER.fullmatch(text)
    return f"'{text}" if is_text else text


class _Spool:
    """Text on its way: in memory while it is small, then in a temporary file."""

    def __init__(self) -> None:
        self.file: IO[bytes] = tempfile.SpooledTemporaryFile(SPOOLED_BYTES_MAX)  # noqa: SIM115

    def write(self, text: str) -> int:
        return self.file.write(text.encode())

    def rewound(self) -> int:
        """Its size, read from the start next."""
        size = self.file.seek(0, io.SEEK_END)
        self.file.seek(0)
        return size

    def lines(self) -> Iterator[str]:
        self.rewound()
        return (line.decode().rstrip("\n") for line in self.file)


class _Zip:
    def __init__(self, output: BinaryIO, at_ms: int) -> None:
        self._zip = zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED)
        self._at = datetime.fromtimestamp(at_ms / 1000, UTC).timetuple()[:6]

    def write(self, path: str, data: IO[bytes], size: int) -> None:
        info = zipfile.ZipInfo(path, self._at)
        info.compress_type = zipfile.ZIP_DEFLATED
        info.external_attr = FILE_MODE << 16
        info.create_system = 3  # Unix, wherever it is made: the same bytes
        info.file_size = size
        with self._zip.open(info, "w") as member:
            while chunk := data.read(READ_BYTES):
                member.write(chunk)

    def close(self) -> None:
        self._zip.close()


class _Tar:
    def __init__(self, output: BinaryIO, at_ms: int) -> None:
        self._at_s = at_ms // 1000
        self._gzip = gzip.GzipFile("", "wb", fileobj=output, mtime=self._at_s)
        self._tar = tarfile.open(fileobj=self._gzip, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def write(self, path: str, data: IO[bytes], size: int) -> None:
        info = tarfile.TarInfo(path)
        info.size, info.mtime, info.mode = size, self._at_s, FILE_MODE
        self._tar.addfile(info, data)
        # It would remember every file; nobody asks it.
        self._tar.members.clear()  # type: ignore[attr-defined]

    def close(self) -> None:
        self._tar.close()
        self._gzip.close()
