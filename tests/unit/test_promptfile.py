"""Reading prompts: every record comes out as the task its author meant, or as a line that says what to do."""

import hashlib
import io
import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.engines.rules import INCLUDE_NAMES, TASK_TYPES
from app.domain.task import TaskSpec
from app.prompts.reader import BadLine, Defaults, PromptReader, read_prompts, split_include
from app.prompts.rows import RECORD_BYTES_MAX

CHATGPT = Defaults(task_type="CHATGPT", country="US")
EXAMPLES = Path(__file__).parents[2] / "examples" / "prompts.csv"


def read(text: str | bytes, defaults: Defaults = CHATGPT) -> list[TaskSpec | BadLine]:
    raw = text.encode() if isinstance(text, str) else text
    return list(read_prompts(io.BytesIO(raw), defaults))


def specs(text: str | bytes, defaults: Defaults = CHATGPT) -> list[TaskSpec]:
    found = read(text, defaults)
    assert not [one for one in found if isinstance(one, BadLine)], found
    return [one for one in found if isinstance(one, TaskSpec)]


def faults(text: str | bytes, defaults: Defaults = CHATGPT) -> list[tuple[int, str]]:
    found = [one for one in read(text, defaults) if isinstance(one, BadLine)]
    assert all(one.problem and one.remedy for one in found)
    return [(one.line, one.field) for one in found]


def test_the_examples_are_all_good() -> None:
    reader = read_prompts(EXAMPLES, Defaults())
    found = list(reader)
    assert all(isinstance(one, TaskSpec) for one in found)
    assert [one.ordinal for one in found if isinstance(one, TaskSpec)] == list(range(1, len(found) + 1))
    assert reader.format == "csv"
    assert (reader.records, reader.bad_records) == (len(found), 0)
    assert reader.sha256 == hashlib.sha256(EXAMPLES.read_bytes()).hexdigest()


def test_csv_columns_override_the_defaults() -> None:
    text = (
        "prompt,task_type,country,priority,include,state\n"
        "one,,,,,\n"
        "two,gemini,de,7,markdown|html,\n"
        "three,ChatGPT,us,,searchQueries,ca\n"
    )
    defaults = Defaults("PERPLEXITY", "FR", 3, ("markdown",))
    assert specs(text, defaults) == [
        TaskSpec(1, "PERPLEXITY", {"prompt": "one", "country": "FR", "include": {"markdown": True}}, 3),
        TaskSpec(
            2, "GEMINI", {"prompt": "two", "country": "DE", "include": {"markdown": True, "html": True}}, 7
        ),
        TaskSpec(
            3,
            "CHATGPT",
            {"prompt": "three", "country": "US", "state": "CA", "include": {"searchQueries": True}},
            3,
        ),
    ]


def test_jsonl_takes_the_same_fields_in_json_types() -> None:
    records = [
        {"query": "crm", "task_type": "google", "pages": 3, "include": {"aioverview": True, "html": False}},
        {"prompt": "crm", "taskType": "GOOGLE", "include": ["aioverview", "paaAioverview"], "device": "iOS"},
        {"query": "crm", "task_type": "google/news", "country": None, "priority": 9, "include": {}},
        {"prompt": "crm", "legacy": True, "disable_web_search": False, "pages": None},
    ]
    text = "\n\n".join(json.dumps(record) for record in records)
    assert specs(text, Defaults("CHATGPT", "us", include=("html",))) == [
        TaskSpec(
            1,
            "GOOGLE",
            {
                "query": "crm",
                "country": "US",
                "pages": 3,
                "include": {"aioverview": {"markdown": True}, "html": False},
            },
        ),
        TaskSpec(
            2,
            "GOOGLE",
            {
                "query": "crm",
                "country": "US",
                "device": "ios",
                "include": {"aioverview": {"markdown": True}, "paaAioverview": True},
            },
        ),
        TaskSpec(3, "GOOGLE_NEWS", {"query": "crm", "country": "US"}, 9),
        TaskSpec(
            4,
            "CHATGPT",
            {
                "prompt": "crm",
                "country": "US",
                "legacy": True,
                "disableWebSearch": False,
                "include": {"html": True},
            },
        ),
    ]


