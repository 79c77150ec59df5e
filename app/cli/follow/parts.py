"""Rows as Parquet files by day and engine, on this machine's disk until a range of them is complete."""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from app.cli.follow.manifest import Part, part_path
from app.domain.time_format import iso_day
from app.files.export_parquet import ParquetTable
from app.ports import ObjectsUnavailable
from app.store.read.exports import Row
from app.views.export_rows import SETTLED_COLUMNS, settled_row

PART_BYTES_MAX = 96 << 20
"""Of all files of a range, so of each: 64 to 128 MB is what warehouses like to read."""
PARTS_MAX = 32
"""Open at a time; more days and engines come in a second range."""
KEPT_BYTES_MAX = 32 << 20
"""Of rows that are in no file yet, of all files together; as Python objects three times that."""


@dataclass(slots=True)
class _Open:
    table: ParquetTable
    output: BinaryIO
    file: Path
    rows: int = 0


@contextlib.contextmanager
def own_disk() -> Iterator[None]:
    """A disk of this machine that is full, where parts are made, is waited out as the destination's is."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise ObjectsUnavailable(f"no file can be made on this machine: {reason}") from error


class PartFiles:
    """The rows of one range; a context, which takes its files away at its end."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tallyhook-follow-")
        self._open: dict[tuple[str, str], _Open] = {}
        self._written_bytes = 0
        self.rows = 0
        self.last: Row | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for each in self._open.values():
            each.table.abandon()
            with contextlib.suppress(OSError):  # of a full disk, as the write before
                each.output.close()
        self._folder.cleanup()

    @property
    def is_full(self) -> bool:
        """Whether the range should end here."""
        return self._written_bytes >= PART_BYTES_MAX or len(self._open) >= PARTS_MAX

    @property
    def kept_bytes(self) -> int:
        """Of rows that are in no file yet."""
        return sum(each.table.kept_bytes for each in self._open.values())

    def add(self, row: Row) -> None:
        """One more row, in the order of settlement."""
        part = self._part(iso_day(row["stored_at_ms"]), row["task_type"])
        part.table.write(row)
        part.rows += 1
        self.rows += 1
        self.last = row
        if self.kept_bytes >= KEPT_BYTES_MAX:
            max(self._open.values(), key=lambda each: each.table.kept_bytes).table.write_group()
        self._written_bytes = sum(each.output.tell() for each in self._open.values())

    def finish(self) -> None:
        """Write the files to their ends; no row comes any more."""
        for each in self._open.values():
            each.table.close()
            each.output.close()

    def named(self, first_seq: int, last_seq: int) -> Iterator[tuple[Part, Path]]:
        """Each file under the name that it will have, in the order of these."""
        for (day, engine), each in sorted(self._open.items()):
            yield Part(part_path(day, engine, first_seq, last_seq), each.rows), each.file

    def _part(self, day: str, engine: str) -> _Open:
        if (day, engine) not in self._open:
            file = Path(self._folder.name, f"{len(self._open)}.parquet")
            output = file.open("wb")
            self._open[day, engine] = _Open(ParquetTable(SETTLED_COLUMNS, settled_row, output), output, file)
        return self._open[day, engine]
