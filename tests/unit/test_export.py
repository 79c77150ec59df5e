"""Exported rows: exact credits, flat columns, no formulas, and a file that is there whole or not at all."""

import asyncio
import csv
import errno
import io
import json
import os
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.cli.runs.prompt_file import refuse_if_not_a_file
from app.errors import USAGE, UserError
from app.files import export_parquet
from app.files.atomic_file import atomic_file
from app.files.export import Format, refuse_without_pyarrow, sink_for, write_file, write_rows
from app.views.export_rows import COLUMNS, ExportContent, row_document, row_line


def row(**changes: Any) -> dict[str, Any]:
    """A row as ExportReads.export gives it."""
    return {
        "ordinal": 1,
        "task_id": "t",
        "custom_id": None,
        "sample": None,
        "repeats": None,
        "samples_answered": None,
        "metadata": None,
        "attempt": 1,
        "task_type": "GEMINI",
        "payload": {"prompt": "why?", "country": "DE"},
        "priority": 1,
        "state": "completed",
        "verdict": "matched",
        "credits_estimate": Decimal(4),
        "credits_to_charge": Decimal(4),
        "credits_charged": Decimal("4.1"),
        "provider_task_id": "p",
        "error_code": None,
        "error_message": None,
        "submitted_at_ms": 1_790_000_000_000,
        "settled_at_ms": None,
        "settled_by": None,
        "reused_from": None,
        "response": '{"text":"because","sources":[{"url":"https://a.example"},{"label":"none"}]}',
        "answer_sha256": None,
        "response_note": None,
        **changes,
    }


def entry(**changes: Any) -> dict[str, Any]:
    """A row as ExportReads.export_ledger gives it."""
    return {
        "book": "account",
        "entry_id": 7,
        "booked_at_ms": 1_790_000_000_001,
        "run_id": "r",
        "account": "default",
        "ordinal": None,
        "task_type": None,
        "task_id": None,
        "custom_id": None,
        "sample": None,
        "repeats": None,
        "metadata": None,
        "attempt": None,
        "kind": "adjustment",
        "credits": Decimal("-4.1"),
        "delivery_id": None,
        "reason": "=refund",
        **changes,
    }