def test_overview_switched_off_is_left_out() -> None:
    text = '{"query": "crm", "task_type": "GOOGLE", "include": {"aioverview": false}}'
    assert specs(text)[0].payload == {"query": "crm", "country": "US"}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "prompt\nx\n", "csv"),
        ("a.jsonl", '{"prompt":"x"}', "jsonl"),
        ("a.ndjson", '\n\n{"prompt":"x"}', "jsonl"),
        ("a.txt", '  \n {"prompt":"x"}\n', "jsonl"),
        ("prompts", "\n\nprompt\nx\n", "csv"),
        ("a.JSONL", '{"prompt":"x"}', "jsonl"),
    ],
)
def test_format_by_ending_else_by_first_byte(name: str, content: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content)
    reader = read_prompts(path, CHATGPT)
    assert [type(one) for one in reader] == [TaskSpec]
    assert reader.format == expected


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"prompt\nx\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    reader = read_prompts(None, CHATGPT)
    assert len(list(reader)) == 1
    assert reader.sha256 == hashlib.sha256(content).hexdigest()
    with pytest.raises(RuntimeError, match="only once"):
        list(reader)


def test_a_byte_order_mark_is_no_part_of_the_first_name() -> None:
    assert specs(b"\xef\xbb\xbfprompt\nx\n")[0].payload["prompt"] == "x"
    assert specs(b'\xef\xbb\xbf{"prompt": "x"}')[0].payload["prompt"] == "x"


def test_quoted_newlines_belong_to_the_text_and_lines_are_physical() -> None:
    text = 'prompt,country\r\n"first\nsecond, ""quoted""",US\r\nnext,XX\r\n'
    found = read(text)
    assert found[0] == TaskSpec(1, "CHATGPT", {"prompt": 'first\nsecond, "quoted"', "country": "US"})
    assert isinstance(found[1], BadLine)
    assert (found[1].line, found[1].field) == (4, "country")


def test_bad_records_count_and_the_rest_goes_on() -> None:
    reader = read_prompts(io.BytesIO(b"prompt,country\na,US\n,US\nb,UK\nc,US\n"), CHATGPT)
    found = list(reader)
    assert [one.ordinal for one in found if isinstance(one, TaskSpec)] == [1, 4]
    assert found[1] == BadLine(3, "prompt", "missing", "write a text of 1 to 10,000 characters")
    assert found[2] == BadLine(4, "country", "'UK' is not a country code", "use GB")
    assert (reader.records, reader.bad_records) == (4, 2)


def test_all_faults_of_a_record_are_reported() -> None:
    assert faults("prompt,country,state,priority\nx,UK,ZZ,11\n") == [
        (2, "country"),
        (2, "state"),
        (2, "priority"),
    ]


def test_blank_rows_are_no_records() -> None:
    assert [spec.ordinal for spec in specs("prompt,country\n\na,US\n,\n  , \nb,US\n\n")] == [1, 2]
    assert [spec.ordinal for spec in specs('{"prompt":"a"}\n\n   \n{"prompt":"b"}\n')] == [1, 2]


@pytest.mark.parametrize(
    ("text", "line", "field", "message"),
    [
        ("", 1, "file", "empty"),
        ("\n \n", 1, "file", "empty"),
        ("\ufeff", 1, "file", "empty"),
        ("prompt,country\n", 1, "file", "without records"),
        ("promt,country\nx,US\n", 1, "promt", "did you mean prompt"),
        ("prompt,contry\nx,DE\n", 1, "contry", "did you mean country"),
        ("prompt,language\nx,de\n", 1, "language", "did you mean hl"),
        ("prompt,notes,notes\nx,y,z\n", 1, "notes", "named twice"),
        ("prompt,Prompt\nx,y\n", 1, "prompt", "named twice"),
        ("country,state\nUS,CA\n", 1, "prompt", "missing column"),
        ("Which CRM is best?\nWhich ERP is best?\n", 1, "header", "names no known column"),
        ('[{"prompt": "x"}]', 1, "file", "JSON array"),
        ('"prompt\nx\n', 1, "line", "never closed"),
        ("x" * (RECORD_BYTES_MAX + 1), 1, "file", "too long"),
        ("prompt\x00\nx\n", 1, "line", "NUL"),
    ],
)
def test_a_fault_of_the_file_ends_it(text: str, line: int, field: str, message: str) -> None:
    found = read(text)
    assert len(found) == 1, found
    fault = found[0]
    assert isinstance(fault, BadLine)
    assert (fault.line, fault.field) == (line, field)
    assert message in f"{fault.problem}; {fault.remedy}"


