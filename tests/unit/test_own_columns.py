"""Columns that are not ours are their author's: kept to the digit, told from misspelt ones, bounded."""

import io
import json

import pytest

from app.domain.own_columns import METADATA_BYTES_MAX, NAME_CHARS_MAX, NAMES_MAX, OwnColumns
from app.domain.task import TaskSpec
from app.prompts.columns import COLUMNS, find_column
from app.prompts.reader import BadLine, Defaults, PromptReader, read_prompts

CHATGPT = Defaults(task_type="CHATGPT", country="US")


def read(text: str, defaults: Defaults = CHATGPT) -> tuple[PromptReader, list[TaskSpec | BadLine]]:
    reader = read_prompts(io.BytesIO(text.encode()), defaults)
    return reader, list(reader)


def own(text: str, defaults: Defaults = CHATGPT) -> list[OwnColumns | None]:
    _, found = read(text, defaults)
    assert not [one for one in found if isinstance(one, BadLine)], found
    return [one.own for one in found if isinstance(one, TaskSpec)]


def faults(text: str, defaults: Defaults = CHATGPT) -> list[BadLine]:
    return [one for one in read(text, defaults)[1] if isinstance(one, BadLine)]


def test_cells_of_a_csv_file_are_kept_as_texts() -> None:
    text = 'prompt,custom_id,brand_id,notes,Kunde ä\na,k1,007,"a, ""b""\nc", x \nb,,,,\n'
    reader, _ = read(text)
    assert reader.own_columns == ["brand_id", "notes", "Kunde ä"]
    assert own(text) == [
        OwnColumns(2, "k1", '{"brand_id":"007","notes":"a, \\"b\\"\\nc","Kunde ä":" x "}'),
        OwnColumns(4, None, '{"brand_id":"","notes":"","Kunde ä":""}'),
    ]


@pytest.mark.parametrize(
    "value",
    [
        "null",
        '""',
        "true",
        "-0",
        "1.10",
        "1e400",
        "123456789012345678901234567890",
        '"007"',
        '"\\u00e9 \\ud83d\\ude00 é 😀"',
        '{"z":1,"a":{"y":[],"b":[1.0,null,{}]}}',
        '"=1+1"',
    ],
)
def test_a_value_of_a_json_line_is_kept_to_the_digit(value: str) -> None:
    spaced = value.replace(":", " : ").replace("[", "[ ") if value.startswith("{") else value
    for line in (f'{{"n": {spaced} ,"prompt":"x"}}', f'{{"prompt":"x","metadata":{{"n":{spaced}}}}}'):
        assert own(line) == [OwnColumns(1, None, f'{{"n":{value}}}')]


def test_absent_null_and_empty_differ() -> None:
    lines = [
        '{"prompt":"x"}',
        '{"prompt":"x","a":null}',
        '{"prompt":"x","a":""}',
        '{"prompt":"x","metadata":{}}',
    ]
    assert own("\n".join(lines)) == [
        None,
        OwnColumns(2, None, '{"a":null}'),
        OwnColumns(3, None, '{"a":""}'),
        None,
    ]


def test_own_columns_are_no_part_of_what_is_asked() -> None:
    _, found = read('{"prompt":"x"}\n{"prompt":"x","custom_id":"a","notes":1}\n')
    first, second = (one for one in found if isinstance(one, TaskSpec))
    assert first.payload == second.payload
    assert first.fingerprint() == second.fingerprint()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("promt", "prompt"),
        ("prompts", "prompt"),
        ("pormpt", "prompt"),
        ("Countrx", "country"),
        ("task-typ", "task_type"),
        ("page", "pages"),
        ("customid1", "custom_id"),
        ("engines", "task_type"),
    ],
)
def test_a_name_one_letter_off_is_asked_about(name: str, meant: str) -> None:
    found = find_column(name)
    assert not isinstance(found, str)
    assert f"did you mean {meant}?" in found.remedy
    assert f"metadata.{name}" in found.remedy
    assert find_column(f"metadata.{name}") == f"metadata.{name}"


@pytest.mark.parametrize(
    "name",
    [
        "brand_id",
        "notes",
        "status",
        "credits",
        "answer",
        "task_id",
        "id",
        "date",
        "customer_id",
        "rule",
        "curl",
        "glob",
        "state_name",
        "prompt_version",
        "ordinal",
        "metadata",
    ],
)
def test_a_name_of_nobodys_is_the_authors_own(name: str) -> None:
    assert find_column(name) == f"metadata.{name}"