async def stream(*rows: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    for one in rows:
        yield one


async def written(what: ExportContent, format_: Format, *rows: dict[str, Any]) -> bytes:
    output = io.BytesIO()
    assert await write_rows(stream(*rows), sink_for(what, format_, output)) == len(rows)
    return output.getvalue()


async def cells(what: ExportContent = ExportContent.RESULTS, **changes: Any) -> dict[str, str]:
    made = (row if what is ExportContent.RESULTS else entry)(**changes)
    (found,) = csv.DictReader(io.StringIO((await written(what, Format.CSV, made)).decode(), newline=""))
    return found


async def parquet(what: ExportContent, *rows: dict[str, Any]) -> pa.Table:
    return pq.read_table(io.BytesIO(await written(what, Format.PARQUET, *rows)))


def test_credits_stay_exact_and_times_readable() -> None:
    document = row_document(row())
    assert (document["credits_charged"], document["credits_to_charge"]) == ("4.1", 4)
    assert (document["submitted_at"], document["settled_at"]) == ("2026-09-21T14:13:20.000Z", None)
    assert document["response"]["text"] == "because"


def test_a_line_holds_the_answer_as_it_came() -> None:
    line = row_line(row(response='{\n "a": 1.10,\r\n "b": 1e999, "half": "\\ud800" }'))
    assert line.count(b"\n") == 1
    assert b'{  "a": 1.10,   "b": 1e999, "half": "\\ud800" }' in line
    assert json.loads(row_line(row(response=None)))["response"] is None
    assert json.loads(row_line(entry()))["credits"] == "-4.1"
    assert json.loads(row_line(entry()))["booked_at"] == "2026-09-21T14:13:20.001Z"


async def test_csv_holds_what_engines_share_and_the_whole() -> None:
    flat = await cells()
    assert (flat["prompt"], flat["country"], flat["answer_text"]) == ("why?", "DE", "because")
    assert flat["source_urls"] == "https://a.example"
    assert json.loads(flat["response"])["text"] == "because"
    assert list(flat) == list(COLUMNS[ExportContent.RESULTS])


@pytest.mark.parametrize(
    ("response", "urls"),
    [
        ('{"organicResults":[{"link":"https://b.example"}]}', "https://b.example"),
        ('{"newsResults":[{"link":"https://c.example"},5]}', "https://c.example"),
        ('{"sources":[{"url":"https://half.example/\\ud800\\u0000"}]}', r"https://half.example/\ud800\0"),
        ('{"sources":null}', ""),
        ("null", ""),
        ("[1]", ""),
        ("not JSON", ""),
        (None, ""),
    ],
)
async def test_sources_of_every_engine(response: str | None, urls: str) -> None:
    flat = await cells(response=response, payload={"query": "q", "gl": "us"})
    assert (flat["source_urls"], flat["prompt"], flat["country"]) == (urls, "q", "us")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
async def test_a_text_is_never_a_formula(start: str) -> None:
    assert (await cells(payload={"prompt": start + "1"}))["prompt"] == "'" + start + "1"
    assert (await cells(response=json.dumps({"text": start})))["answer_text"] == "'" + start
    assert (await cells(error_code=start + "1"))["error_code"] == "'" + start + "1"


async def test_a_negative_correction_is_a_number_and_its_reason_a_text() -> None:
    flat = await cells(ExportContent.LEDGER)
    assert (flat["credits"], flat["reason"], flat["entry_id"]) == ("-4.1", "'=refund", "7")
    assert (flat["booked_at"], flat["task_id"]) == ("2026-09-21T14:13:20.001Z", "")


async def test_every_format_writes_every_row() -> None:
    rows = [row(ordinal=n, payload={"prompt": "zwei\nZeilen, „ja“", "country": "DE"}) for n in (1, 2)]
    lines = await written(ExportContent.RESULTS, Format.JSONL, *rows)
    assert [json.loads(text)["ordinal"] for text in lines.splitlines()] == [1, 2]
    table = (await written(ExportContent.RESULTS, Format.CSV, *rows)).decode()
    assert [one["prompt"] for one in csv.DictReader(io.StringIO(table))] == ["zwei\nZeilen, „ja“"] * 2
    found = (await parquet(ExportContent.RESULTS, *rows)).to_pylist()
    assert [(one["ordinal"], one["prompt"]) for one in found] == [(n, "zwei\nZeilen, „ja“") for n in (1, 2)]


async def test_parquet_has_a_type_for_everything() -> None:
    table = await parquet(ExportContent.RESULTS, row(), row(response=None, credits_charged=None))
    words = pa.dictionary(pa.int32(), pa.string())
    expected = {
        "ordinal": pa.int64(),
        "task_id": pa.string(),
        "task_type": words,
        "state": words,
        "verdict": words,
        "credits_charged": pa.decimal128(18, 6),
        "submitted_at": pa.timestamp("ms", "UTC"),
        "answer_text": pa.large_string(),
        "response": pa.large_string(),
        "answer_sha256": pa.string(),
        "response_note": words,
        "source_urls": pa.list_(pa.string()),
    }
    assert {name: table.schema.field(name).type for name in expected} == expected
    first, second = table.to_pylist()
    assert (first["credits_charged"], second["credits_charged"]) == (Decimal("4.1"), None)
    assert (first["source_urls"], second["source_urls"]) == (["https://a.example"], [])
    assert first["submitted_at"].isoformat() == "2026-09-21T14:13:20+00:00"
    assert second["answer_text"] is None
    (corrected,) = (await parquet(ExportContent.LEDGER, entry())).to_pylist()
    assert (corrected["credits"], corrected["ordinal"]) == (Decimal("-4.1"), None)


async def test_an_empty_run_is_an_empty_table_with_all_its_columns() -> None:
    table = await parquet(ExportContent.LEDGER)
    assert (table.num_rows, table.column_names) == (0, list(COLUMNS[ExportContent.LEDGER]))
    assert await written(ExportContent.LEDGER, Format.JSONL) == b""


async def test_row_groups_are_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_parquet, "ROW_GROUP_BYTES", 100_000)
    rows = [row(ordinal=n, response=json.dumps({"text": "x" * 10_000})) for n in range(50)]
    held = io.BytesIO(await written(ExportContent.RESULTS, Format.PARQUET, *rows))
    groups = pq.ParquetFile(held).metadata
    sizes = [groups.row_group(n).num_rows for n in range(groups.num_row_groups)]
    assert sum(sizes) == 50
    # The text stands twice in a row: as the answer, and in the response.
    assert set(sizes) == {5}


