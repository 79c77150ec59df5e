"""A task written as a record is read as the same task."""

import io
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.task import TaskSpec
from app.files.export import csv_line
from app.prompts.columns import COLUMNS
from app.prompts.reader import Defaults, read_prompts
from app.prompts.rewrite import CannotSay, Stored, csv_record, json_record, own_name
from app.views.own_columns import own_cells

RECORDS = [
    {
        "prompt": '  =a,\n"b" ',
        "task_type": "CHATGPT",
        "country": "US",
        "state": "CA",
        "include": ["markdown"],
    },
    {
        "query": "x",
        "task_type": "GOOGLE",
        "gl": "de",
        "device": "mobile",
        "pages": 3,
        "include": ["aioverview", "html"],
    },
    {"prompt": "x", "task_type": "GROK", "country": "DE", "priority": 7, "custom_id": "=7", "promt_": 1},
    {
        "prompt": "x",
        "task_type": "GROK",
        "country": "DE",
        "metadata": {"market": "m", "language": "l", "custom_id": 1},
    },
    {
        "prompt": "x",
        "task_type": "GROK",
        "country": "DE",
        "metadata": {"prompt": 1, "metadata": {"a": 1}, "status": None},
    },
]


def read(text: bytes) -> TaskSpec:
    (spec,) = read_prompts(io.BytesIO(text), Defaults())
    assert isinstance(spec, TaskSpec), spec
    return spec


def stored(spec: TaskSpec) -> Stored:
    own = (spec.own.custom_id, spec.own.metadata) if spec.own else (None, None)
    return Stored(spec.task_type, spec.payload, spec.priority, *own)


def as_read(record: dict[str, object]) -> TaskSpec:
    own = {name: record.pop(name) for name in list(record) if name == "promt_"}
    return read(json.dumps(record | ({"metadata": own} if own else {})).encode())


@pytest.mark.parametrize("record", RECORDS)
def test_a_json_record_is_the_same_task(record: dict[str, object]) -> None:
    spec = as_read(dict(record))
    assert stored(read(msgspec.json.encode(json_record(stored(spec))))) == stored(spec)


@pytest.mark.parametrize("record", RECORDS)
def test_a_csv_record_asks_the_same_and_has_the_same_texts(record: dict[str, object]) -> None:
    spec = as_read(dict(record))
    cells = csv_record(stored(spec))
    columns = [column for column in COLUMNS if column in cells]
    metadata = spec.own.metadata if spec.own else None
    own = list(json.loads(metadata or "{}"))
    texts = own_cells(metadata, own)
    header = csv_line([*columns, *(own_name(name, columns) for name in own)])
    again = read(header + csv_line([*(cells[column] for column in columns), *(text or "" for text in texts)]))
    assert stored(again)[:4] == stored(spec)[:4]
    found = again.own.metadata if again.own else None
    assert own_cells(found, own) == [text or "" for text in texts]


def test_what_csv_has_no_words_for_is_not_written() -> None:
    payload = {"query": "x", "country": "DE", "include": {"aioverview": {"markdown": False}}}
    with pytest.raises(CannotSay):
        csv_record(Stored("GOOGLE", payload, 1, None, None))


@given(
    st.dictionaries(
        st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1, max_size=12),
        st.text(max_size=5),
        max_size=4,
    )
)
def test_any_own_columns_come_back(own: dict[str, str]) -> None:
    record = {"prompt": "x", "task_type": "GROK", "country": "DE", "metadata": own}
    found = list(read_prompts(io.BytesIO(json.dumps(record).encode()), Defaults()))
    if not isinstance(found[0], TaskSpec):
        return
    assert stored(read(msgspec.json.encode(json_record(stored(found[0]))))) == stored(found[0])
