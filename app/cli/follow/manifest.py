"""What a destination keeps about itself: which results it is to have, and in which files they stand. Pure.

A manifest is written before its files. It fixes a range of settle numbers and the names of the files, so
whoever takes it up, once or many times, writes the same rows under the same names.
"""

from typing import TypeVar

import msgspec

FOLDER = "_tallyhook"
"""Readers of a folder leave out what begins with an underscore."""
IDENTITY = f"{FOLDER}/destination.json"
LATEST = f"{FOLDER}/latest.json"
FORMAT = 1
SEQ_DIGITS = 12
"""So that names sort as numbers do: 30 years at 1,000 a second."""


T = TypeVar("T", "Identity", "Manifest")


class Unreadable(Exception):  # noqa: N818 - of a file, as FileNotFoundError
    """A file of ours that is none, or one of a later version."""


class Selection(msgspec.Struct, frozen=True):
    """Which results are followed."""

    run_id: str | None = None
    """None: those of all runs."""
    accounts: list[str] = []
    """None named: those of all."""


class Identity(msgspec.Struct, frozen=True):
    """What a destination is for; written once."""

    format: int
    id: str
    selection: Selection
    created_at: str


class Part(msgspec.Struct, frozen=True):
    """One data file."""

    path: str
    rows: int


class Manifest(msgspec.Struct, frozen=True):
    """One range of the settle sequence, and the files that hold its results."""

    format: int
    number: int
    """1, 2, 3, … without a gap."""
    first_seq: int
    """Behind the last one of the manifest before; a result that is not followed may have this number."""
    last_seq: int
    """Of the last result."""
    last_task_id: str
    last_attempt: int
    """Which result that was: another database, or one that was restored, has another one there, or none."""
    parts: list[Part]
    writer: str
    """Of the process that wrote this; no two have the same."""
    written_at: str

    @property
    def path(self) -> str:
        return manifest_path(self.number)

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)


def manifest_path(number: int) -> str:
    """Names sort as their numbers do."""
    return f"{FOLDER}/manifest-{number:010d}.json"


def part_path(day: str, engine: str, first_seq: int, last_seq: int) -> str:
    """The name of a data file; hive style, so that readers take day and engine for columns."""
    numbers = f"{first_seq:0{SEQ_DIGITS}d}-{last_seq:0{SEQ_DIGITS}d}"
    return f"day={day}/engine={engine}/part-{numbers}.parquet"


def encode(document: Identity | Manifest) -> bytes:
    """As it is kept."""
    return msgspec.json.format(msgspec.json.encode(document), indent=1)


def decode(content: bytes, kind: type[T]) -> T:
    """What is kept. Raises Unreadable."""
    try:
        found = msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unreadable(str(error)) from error
    if found.format > FORMAT:
        raise Unreadable(f"it has format {found.format}, and this version knows {FORMAT}")
    return found