@pytest.mark.parametrize("format_", list(Format))
def test_memory_does_not_grow_with_the_run(format_: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_parquet, "ROW_GROUP_BYTES", 1 << 20)
    answer = "x" * 17_000

    async def many(count: int) -> AsyncIterator[dict[str, Any]]:
        for n in range(count):
            yield row(ordinal=n, response=json.dumps({"text": f"{n} {answer}"}))

    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            with open(os.devnull, "wb") as output:
                asyncio.run(write_rows(many(count), sink_for(ExportContent.RESULTS, format_, output)))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1)  # what is imported at first use stays
    # 350 answers more are 6 MB; threads of others allocate too.
    assert peak(400) < peak(50) + 2_000_000


async def test_a_credit_that_does_not_fit_is_reported(tmp_path: Path) -> None:
    source = stream(row(credits_charged=Decimal(10**12)))
    with pytest.raises(UserError, match="does not fit"):
        await write_file(source, ExportContent.RESULTS, Format.PARQUET, tmp_path / "x.parquet")
    assert os.listdir(tmp_path) == []


def test_without_pyarrow_the_remedy_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError) as raised:
        refuse_without_pyarrow()
    assert raised.value.code == "parquet_missing"
    assert "tallyhook[parquet]" in (raised.value.remedy or "")


@pytest.mark.parametrize("format_", list(Format))
@pytest.mark.parametrize("end", [RuntimeError("the database went away"), OSError(errno.ENOSPC, "full")])
def test_half_a_file_is_never_there(tmp_path: Path, format_: Format, end: Exception) -> None:
    async def broken() -> AsyncIterator[dict[str, Any]]:
        yield row()
        assert len(os.listdir(tmp_path)) == 2, "written in place"
        raise end

    path = tmp_path / "out"
    path.write_text("of yesterday")
    with pytest.raises(UserError if isinstance(end, OSError) else RuntimeError):
        asyncio.run(write_file(broken(), ExportContent.RESULTS, format_, path))
    assert os.listdir(tmp_path) == ["out"]
    assert path.read_text() == "of yesterday"


@pytest.mark.parametrize("place", ["no/such/place", ".", "plain/below"])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "plain").write_text("")
    with pytest.raises(UserError, match="cannot write"), atomic_file(tmp_path / place):
        pass


def test_a_pipe_keeps_its_place(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with atomic_file(pipe) as output:
            output.write(b"row")
        assert os.read(reader, 10) == b"row"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    link = tmp_path / "latest.csv"
    link.symlink_to(tmp_path / "monday.csv")
    with atomic_file(link) as output:
        output.write(b"row")
    assert link.is_symlink()
    assert (tmp_path / "monday.csv").read_bytes() == b"row"
    assert len(os.listdir(tmp_path)) == 2


def test_an_error_of_the_database_is_not_taken_for_one_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConnectionRefusedError), atomic_file(tmp_path / "out"):
        raise ConnectionRefusedError(errno.ECONNREFUSED, "no database")


def test_f26_a_pipe_waits_for_its_reader_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    with atomic_file(pipe) as output:
        output.write(b"one\n")
    reader.join()
    assert read == [b"one\n"]

    monkeypatch.setattr("app.files.atomic_file.READER_WAIT_S", 0.0)
    with pytest.raises(UserError, match="nobody reads the pipe") as caught, atomic_file(pipe):
        pass
    assert caught.value.exit_code == USAGE


