"""Writes a run's tasks with their answers, as JSON lines or as CSV, one at a time however many there are."""

import contextlib
import csv
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, TextIO

from app.commands.documents import iso
from app.commands.user_error import USAGE, UserError
from app.domain.credits import plain

CSV_COLUMNS = (
    "ordinal", "task_id", "task_type", "country", "prompt", "state", "verdict", "credits_estimate",
    "credits_to_charge", "credits_charged", "attempt", "priority", "provider_task_id", "error_code",
    "error_message", "submitted_at", "settled_at", "settled_by", "reused_from", "answer_text",
    "source_urls", "payload", "response",
)  # fmt: skip
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class Format(StrEnum):
    """How a run is written out."""

    JSONL = "jsonl"
    CSV = "csv"


async def write_file(rows: AsyncIterator[dict[str, Any]], format_: Format, path: Path) -> int:
    """As write_rows, into a file that is there whole or not at all. Raises UserError."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8", newline="") as output:
            count = await write_rows(rows, format_, output)
        part.replace(path)
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
        raise UserError("unwritable", f"cannot write {path}: {error.strerror}", exit_code=USAGE) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    return count


async def write_rows(rows: AsyncIterator[dict[str, Any]], format_: Format, output: TextIO) -> int:
    """Write every row of `rows`, as Store.export gives them; how many."""
    count = 0
    writer = csv.writer(output, lineterminator="\n")
    if format_ is Format.CSV:
        writer.writerow(CSV_COLUMNS)
    async for row in rows:
        count += 1
        document = task_document(row)
        if format_ is Format.CSV:
            writer.writerow(csv_row(document))
        else:
            output.write(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n")
    return count


def task_document(row: dict[str, Any]) -> dict[str, Any]:
    """One exported row as JSON: credits exact, times in ISO 8601, the answer as it came."""
    document: dict[str, Any] = {}
    for key, value in row.items():
        if key.endswith("_at_ms"):
            document[key.removesuffix("_ms")] = iso(value)
        elif key == "response":
            document[key] = None if value is None else json.loads(value)
        else:
            document[key] = plain(value) if isinstance(value, Decimal) else value
    return document


def csv_row(document: dict[str, Any]) -> list[str]:
    """The same, flat. Engines differ in what they answer; the columns hold what they share, and `response`
    the whole."""
    payload = document["payload"]
    response = document["response"]
    answer = response if isinstance(response, dict) else {}
    flat = document | {
        "country": payload.get("country", payload.get("gl")),
        "prompt": payload.get("prompt", payload.get("query")),
        "answer_text": answer.get("text"),
        "source_urls": " ".join(_source_urls(answer)),
        "payload": _compact(payload),
        "response": None if response is None else _compact(response),
    }
    return [_cell(flat[column]) for column in CSV_COLUMNS]


def _source_urls(answer: dict[str, Any]) -> list[str]:
    """What the answer cites, or the pages that a search found (C-K)."""
    for name, field in (("sources", "url"), ("organicResults", "link"), ("newsResults", "link")):
        listed = answer.get(name)
        if isinstance(listed, list):
            return [s[field] for s in listed if isinstance(s, dict) and isinstance(s.get(field), str)]
    return []


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = str(value)
    # Answers and prompts are other people's text: a spreadsheet must not take one for a formula.
    return f"'{text}" if isinstance(value, str) and text.startswith(FORMULA_STARTS) else text
