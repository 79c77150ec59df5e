"""Whose fault an error of the database is, as the databases themselves tell it."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.task import new_id
from app.ports import RowsRefused, StoreRefused, StoreUnavailable
from app.provider.wire import read_answer
from app.store import Database, Store
from app.store.migrate import migrate
from app.store.tables import ledger, results
from app.store.write.settlement_rows import LEDGER_COLUMNS, RESULT_COLUMNS
from tests.integration.store.scenes import NOW
from tests.servers.postgres import PostgresServer

SECRET = "what the answer says"
STATES = {
    RowsRefused: ["22000", "22001", "22P02", "22021", "23502", "23505", "23514", "54000", "54011"],
    StoreUnavailable: [
        "40001",
        "40P01",
        "55P03",
        "57P01",
        "57P03",
        "57P05",
        "25P03",
        "25006",
        "26000",
        "42P05",
        "58030",
        "53100",
        "53300",
        "08006",
    ],
    StoreRefused: ["42P01", "42703", "42501", "57014", "42804", "3D000", "P0001", "XX000"],
}


@pytest.fixture
async def postgres_store(postgres_url: str) -> Any:
    opened = Store(Database(postgres_url), read_answer)
    yield opened
    await opened.close()


@pytest.fixture(autouse=True)
def _no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(_: float) -> None: ...

    monkeypatch.setattr("app.store.database.asyncio.sleep", at_once)


async def raised(work: Awaitable[Any]) -> Exception:
    with pytest.raises((StoreUnavailable, RowsRefused)) as caught:
        await work
    return caught.value


def saying(sql: str) -> Callable[[AsyncConnection], Awaitable[None]]:
    async def work(connection: AsyncConnection) -> None:
        await connection.exec_driver_sql(sql)

    return work


@pytest.mark.parametrize(
    ("state", "kind"), [(state, kind) for kind, states in STATES.items() for state in states]
)
async def test_each_state_of_postgresql_has_its_kind(
    postgres_store: Store, state: str, kind: type[Exception]
) -> None:
    text = f"DO $$ BEGIN RAISE EXCEPTION 'because: {SECRET}' USING ERRCODE = '{state}'; END $$"
    for ask in (postgres_store.db.write, postgres_store.db.read):
        error = await raised(ask(saying(text)))
        assert type(error) is kind
        assert f"SQLSTATE {state}" in str(error)
        if kind is RowsRefused:
            assert SECRET not in str(error)


BAD_ROWS = {
    "half a surrogate pair": ("\ud83d", NOW),
    "beyond its column": ("{}", 2**63),
    "nothing where there must be something": (None, NOW),
}


@pytest.mark.parametrize("response, at_ms", BAD_ROWS.values(), ids=list(BAD_ROWS))
async def test_rows_that_no_database_takes_are_their_own_fault(
    store: Store, response: Any, at_ms: int
) -> None:
    row = new_id(NOW), 1, new_id(NOW), response, at_ms, 2, bytes(32), 0, 1

    async def work(connection: AsyncConnection) -> None:
        await store.db.insert_plain(connection, results, RESULT_COLUMNS, [row])

    assert type(await raised(store.db.write(work))) is RowsRefused


async def test_a_key_that_is_there_already_is_the_row_s_own_fault(store: Store) -> None:
    def entry(credits: int) -> tuple[Any, ...]:
        return NOW, same, same, 1, "hold", credits, None, None

    same = store.db.driver_id(new_id(NOW))

    async def work(connection: AsyncConnection) -> None:
        await store.db.insert_plain(connection, ledger, LEDGER_COLUMNS, [entry(5), entry(6)])

    assert type(await raised(store.db.write(work))) is RowsRefused


@pytest.mark.parametrize("sql", ["SELECT nothing FROM tasks", "INSERT INTO nowhere VALUES (1)"])
async def test_a_schema_that_is_not_ours_is_trouble_and_not_tried_again(store: Store, sql: str) -> None:
    tries = 0

    async def work(connection: AsyncConnection) -> None:
        nonlocal tries
        tries += 1
        await connection.exec_driver_sql(sql)

    for ask in (store.db.write, store.db.read):
        assert type(await raised(ask(work))) is StoreRefused
    assert tries == 2


async def test_a_sum_that_overflows_is_not_held_against_a_row(sqlite_store: Store) -> None:
    sql = "SELECT sum(n) FROM (SELECT 9223372036854775807 AS n UNION ALL SELECT 1)"
    error = await raised(sqlite_store.db.read(saying(sql)))
    assert (type(error), str(error)) == (StoreRefused, "integer overflow")


async def test_a_plan_that_was_kept_over_a_migration_is_made_anew(postgres: PostgresServer) -> None:
    url = postgres.create_database()
    store, other = Store(Database(url, pool_size=1), read_answer), Database(url)
    try:
        await migrate(store.db)
        ask = "SELECT * FROM leases"
        await store.db.write(saying(ask))
        await other.write(saying("ALTER TABLE leases ADD COLUMN later text"))
        await store.db.write(saying(ask))
    finally:
        await other.close()
        await store.close()
        postgres.drop_database(url)
