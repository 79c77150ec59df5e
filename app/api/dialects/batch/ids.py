"""Ids as this dialect writes them: a kind, and the digits of ours."""

import re
import uuid
from dataclasses import dataclass
from typing import Literal

View = Literal["output", "errors"]
_FILE = re.compile(r"file-([0-9a-f]{32})(?:-(output|errors))?")
_BATCH = re.compile(r"batch_([0-9a-f]{32})")


@dataclass(frozen=True, slots=True)
class FileId:
    """Which file is meant."""

    id: str
    """Of an uploaded file; of a batch, for a view over its results."""
    view: View | None


def file_id(of: str, view: View | None = None) -> str:
    """As it is written."""
    return f"file-{of.replace('-', '')}" + (f"-{view}" if view else "")


def read_file_id(text: str) -> FileId | None:
    """None: it is no id of a file."""
    found = _FILE.fullmatch(text)
    return None if found is None else FileId(_uuid(found[1]), found[2])  # type: ignore[arg-type]


def batch_id(run_id: str) -> str:
    """As it is written."""
    return f"batch_{run_id.replace('-', '')}"


def read_batch_id(text: str) -> str | None:
    """The id of its run; None: it is no id of a batch."""
    found = _BATCH.fullmatch(text)
    return None if found is None else _uuid(found[1])


def _uuid(digits: str) -> str:
    return str(uuid.UUID(digits))
