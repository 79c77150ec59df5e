"""Every column of a file of prompts with values that nobody expects: a task, or a bad line that says where,
what and what to do."""

import csv
import io
import json
import math

import pytest

from app.domain.task import TaskSpec
from app.prompts.columns import COLUMNS
from app.prompts.reader import BadLine, Defaults, read_prompts

TEXTS = (
    "9" * 5_000,
    "-1",
    "0",
    "NaN",
    "inf",
    "1e400",
    "1.5",
    "2.0",
    "२",
    "\x00",
    "\x1b[31m",
    "\u202ex",
    "[/red]",
    "\ufeff",
    "\u200b",
    "a\nb",
    "a\r\nb",
    "x" * 1_000_000,
    "x" * 100_000,
    "😀" * 10_001,
    "null",
    "{}",
    "https://[::1",
    "http://google.com/search?q=%ff&gl=%00",
    "|",
    ",;| ",
    "markdown|" * 10_000,
)
VALUES = (*TEXTS, 10**400, -(2**63), 2**64, 1.5, 1e308, True, [], [[]], [None], {}, {"": 1}, {"a": {"b": []}})
GOOD = {"prompt": "Is Monzo safe?", "task_type": "GEMINI", "country": "GB"}


def as_csv(column: str, value: object) -> bytes:
    text = io.StringIO()
    row = GOOD | {column: str(value)}
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([row.keys(), row.values()])
    return text.getvalue().encode()


def as_jsonl(column: str, value: object) -> bytes:
    return json.dumps(GOOD | {column: value}).encode() + b"\n"


@pytest.mark.parametrize("write", [as_csv, as_jsonl])
@pytest.mark.parametrize("column", [*COLUMNS, "\x1b[31m", "x" * 10_000, "naïve\u202e"])
def test_f26_no_cell_is_too_hostile_to_be_reported(column: str, write: object) -> None:
    for engine in ("GEMINI", "GOOGLE"):
        for value in VALUES if write is as_jsonl else TEXTS:
            body = write(column, value)  # type: ignore[operator]
            if column != "task_type":
                body = body.replace(b"GEMINI", engine.encode())
            found = list(read_prompts(io.BytesIO(body), Defaults()))
            assert found, (column, value)
            for one in found:
                if isinstance(one, BadLine):
                    assert one.line >= 1
                    assert one.field and one.problem and one.remedy, one
                    assert len(one.field) + len(one.problem) < 2_000, (column, len(one.problem))
                else:
                    assert isinstance(one, TaskSpec)
                    assert all(not isinstance(v, float) or math.isfinite(v) for v in one.payload.values())
                    json.dumps(one.payload, allow_nan=False).encode()
