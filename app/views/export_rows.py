"""What is exported: the columns and their kinds, and how a row of the store becomes a document or a flat row.

Credits stay exact and times whole milliseconds. What other people wrote (answers) never breaks a file.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Any

import msgspec

from app.domain.credits import to_json_number
from app.domain.stored_json import read_json
from app.domain.text import storable
from app.domain.time_format import iso_utc
from app.store.read.exports import Row
from app.views.own_columns import own_cells, own_object, table_names


class ExportContent(StrEnum):
    """Which rows of a run are exported."""

    RESULTS = "results"
    LEDGER = "ledger"


class ColumnKind(StrEnum):
    """What a column holds; each format has a type for it."""

    WHOLE = "whole"
    CREDITS = "credits"  # exact, up to six decimals; null: unknown
    TIME = "time"  # UTC
    WORD = "word"  # one of few
    ID = "id"
    TEXT = "text"
    LONG_TEXT = "long text"  # an answer: may be many megabytes
    TEXTS = "texts"
    OWN = "own"  # a cell of an own column: a text, or JSON


COLUMNS: dict[ExportContent, dict[str, ColumnKind]] = {
    ExportContent.RESULTS: {
        "ordinal": ColumnKind.WHOLE,
        "task_id": ColumnKind.ID,
        "custom_id": ColumnKind.ID,
        "sample": ColumnKind.WHOLE,
        "repeats": ColumnKind.WHOLE,
        "samples_answered": ColumnKind.WHOLE,
        "task_type": ColumnKind.WORD,
        "country": ColumnKind.WORD,
        "prompt": ColumnKind.TEXT,
        "state": ColumnKind.WORD,
        "verdict": ColumnKind.WORD,
        "credits_estimate": ColumnKind.CREDITS,
        "credits_to_charge": ColumnKind.CREDITS,
        "credits_charged": ColumnKind.CREDITS,
        "attempt": ColumnKind.WHOLE,
        "priority": ColumnKind.WHOLE,
        "provider_task_id": ColumnKind.ID,
        "error_code": ColumnKind.WORD,
        "error_message": ColumnKind.TEXT,
        "submitted_at": ColumnKind.TIME,
        "settled_at": ColumnKind.TIME,
        "settled_by": ColumnKind.WORD,
        "reused_from": ColumnKind.ID,
        "answer_text": ColumnKind.LONG_TEXT,
        "source_urls": ColumnKind.TEXTS,
        "payload": ColumnKind.TEXT,
        "response": ColumnKind.LONG_TEXT,
        "answer_sha256": ColumnKind.ID,
        "response_note": ColumnKind.WORD,
    },
    ExportContent.LEDGER: {
        "book": ColumnKind.WORD,
        "entry_id": ColumnKind.WHOLE,
        "booked_at": ColumnKind.TIME,
        "run_id": ColumnKind.ID,
        "account": ColumnKind.WORD,
        "ordinal": ColumnKind.WHOLE,
        "task_type": ColumnKind.WORD,
        "task_id": ColumnKind.ID,
        "custom_id": ColumnKind.ID,
        "sample": ColumnKind.WHOLE,
        "repeats": ColumnKind.WHOLE,
        "attempt": ColumnKind.WHOLE,
        "kind": ColumnKind.WORD,
        "credits": ColumnKind.CREDITS,
        "delivery_id": ColumnKind.ID,
        "reason": ColumnKind.TEXT,
    },
}

SETTLED_COLUMNS: dict[str, ColumnKind] = {
    "seq": ColumnKind.WHOLE,
    "run_id": ColumnKind.ID,
    "run_name": ColumnKind.WORD,
    "account": ColumnKind.WORD,
    "stored_at": ColumnKind.TIME,
    # How many samples are answered is known when the last one is.
    **{k: kind for k, kind in COLUMNS[ExportContent.RESULTS].items() if k != "samples_answered"},
    "metadata": ColumnKind.TEXT,
}
"""Of a result by itself: of one attempt of a task. `credits_charged` is what this attempt was charged. Own
columns are one, a JSON object: whatever runs have, all files of a destination have the same columns."""


def _read(response: str) -> Any:
    try:
        return read_json(response)
    except (ValueError, RecursionError):
        return response


def table_columns(what: ExportContent, own: Sequence[str] = ()) -> dict[str, ColumnKind]:
    """The columns of a table: ours, then own ones."""
    columns = COLUMNS[what]
    return columns | dict.fromkeys(table_names(own, columns), ColumnKind.OWN)


def row_document(
    row: Row, answer: Callable[[str], Any] = _read, credits: Callable[[Decimal], Any] = to_json_number
) -> dict[str, Any]:
    """One row as msgspec writes it: credits exact, times in ISO 8601, own columns as they are kept, and what
    `answer` makes of the response's text."""
    document: dict[str, Any] = {}
    for key, value in row.items():
        if key.endswith("_at_ms"):
            document[key.removesuffix("_ms")] = iso_utc(value)
        elif key == "response":
            document[key] = None if value is None else answer(value)
        elif key == "metadata":
            document[key] = own_object(value)
        else:
            document[key] = credits(value) if isinstance(value, Decimal) else value
    return document


def row_line(row: Row, credits: Callable[[Decimal], Any] = to_json_number) -> bytes:
    """The same on one line, the response as it came: not a digit of its numbers changes."""
    return msgspec.json.encode(row_document(row, _one_line, credits)) + b"\n"


def _one_line(response: str) -> msgspec.Raw:
    # Inside a JSON string a line break is written \n, so these are between tokens, where a space does.
    return msgspec.Raw(response.replace("\n", " ").replace("\r", " ").encode())


def flat_row(what: ExportContent, own: Sequence[str], row: Row) -> list[Any]:
    """The values of table_columns: whole numbers, Decimals, UTC milliseconds, texts; None where none is
    known."""
    values = _values(COLUMNS[what], row | answer_columns(row) if what is ExportContent.RESULTS else row)
    return values + [None if cell is None else storable(cell) for cell in own_cells(row["metadata"], own)]


def settled_row(row: Row) -> list[Any]:
    """The same of SETTLED_COLUMNS."""
    return _values(SETTLED_COLUMNS, row | answer_columns(row))


def _values(columns: Mapping[str, ColumnKind], row: Row) -> list[Any]:
    return [row[f"{name}_ms" if kind is ColumnKind.TIME else name] for name, kind in columns.items()]


def answer_columns(row: Row) -> Row:
    """The columns that are made of a result's payload and response."""
    payload = row["payload"]
    answer = _answer(row["response"])
    text = answer.get("text")
    return {
        "country": payload.get("country", payload.get("gl")),
        "prompt": payload.get("prompt", payload.get("query")),
        "answer_text": storable(text) if isinstance(text, str) else None,
        "source_urls": _source_urls(answer),
        "payload": json.dumps(payload, ensure_ascii=False, separators=(",", ":")),
    }


def _answer(response: str | None) -> dict[str, Any]:
    """Engines differ in what they answer; one that is no object, or no JSON, shares nothing with the rest."""
    if response is None:
        return {}
    try:
        answer = read_json(response)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _source_urls(answer: dict[str, Any]) -> list[str]:
    """What the answer cites, or the pages that a search found (C-K)."""
    for name, field in (("sources", "url"), ("organicResults", "link"), ("newsResults", "link")):
        listed = answer.get(name)
        if isinstance(listed, list):
            return [
                storable(s[field]) for s in listed if isinstance(s, dict) and isinstance(s.get(field), str)
            ]
    return []