@pytest.mark.parametrize("name", ["x" * 300, "y" * 300 + "/x"])
def test_f26_a_name_that_no_file_can_have_is_asked_for_wrongly(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write") as caught, atomic_file(tmp_path / name):
        pass
    assert (caught.value.exit_code, caught.value.remedy) == (USAGE, "choose another place")
    with pytest.raises(UserError, match="is no name of a file") as caught:
        refuse_if_not_a_file(tmp_path / name)
    assert caught.value.exit_code == USAGE


def test_f26_a_link_that_leads_to_itself_is_no_bug(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with atomic_file(tmp_path / "loop") as output:
        output.write(b"one")
    assert (tmp_path / "loop").read_bytes() == b"one"


OWN = ["brand_id", "Status", "State", "Metadata.x", "=evil", "more"]


async def own_table(format_: Format, metadata: str | None) -> dict[str, Any]:
    output = io.BytesIO()
    what = ExportContent.RESULTS
    await write_rows(stream(row(metadata=metadata, custom_id="-7")), sink_for(what, format_, output, OWN))
    if format_ is Format.PARQUET:
        return pq.read_table(io.BytesIO(output.getvalue())).to_pylist()[0]
    return next(csv.DictReader(io.StringIO(output.getvalue().decode(), newline="")))


async def test_own_columns_follow_ours_and_replace_none() -> None:
    metadata = '{"more":{"z":1.10,"a":[]},"brand_id":"007","Status":"mine","State":"-5","=evil":"=1+1"}'
    table = await own_table(Format.CSV, metadata)
    assert (table["state"], table["metadata.State"], table["Status"]) == ("completed", "-5", "mine")
    assert (table["brand_id"], table["more"], table["Metadata.x"]) == ("007", '{"z":1.10,"a":[]}', "")
    assert table["'=evil"] == "'=1+1"
    assert table["custom_id"] == "'-7"
    flat = await own_table(Format.PARQUET, metadata)
    assert (flat["state"], flat["metadata.State"], flat["=evil"]) == ("completed", "-5", "=1+1")
    assert (flat["more"], flat["Metadata.x"], flat["custom_id"]) == ('{"z":1.10,"a":[]}', None, "-7")


async def test_a_table_tells_a_blank_from_what_is_not_there() -> None:
    flat = await own_table(Format.PARQUET, '{"brand_id":"","more":null}')
    assert (flat["brand_id"], flat["more"], flat["Status"]) == ("", None, None)
    assert (await own_table(Format.PARQUET, None))["brand_id"] is None
    assert (await own_table(Format.PARQUET, '{"brand_id":"a\\u0000"}'))["brand_id"] == "a\\0"


async def test_a_line_has_own_columns_to_the_digit() -> None:
    metadata = '{"n":1.10,"big":123456789012345678901234567890,"e":1e400,"none":null,"s":"\\u00e9"}'
    line = await written(ExportContent.RESULTS, Format.JSONL, row(metadata=metadata))
    assert f'"metadata":{metadata}'.encode() in line
    assert b'"metadata":null' in await written(ExportContent.RESULTS, Format.JSONL, row())


async def test_what_excel_will_cut_is_counted_by_column() -> None:
    output, long_cells = io.BytesIO(), Counter[str]()
    texts = ["a" * 32_767, "a" * 32_768, "😀" * 16_384]
    rows = (row(response=json.dumps({"text": text}, ensure_ascii=False)) for text in texts)
    sink = sink_for(ExportContent.RESULTS, Format.CSV, output, (), long_cells)
    await write_rows(stream(*rows), sink)
    assert long_cells == {"answer_text": 2, "response": 3}
    found = list(csv.DictReader(io.StringIO(output.getvalue().decode("utf-8-sig"))))
    assert [found_row["answer_text"] for found_row in found] == texts


@pytest.mark.parametrize(
    "text", ["=1", "+1", "-x", "@x", "\t=1", "\rx", "  =1", "\n=1", "\u3000＝1", "＋1", "－x", "＠x"]
)
async def test_no_spreadsheet_takes_a_text_for_a_formula(text: str) -> None:
    found = await cells(response=json.dumps({"text": text}))
    assert found["answer_text"] == f"'{text}"
