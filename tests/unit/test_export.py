"""Exported rows: exact credits, flat columns, and no formulas."""

import csv
import io
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from app.commands.export import CSV_COLUMNS, Format, csv_row, task_document, write_rows


def row(**changes: Any) -> dict[str, Any]:
    """A row as Store.export gives it."""
    return {
        "ordinal": 1, "task_id": "t", "attempt": 1, "task_type": "GEMINI",
        "payload": {"prompt": "why?", "country": "DE"}, "priority": 1, "state": "completed",
        "verdict": "matched", "credits_estimate": Decimal(4), "credits_to_charge": Decimal(4),
        "credits_charged": Decimal("4.1"), "provider_task_id": "p", "error_code": None, "error_message": None,
        "submitted_at_ms": 1_790_000_000_000, "settled_at_ms": None, "settled_by": None,
        "reused_from": None,
        "response": '{"text":"because","sources":[{"url":"https://a.example"},{"label":"none"}]}', **changes,
    }  # fmt: skip


def cells(**changes: Any) -> dict[str, str]:
    return dict(zip(CSV_COLUMNS, csv_row(task_document(row(**changes))), strict=True))


def test_credits_stay_exact_and_times_readable() -> None:
    document = task_document(row())
    assert (document["credits_charged"], document["credits_to_charge"]) == ("4.1", 4)
    assert (document["submitted_at"], document["settled_at"]) == ("2026-09-21T14:13:20.000Z", None)
    assert document["response"]["text"] == "because"


def test_csv_holds_what_engines_share_and_the_whole() -> None:
    flat = cells()
    assert (flat["prompt"], flat["country"], flat["answer_text"]) == ("why?", "DE", "because")
    assert flat["source_urls"] == "https://a.example"
    assert json.loads(flat["response"])["text"] == "because"


@pytest.mark.parametrize(
    ("response", "urls"),
    [
        ('{"organicResults":[{"link":"https://b.example"}]}', "https://b.example"),
        ('{"newsResults":[{"link":"https://c.example"},5]}', "https://c.example"),
        ('{"sources":null}', ""),
        ("null", ""),
        ("[1]", ""),
        (None, ""),
    ],
)
def test_sources_of_every_engine(response: str | None, urls: str) -> None:
    assert cells(response=response, payload={"query": "q", "gl": "us"})["source_urls"] == urls


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_text_is_never_a_formula(start: str) -> None:
    assert cells(payload={"prompt": start + "1"})["prompt"] == "'" + start + "1"


async def test_both_formats_write_every_row() -> None:
    async def rows() -> AsyncIterator[dict[str, Any]]:
        for ordinal in (1, 2):
            yield row(ordinal=ordinal, payload={"prompt": "zwei\nZeilen, „ja“", "country": "DE"})

    lines, table = io.StringIO(), io.StringIO()
    assert await write_rows(rows(), Format.JSONL, lines) == 2
    assert await write_rows(rows(), Format.CSV, table) == 2
    assert [json.loads(text)["ordinal"] for text in lines.getvalue().splitlines()] == [1, 2]
    read = list(csv.DictReader(io.StringIO(table.getvalue())))
    assert [one["prompt"] for one in read] == ["zwei\nZeilen, „ja“"] * 2