def test_every_name_of_ours_is_ours_in_any_spelling() -> None:
    for name in COLUMNS:
        assert find_column(name) == name
        assert find_column(f" {name.upper().replace('_', '-')} ") == name
    assert find_column("engine") == "task_type"


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("market", "country"),
        ("type", "task_type"),
        ("question", "prompt"),
        ("language", "hl"),
        ("model", "task_type"),
    ],
)
def test_another_word_for_a_column_of_ours_is_asked_about_unless_that_is_named(name: str, ours: str) -> None:
    values = {"prompt": "x", "task_type": "GOOGLE", "country": "DE", "hl": "de"}
    rest = {key: value for key, value in values.items() if key != ours}
    for row, is_own in ((rest, False), (values, True)):
        cells = row | {name: "y"}
        line = json.dumps(cells)
        table = f"{','.join(cells)}\n{','.join(cells.values())}\n"
        for text in (line, table):
            found = faults(text, Defaults())
            assert bool(found) is not is_own, text
            assert is_own or f"did you mean {ours}?" in found[0].remedy
    if ours in ("task_type", "country"):
        assert not faults(json.dumps(rest | {name: "y"}), Defaults(**{ours: values[ours]}))


@pytest.mark.parametrize(
    ("line", "field", "problem"),
    [
        ('{"prompt":"x","a":1,"metadata":{"a":1}}', "a", "given twice"),
        ('{"prompt":"x","a":1,"metadata.a":1}', "a", "given twice"),
        ('{"prompt":"x","engine":"GROK","task_type":"GROK"}', "task_type", "given twice"),
        ('{"prompt":"x","":1}', "column", "without a name"),
        ('{"prompt":"x","metadata":{"metadata.a":1}}', "metadata.a", "begins with"),
        ('{"prompt":"x","a\\u001bb":1}', "a?b", "cannot be seen"),
        ('{"prompt":"x","' + "n" * (NAME_CHARS_MAX + 1) + '":1}', "n" * 40 + "…", "longer than 100"),
        ('{"prompt":"x","notes":"' + "y" * METADATA_BYTES_MAX + '"}', "notes", "16,396 bytes"),
        ('{"prompt":"x","deep":' + "[" * 33 + "]" * 33 + "}", "deep", "nested more than 32"),
        ('{"prompt":"x","big":1e999,"half":"\\ud800"}', "line", ""),
        ('{"prompt":"x","custom_id":1.5}', "custom_id", "not a text"),
        ('{"prompt":"x","custom_id":"' + "9" * 201 + '"}', "custom_id", "201 characters"),
        ('{"prompt":"x","custom_id":"a\\u0000"}', "custom_id", "cannot be seen"),
        ('{"prompt":"x","custom_id":' + "9" * 201 + "}", "custom_id", "too many digits"),
    ],
)
def test_what_cannot_be_kept_is_said_with_field_and_line(line: str, field: str, problem: str) -> None:
    (bad,) = faults(f'{{"prompt":"good"}}\n{line}\n')
    assert (bad.line, bad.field) == (2, field)
    assert problem in bad.problem
    assert bad.remedy


def test_a_source_has_a_bounded_number_of_own_columns() -> None:
    fits = json.dumps({"prompt": "x"} | {f"c{n}": n for n in range(NAMES_MAX)})
    more = json.dumps({"prompt": "x", "one_more": 1})
    reader, found = read(f"{fits}\n{more}\n{fits}\n")
    bad = found[1]
    assert isinstance(bad, BadLine)
    assert (bad.line, bad.field) == (2, "one_more")
    assert [type(one) for one in found] == [TaskSpec, BadLine, TaskSpec]
    assert len(reader.own_columns) == NAMES_MAX


def test_a_record_of_thousands_of_names_is_refused_before_each_is_looked_at() -> None:
    many = {f"prompt{n}": n for n in range(10 * NAMES_MAX)}
    for fields in (many, {"metadata": many}):
        _, (bad,) = read(json.dumps({"prompt": "x"} | fields))
        assert isinstance(bad, BadLine)
        assert (bad.field, f"may have {NAMES_MAX}" in bad.problem) == (f"prompt{10 * NAMES_MAX - 1}", True)