def test_a_task_type_is_needed_somewhere() -> None:
    none = Defaults(country="US")
    assert faults("prompt\nx\n", none) == [(1, "task_type")]
    assert faults("prompt,task_type\nx,\ny,CHATGPT\n", none) == [(2, "task_type")]
    assert faults('{"prompt": "x"}', none) == [(1, "task_type")]
    assert faults('{"prompt": "x", "task_type": 5}', none) == [(1, "task_type")]


@pytest.mark.parametrize(
    ("bad", "field", "message"),
    [
        (b"x", "line", "1 field, but the header has 2"),
        (b"x,US,extra", "line", "put quotes around"),
        (b"\xc3\xa9 caf\xe9,US", "line", "not UTF-8 (byte 0xe9 at offset 21)"),
        (b"a\x00b,US", "line", "NUL"),
        (b'"a" b,US', "line", "quote"),
        (b"x" * 10_001 + b",US", "prompt", "10,001 characters"),
        (b"x" * (RECORD_BYTES_MAX + 1), "line", "longer than"),
        (b'"' + b"x" * (2 * RECORD_BYTES_MAX) + b'",US', "line", "longer than"),
        (b"a\rb,US", "line", "carriage return"),
        (b"x,\xc3\x84", "country", "not a country code"),
    ],
)
def test_a_bad_csv_record_leaves_the_next_alone(bad: bytes, field: str, message: str) -> None:
    found = read(b"prompt,country\n" + bad + b"\nnext,US\n")
    assert len(found) == 2, found
    fault, spec = found
    assert isinstance(fault, BadLine)
    assert isinstance(spec, TaskSpec)
    assert (fault.line, fault.field) == (2, field)
    assert message in f"{fault.problem}; {fault.remedy}"
    assert (spec.ordinal, spec.payload["prompt"]) == (2, "next")


def test_an_open_quote_never_makes_a_prompt_of_two_lines() -> None:
    found = read('prompt,country\n"open,US\n"quoted, too",US\nnext,US\n')
    assert [one.payload["prompt"] for one in found if isinstance(one, TaskSpec)] == ["next"]
    assert isinstance(found[0], BadLine)
    assert (found[0].line, found[0].problem) == (
        2,
        "a quote in the wrong place (lines 2 to 3 were passed over)",
    )


def test_an_open_quote_above_the_bound_ends_the_file() -> None:
    text = 'prompt,country\n"open,US\n' + "text,US\n" * (RECORD_BYTES_MAX // 8)
    found = read(text)
    assert len(found) == 1
    assert isinstance(found[0], BadLine)
    assert found[0].line == 2
    # The same for a line that is too long by itself: its quotes do not match.
    found = read(b'prompt\n"' + b"x" * (RECORD_BYTES_MAX + 9) + b"\nnext\n")
    assert [one.line for one in found if isinstance(one, BadLine)] == [2]
    assert len(found) == 1


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (b"not json", "line"),
        (b'{"prompt": "x"', "line"),
        (b"[1]", "line"),
        (b'"text"', "line"),
        (b"[" * 100_000, "line"),
        (b'{"prompt": "\xc3\xa9 caf\xe9"}', "line"),
        (b'{"prompt": "\\ud800"}', "line"),
        (b'{"prompt": "a\\u0000b"}', "prompt"),
        (b'{"prompt": 5}', "prompt"),
        (b'{"prompt": "  "}', "prompt"),
        (b'{"promt": "x"}', "promt"),
        (b'{"prompt": "x", "task_type": "GOOGEL"}', "task_type"),
        (b'{"prompt": "x", "task_type": "CHATGPT", "taskType": "GROK"}', "task_type"),
        (b'{"prompt": "x", "query": "y"}', "query"),
        (b'{"prompt": "x", "include": "markdwon"}', "include"),
        (b'{"prompt": "x", "include": [1]}', "include"),
        (b'{"prompt": "x", "include": 1}', "include"),
        (b'{"prompt": "x", "include": {"markdown": "yes"}}', "include"),
        (b'{"prompt": "x", "country": 7}', "country"),
        (b'{"prompt": "x", "priority": 2.5}', "priority"),
        (b'{"prompt": "x", "priority": true}', "priority"),
        (b'{"prompt": "x", "pages": 2}', "pages"),
        (b'{"prompt": "x", "legacy": "perhaps"}', "legacy"),
        (b'{"prompt": "' + b"x" * RECORD_BYTES_MAX + b'"}', "line"),
    ],
)
def test_a_bad_jsonl_record_leaves_the_next_alone(bad: bytes, field: str) -> None:
    found = read(b'{"prompt":"before"}\n' + bad + b'\n{"prompt":"next"}\n')
    assert [one.ordinal for one in found if isinstance(one, TaskSpec)] == [1, 3]
    assert [(one.line, one.field) for one in found if isinstance(one, BadLine)] == [(2, field)]


