"""What a record says for its author beside what is asked: kept with the task as it stands, and given back
wherever the task is. It is never sent, and is no part of an idempotency key or of a fingerprint.

May not do I/O, read a clock or log.
"""

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from app.domain.stored_json import DIGITS_MAX

PREFIX = "metadata."
"""Before the name of a column that is the author's own, whatever it is called."""

METADATA_BYTES_MAX = 16 * 1024
"""Of a task, as JSON in UTF-8: a page of notes and a dozen of fields. A million of them are 16 GB."""
NAMES_MAX = 200
"""Of all records of a source together: each is a column of every table that is written of the run."""
NAME_CHARS_MAX = 100
CUSTOM_ID_CHARS_MAX = 200
"""Four bytes each: an index of PostgreSQL takes 2,700 bytes."""
DEPTH_MAX = 32
"""Of nested arrays and objects: programs that read a row go down it by calling themselves."""


@dataclass(frozen=True, slots=True)
class OwnColumns:
    """What one record says for its author."""

    line: int
    """1-based physical line on which the record begins; 0: unknown."""
    custom_id: str | None = None
    """Its author's name for the record, unique within the run."""
    metadata: str | None = None
    """A JSON object by column. Each value is the text that its author wrote, so that no digit and no order
    changes; a cell of a CSV file is a string. None: there is none."""


def own_values(metadata: str | None) -> dict[str, msgspec.Raw]:
    """The own columns of a task in their order, each value as it was written; none for None."""
    return {} if metadata is None else _MEMBERS.decode(metadata)


def own_names(metadata: str) -> list[str]:
    """Their names."""
    return list(own_values(metadata))


def own_document(metadata: str | None) -> Any:
    """For a JSON document that Python writes: an object. A number of more digits than a float holds is its
    text."""
    return None if metadata is None else json.loads(metadata, parse_int=_whole, parse_float=_number)


def _whole(digits: str) -> int | str:
    return int(digits) if len(digits) <= DIGITS_MAX else digits


def _number(text: str) -> float | str:
    number = float(text)
    return number if Decimal(text) == Decimal(repr(number)) else text


_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class BadLine(NamedTuple):
    """One thing wrong with one record. A record with several faults gives several of these."""

    line: int
    """1-based physical line on which the record begins."""
    field: str
    problem: str
    remedy: str
