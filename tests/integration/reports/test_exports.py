"""A run's exports, loaded by readers that are not ours: DuckDB and pandas."""

import json
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
import sqlalchemy as sa

from app.files.export import Format, rows_of, write_file
from app.store import Store
from app.store.read import exports
from app.store.tables import account_entries
from app.views.export_rows import COLUMNS, ExportContent
from tests.integration.store.scenes import NOW, claim, ended, failed_on, report_on, settle_all, start_run
from tests.statements import before_each

if TYPE_CHECKING:
    import pandas as pd  # or each process of a test run takes half a second for it

TASKS = 30
CHARGED = Decimal("5.000001")


@pytest.fixture
async def run_id(store: Store) -> str:
    """A run with something of everything: answered, failed, unknown, sent, pending; and a correction."""
    run_id, ids = await start_run(store, TASKS)
    sent = await claim(store, 20)
    await store.submissions.record_submissions([ended(task) for task in sent])
    text = json.dumps({"text": "=zwei\r\nZeilen, „ja“", "sources": [{"url": "https://a.example"}]})
    await settle_all(
        store,
        *(report_on(task, CHARGED, response=text.encode()) for task in sent[:12]),
        *(failed_on(task) for task in sent[12:16]),
        report_on(sent[16], None),
    )
    correction = sa.insert(account_entries).values(
        at_ms=NOW,
        account="default",
        kind="adjustment",
        credits=Decimal("-0.5"),
        run_id=run_id,
        task_id=ids[0],
        attempt=1,
        reason="refunded by mail",
    )
    await store.db.write(lambda connection: connection.execute(correction))
    return run_id


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "EXPORT_CHUNK", 7)
    monkeypatch.setattr(exports, "LEDGER_CHUNK", 5)
    monkeypatch.setattr(exports, "ROWS_FETCHED", 2)


async def exported(store: Store, run_id: str, what: ExportContent, format_: Format, folder: Path) -> str:
    path = folder / f"{what}.{format_}"
    await write_file(rows_of(store, what, run_id), what, format_, path)
    return str(path)


def queried(query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(query).fetchall()


async def test_parquet_loads_in_duckdb_and_pandas_with_its_types(
    store: Store, run_id: str, tmp_path: Path
) -> None:
    import pandas as pd

    path = await exported(store, run_id, ExportContent.RESULTS, Format.PARQUET, tmp_path)
    types = {row[0]: row[1] for row in queried(f"DESCRIBE SELECT * FROM '{path}'")}
    assert list(types) == list(COLUMNS[ExportContent.RESULTS])
    assert types["credits_charged"] == "DECIMAL(18,6)"
    assert types["submitted_at"] == types["settled_at"] == "TIMESTAMP WITH TIME ZONE"
    assert (types["ordinal"], types["task_id"], types["response"]) == ("BIGINT", "VARCHAR", "VARCHAR")
    assert types["source_urls"] == "VARCHAR[]"
    assert queried(
        f"SELECT count(*), count(DISTINCT ordinal), sum(credits_charged), min(epoch_ms(settled_at)), "
        f"count(response), count(DISTINCT state) FROM '{path}'"
    ) == [(TASKS, TASKS, 12 * CHARGED, NOW + 3_000, 17, 4)]
    assert queried(f"SELECT DISTINCT answer_text, source_urls[1] FROM '{path}' WHERE ordinal = 1") == [
        ("=zwei\r\nZeilen, „ja“", "https://a.example")
    ]
    check_frame(pd.read_parquet(path))


def check_frame(frame: "pd.DataFrame") -> None:
    """The same file in pandas."""
    assert str(frame["submitted_at"].dtype) == "datetime64[ms, UTC]"
    assert {str(frame[name].dtype) for name in ("state", "verdict", "task_type")} == {"category"}
    assert str(frame["ordinal"].dtype) == "int64"
    assert {str(frame[name].dtype) for name in ("task_id", "prompt", "answer_text", "response")} == {"str"}
    assert frame["credits_charged"].dropna().sum() == 12 * CHARGED
    assert isinstance(frame["credits_charged"].iloc[0], Decimal)
    assert frame["state"].value_counts().to_dict() == {
        "completed": 13,
        "failed": 4,
        "submitted": 3,
        "pending": 10,
    }


LEDGER_TYPES = (
    "{'book': 'VARCHAR', 'kind': 'VARCHAR', 'credits': 'DECIMAL(18,6)', 'booked_at': 'TIMESTAMPTZ'}"
)
READERS = {
    Format.JSONL: "read_json('{path}', columns = " + LEDGER_TYPES.replace("{", "{{").replace("}", "}}") + ")",
    Format.CSV: "read_csv('{path}', types = " + LEDGER_TYPES.replace("{", "{{").replace("}", "}}") + ")",
    Format.PARQUET: "read_parquet('{path}')",
}


async def test_the_ledger_says_the_same_in_every_format(store: Store, run_id: str, tmp_path: Path) -> None:
    for format_, reader in READERS.items():
        path = await exported(store, run_id, ExportContent.LEDGER, format_, tmp_path)
        assert queried(
            "SELECT book, kind, count(*), sum(credits), max(epoch_ms(booked_at)) "
            f"FROM {reader.format(path=path)} GROUP BY 1, 2 ORDER BY 1, 2"
        ) == [
            ("account", "adjustment", 1, Decimal("-0.5"), NOW),
            ("ledger", "hold", 20, 100, NOW + 1_000),
            ("ledger", "post", 12, 12 * CHARGED, NOW + 3_000),
            ("ledger", "void", 4, 20, NOW + 3_000),
        ], format_


async def test_csv_loads_in_pandas_exactly(store: Store, run_id: str, tmp_path: Path) -> None:
    import pandas as pd

    path = await exported(store, run_id, ExportContent.RESULTS, Format.CSV, tmp_path)
    frame = pd.read_csv(path, dtype={"credits_charged": "str"}, parse_dates=["submitted_at", "settled_at"])
    assert len(frame) == TASKS
    assert sum(map(Decimal, frame["credits_charged"].dropna())) == 12 * CHARGED
    assert str(frame["settled_at"].dtype).endswith("UTC]")
    assert frame["answer_text"].iloc[0] == "'=zwei\r\nZeilen, „ja“"


async def test_an_answer_above_the_bound_ends_its_chunk(
    store: Store, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    found: list[int] = []

    async def count_chunk() -> None:
        sizes.append(0)

    monkeypatch.setattr(exports, "CHUNK_BYTES", 60)
    with before_each(store.db, "SELECT tasks.ordinal", count_chunk):
        async for row in store.exports.export(run_id):
            found.append(row["ordinal"])
            sizes[-1] += 1
    assert found == list(range(1, TASKS + 1))
    assert sizes[:12] == [1] * 12
    assert max(sizes) == 7