def test_spreadsheet_numbers_and_words_for_true() -> None:
    text = "query,task_type,pages,priority\nx,GOOGLE,2.0,3\n"
    assert specs(text) == [TaskSpec(1, "GOOGLE", {"query": "x", "country": "US", "pages": 2}, 3)]
    assert specs('{"query":"x","task_type":"GOOGLE","pages":2.0}')[0].payload["pages"] == 2
    text = "prompt,legacy,disableWebSearch\nx,Yes,0\n"
    assert specs(text)[0].payload == {
        "prompt": "x",
        "country": "US",
        "legacy": True,
        "disableWebSearch": False,
    }


def test_no_default_country_where_a_google_record_names_its_place() -> None:
    rows = [
        {"query": "x", "gl": "de"},
        {"url": "https://www.google.de/search?q=x&gl=de"},
        {"url": "https://www.google.de/search?q=x"},
        {"query": "x"},
    ]
    text = "\n".join(json.dumps(row | {"task_type": "GOOGLE"}) for row in rows)
    assert [spec.payload.get("country") for spec in specs(text)] == [None, None, "US", "US"]


def test_a_default_include_stays_with_the_engines_that_know_it() -> None:
    text = "prompt,task_type,include\na,CHATGPT,\nb,GOOGLE,\nc,GOOGLE,html\n"
    found = specs(text, Defaults(country="US", include=("markdown",)))
    assert [spec.payload.get("include") for spec in found] == [{"markdown": True}, None, {"html": True}]
    assert faults("prompt,task_type,include\na,GOOGLE,markdown\n") == [(2, "include")]


def test_a_column_without_a_name_must_be_blank() -> None:
    found = read("prompt,,country,\na,,US,\nb,note,US,\n")
    assert found[0] == TaskSpec(1, "CHATGPT", {"prompt": "a", "country": "US"})
    assert isinstance(found[1], BadLine)
    assert (found[1].line, found[1].problem) == (3, "a cell in a column without a name")


def test_what_is_asked_keeps_its_blanks() -> None:
    assert specs("prompt\n  x \n")[0].payload["prompt"] == "  x "


@pytest.mark.parametrize(
    ("defaults", "message"),
    [
        (Defaults(task_type="CHATGTP"), "task_type: 'CHATGTP' is not an engine; use CHATGPT"),
        (Defaults(country="UK"), "country: 'UK' is not a country code; use GB"),
        (Defaults(priority=11), "priority: '11' is not a priority; use 1 to 10"),
        (Defaults(include=("markdwon",)), "include: 'markdwon' is not taken by any engine"),
        (Defaults(task_type="google", include=("markdown",)), "include: 'markdown' is not taken by GOOGLE"),
    ],
)
def test_wrong_defaults_are_refused_at_once(defaults: Defaults, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_prompts(io.BytesIO(b""), defaults)


@pytest.mark.parametrize(
    "text", ["markdown|html", "markdown, html", "markdown html", " markdown ;html,", "markdown,|html"]
)
def test_include_names_may_be_separated_in_several_ways(text: str) -> None:
    assert split_include(text) == ("markdown", "html")


def test_a_missing_file_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(read_prompts(tmp_path / "none.csv", CHATGPT))


def test_memory_stays_flat_however_long_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.prompts.source.HEAD_BYTES", 8 * 1024)

    def peak(records: int) -> int:
        source = _Endless(b"prompt,country\n", b'"What about this, and that?",US\n', records)
        tracemalloc.start()
        try:
            assert sum(1 for _ in PromptReader(source, CHATGPT)) == records  # type: ignore[arg-type]
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)
    # 4,500 lines more are 140 KB as they stand; threads of others allocate too.
    assert peak(5_000) < peak(500) + 100_000


