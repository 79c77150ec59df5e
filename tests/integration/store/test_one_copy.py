"""One copy of each answer: the upgrade of a database with answers in `results`, beside the version before."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.task import new_id
from app.provider.wire import read_answer
from app.store import Database, Store
from app.store.finish import finish, steps_due
from app.store.migrate import alembic_config, migrate
from app.store.migrations import narrow_results
from app.store.write.inbox import pack

COLUMNS = ("task_id", "attempt", "delivery_id", "status", "response", "stored_at_ms")
"""As the version before writes them."""
COUNT = 200
ROWS = "SELECT answer_bytes, answer_sha256, seq FROM results ORDER BY stored_at_ms"


def to_the_revision_before(connection: sa.Connection) -> None:
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "0012")


def answer(n: int) -> str:
    return json.dumps({"text": f"ä{n}" * 500})


async def insert_before(db: Database, numbers: Sequence[int]) -> None:
    """Deliveries, and results by COPY or executemany, as the version before does."""
    ids = [new_id(n, n) for n in numbers]
    packed = [pack(f'{{"response":{answer(n)}}}'.encode()) for n in numbers]

    async def work(connection: AsyncConnection) -> None:
        names = ("id", "source", "received_at_ms", "encoding", "body", "state", "tries", "due_at_ms")
        raw = [
            (db.driver_id(i), "delivery", n, *body, "done", 0, n)
            for i, n, body in zip(ids, numbers, packed, strict=True)
        ]
        marks = ", ".join("?" * len(names))
        rows = [
            (db.driver_id(i), 1, db.driver_id(i), "completed", answer(n), n)
            for i, n in zip(ids, numbers, strict=True)
        ]
        driver: Any = (await connection.get_raw_connection()).driver_connection
        if db.is_sqlite:
            text = f"INSERT INTO deliveries ({', '.join(names)}) VALUES ({marks})"
            await connection.exec_driver_sql(text, raw)
            text = f"INSERT INTO results ({', '.join(COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?)"
            await connection.exec_driver_sql(text, rows)
        else:
            await driver.copy_records_to_table("deliveries", columns=names, records=raw)
            await driver.copy_records_to_table("results", columns=COLUMNS, records=rows)

    await db.write(work)


async def reuse_before(db: Database, number: int) -> None:
    """A copied result, by the statement of the version before; its text is null by now."""
    literal = f"'{db.driver_id(new_id(900, 900))}'"
    await db.write(
        lambda connection: connection.execute(
            sa.text(
                f"INSERT INTO results ({', '.join(COLUMNS)}) SELECT "
                f"{literal if db.is_sqlite else f'CAST({literal} AS UUID)'}, attempt, delivery_id, status, "
                "response, 900 FROM results WHERE stored_at_ms = :at_ms ON CONFLICT DO NOTHING"
            ),
            {"at_ms": number},
        )
    )


async def stored(db: Database) -> list[tuple[Any, ...]]:
    async with db.engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(sa.text(ROWS))]


def expected(n: int, seq: int) -> tuple[Any, ...]:
    content = answer(n).encode()
    return len(content), hashlib.sha256(content).digest(), seq


@pytest.fixture
async def before(empty_url: str, tmp_path: Any) -> Any:
    """A database at the revision before, with some results."""
    (tmp_path / "new folder").mkdir(exist_ok=True)
    store = Store(Database(empty_url), read_answer)
    await store.db.write(lambda connection: connection.run_sync(to_the_revision_before))
    await insert_before(store.db, range(COUNT))
    yield store
    await store.close()


async def test_answers_become_hashes_in_the_order_they_were_stored(before: Store) -> None:
    await migrate(before.db)
    assert await stored(before.db) == [expected(n, n + 1) for n in range(COUNT)]


async def test_a_killed_copy_goes_on_where_it_was(before: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half is copied when it ends; the version before goes on writing, then and after the upgrade."""
    monkeypatch.setattr(narrow_results, "ROWIDS", 15)
    monkeypatch.setattr(narrow_results, "BLOCKS", 1)
    await before.db.write(lambda connection: connection.run_sync(narrow_results.begin))
    assert await before.db.write(lambda connection: connection.run_sync(narrow_results.copy_batch))
    await insert_before(before.db, range(COUNT, COUNT + 10))
    await migrate(before.db)
    found = await stored(before.db)
    assert [row[:2] for row in found] == [expected(n, 0)[:2] for n in range(COUNT + 10)]
    assert sorted(row[2] for row in found) == list(range(1, COUNT + 11))


async def test_the_version_before_goes_on_and_a_sweep_completes_what_it_writes(before: Store) -> None:
    await migrate(before.db)
    await insert_before(before.db, range(300, 303))
    await reuse_before(before.db, 301)
    async with before.db.engine.connect() as connection:
        texts = await connection.scalars(sa.text("SELECT DISTINCT response FROM results"))
        assert list(texts) == [None]
    assert await before.results.complete_results() == 4
    rest = [expected(n, COUNT + seq) for n, seq in ((300, 1), (301, 2), (302, 3), (301, 4))]
    assert (await stored(before.db))[COUNT:] == rest
    assert await before.results.complete_results() == 0


async def test_the_upgrade_is_finished_once(before: Store) -> None:
    await migrate(before.db)
    name = "drop the column response of results"
    assert name in [step.name for step in await steps_due(before.db)]
    assert name in [step.name for step in await finish(before.db)]
    assert await finish(before.db) == []
    assert len(await stored(before.db)) == COUNT
