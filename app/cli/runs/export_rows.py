"""What is exported: the columns and their kinds, and how a row of the store becomes a document or a flat row.

Credits stay exact and times whole milliseconds. What other people wrote (answers) never breaks a file.
"""

import json
from collections.abc import Callable
from decimal import Decimal
from enum import StrEnum
from typing import Any

import msgspec

from app.domain.credits import plain
from app.domain.stored_json import read_json
from app.store.read.exports import Row
from app.store.write.inbox import clean
from app.views.runs import iso


class What(StrEnum):
    """Which rows of a run are exported."""

    RESULTS = "results"
    LEDGER = "ledger"


class Kind(StrEnum):
    """What a column holds; each format has a type for it."""

    WHOLE = "whole"
    CREDITS = "credits"  # exact, up to six decimals; null: unknown
    TIME = "time"  # UTC
    WORD = "word"  # one of few
    ID = "id"
    TEXT = "text"
    LONG_TEXT = "long text"  # an answer: may be many megabytes
    TEXTS = "texts"


COLUMNS: dict[What, dict[str, Kind]] = {
    What.RESULTS: {
        "ordinal": Kind.WHOLE, "task_id": Kind.ID, "task_type": Kind.WORD, "country": Kind.WORD,
        "prompt": Kind.TEXT, "state": Kind.WORD, "verdict": Kind.WORD, "credits_estimate": Kind.CREDITS,
        "credits_to_charge": Kind.CREDITS, "credits_charged": Kind.CREDITS, "attempt": Kind.WHOLE,
        "priority": Kind.WHOLE, "provider_task_id": Kind.ID, "error_code": Kind.WORD,
        "error_message": Kind.TEXT, "submitted_at": Kind.TIME, "settled_at": Kind.TIME,
        "settled_by": Kind.WORD, "reused_from": Kind.ID, "answer_text": Kind.LONG_TEXT,
        "source_urls": Kind.TEXTS, "payload": Kind.TEXT, "response": Kind.LONG_TEXT,
    },
    What.LEDGER: {
        "book": Kind.WORD, "entry_id": Kind.WHOLE, "booked_at": Kind.TIME, "run_id": Kind.ID,
        "account": Kind.WORD, "ordinal": Kind.WHOLE, "task_type": Kind.WORD, "task_id": Kind.ID,
        "attempt": Kind.WHOLE, "kind": Kind.WORD, "credits": Kind.CREDITS,
        "delivery_id": Kind.ID, "reason": Kind.TEXT,
    },
}  # fmt: skip


def _read(response: str) -> Any:
    try:
        return read_json(response)
    except (ValueError, RecursionError):
        return response


def row_document(row: Row, answer: Callable[[str], Any] = _read) -> dict[str, Any]:
    """One row as JSON: credits exact, times in ISO 8601, and what `answer` makes of the response's text."""
    document: dict[str, Any] = {}
    for key, value in row.items():
        if key.endswith("_at_ms"):
            document[key.removesuffix("_ms")] = iso(value)
        elif key == "response":
            document[key] = None if value is None else answer(value)
        else:
            document[key] = plain(value) if isinstance(value, Decimal) else value
    return document


def row_line(row: Row) -> bytes:
    """The same on one line, the response as it came: not a digit of its numbers changes."""
    return msgspec.json.encode(row_document(row, _one_line)) + b"\n"


def _one_line(response: str) -> msgspec.Raw:
    # Inside a JSON string a line break is written \n, so these stand between tokens, where a space does.
    return msgspec.Raw(response.replace("\n", " ").replace("\r", " ").encode())


def flat_row(what: What, row: Row) -> list[Any]:
    """The values of COLUMNS: whole numbers, Decimals, UTC milliseconds, texts; None where none is known."""
    flat = dict(row)
    if what is What.RESULTS:
        payload = row["payload"]
        answer = _answer(row["response"])
        text = answer.get("text")
        flat |= {
            "country": payload.get("country", payload.get("gl")),
            "prompt": payload.get("prompt", payload.get("query")),
            "answer_text": clean(text) if isinstance(text, str) else None,
            "source_urls": _source_urls(answer),
            "payload": json.dumps(payload, ensure_ascii=False, separators=(",", ":")),
        }
    return [flat[f"{name}_ms" if kind is Kind.TIME else name] for name, kind in COLUMNS[what].items()]


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
            return [clean(s[field]) for s in listed if isinstance(s, dict) and isinstance(s.get(field), str)]
    return []