class _Endless(io.RawIOBase):
    """A source that makes its bytes as they are asked for."""

    def __init__(self, header: bytes, line: bytes, records: int) -> None:
        super().__init__()
        self._kept, self._line, self._left = header, line, records

    def read(self, size: int = -1) -> bytes:
        while len(self._kept) < size and self._left:
            many = min(self._left, 100)
            self._kept += self._line * many
            self._left -= many
        part, self._kept = self._kept[:size], self._kept[size:]
        return part


@given(
    st.binary(max_size=400)
    | st.lists(st.sampled_from(["prompt", ",", '"', "\n", "\r", "US", "{", "}", ":", "\x00", "é"])).map(
        lambda parts: "".join(parts).encode()
    )
)
def test_any_bytes_come_out_as_tasks_or_bad_lines(raw: bytes) -> None:
    for content in (raw, b"prompt,country\n" + raw, b'{"prompt":"x"}\n' + raw):
        reader = read_prompts(io.BytesIO(content), CHATGPT)
        found = list(reader)
        assert all(isinstance(one, TaskSpec | BadLine) for one in found)
        assert all(
            one.line <= content.count(b"\n") + content.count(b"\r") + 1
            for one in found
            if isinstance(one, BadLine)
        )
        json.dumps([one.payload for one in found if isinstance(one, TaskSpec)], ensure_ascii=False).encode()
        if not any(isinstance(one, BadLine) and one.field in ("file", "header") for one in found):
            assert reader.records >= len([one for one in found if isinstance(one, TaskSpec)])


_TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=60).filter(
    str.strip
)


@given(st.lists(st.tuples(_TEXTS, st.sampled_from([t for t in TASK_TYPES if "GOOGLE" not in t])), min_size=1))
def test_what_is_written_is_read_again(rows: Sequence[tuple[str, str]]) -> None:
    import csv

    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    writer.writerows([("prompt", "task_type", "country"), *((text, kind, "DE") for text, kind in rows)])
    lines = "\n".join(json.dumps({"prompt": text, "task_type": kind, "country": "DE"}) for text, kind in rows)
    expected = [
        TaskSpec(n, kind, {"prompt": text, "country": "DE"}) for n, (text, kind) in enumerate(rows, 1)
    ]
    assert specs(out.getvalue(), Defaults()) == expected
    assert specs(lines, Defaults()) == expected


def test_every_include_name_is_found_whatever_its_case() -> None:
    for name in sorted(INCLUDE_NAMES):
        found = read(json.dumps({"prompt": "x", "include": name.upper()}), CHATGPT)
        wrong = [one.problem for one in found if isinstance(one, BadLine)]
        assert not wrong or wrong == [f"CHATGPT does not take '{name}'"]


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ('{"prompt":"first","prompt":"second"}', "prompt"),
        ('{"prompt":"first","prompt":"first"}', "prompt"),
        ('{"prompt":"x","pro\\u006dpt":"y"}', "prompt"),
        ('{"prompt":"x","include":{"markdown":true,"markdown":false}}', "markdown"),
        ('{"prompt":"x","include":{"searchQueries":true,"search_queries":true}}', "include"),
        ('{"prompt":"x","include":{"aioverview":{"markdown":true,"markdown":false}}}', "markdown"),
        ('{"prompt":"x","task_type":"AIMODE","include":[{"a":1,"a":2}]}', "a"),
        ('{"prompt":"x","country":"DE","country":"US","pages":123456789012345678901234567890}', "country"),
    ],
)
def test_f13_a_name_given_twice_is_refused_with_its_line(line: str, field: str) -> None:
    """Any JSON parser keeps the last of the two, and with it one prompt of two that were meant."""
    (bad,) = [one for one in read(f'{{"prompt":"good"}}\n{line}\n') if isinstance(one, BadLine)]
    assert (bad.line, bad.field) == (2, field)
    assert "twice" in bad.problem
    assert bad.remedy == "keep one of them"


def test_f13_equal_names_of_different_objects_are_no_repeat() -> None:
    text = (
        '{"prompt":"prompt","include":{"markdown":true}}\n{"prompt":"prompt","include":{"markdown":true}}\n'
    )
    assert len(specs(text)) == 2
