"""A database behind something that goes on to accept and says nothing, and one that was demoted: everybody
who waits is told in time, and everything goes on with the connections that are made afterwards."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import asyncpg  # type: ignore[import-untyped]
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.util import await_only

from app.domain.delivery import RawDelivery
from app.domain.settlement import Source
from app.domain.task import new_id
from app.ports import StoreUnavailable
from app.provider.wire import read_answer
from app.store import Database, Store
from app.store.database import CLOSE_S, TRIES_WITHIN
from tests.integration.store.scenes import NOW
from tests.servers.postgres import PostgresServer, database_name
from tests.servers.proxy import Proxy, through

T = TypeVar("T")
LIMIT_S = 0.4
BUSY_S = 20.0
"""What a busy machine may take besides. The silence lasts until a test ends it."""
ERROR_WITHIN_S = (TRIES_WITHIN + 1) * LIMIT_S + 2 * CLOSE_S + BUSY_S
"""The last try, and an end in order for two connections."""


@pytest.fixture
async def silenced(postgres_url: str, proxy: Proxy) -> AsyncIterator[Store]:
    """A store whose connections go through the proxy, some of them in use before."""
    database = Database(
        through(proxy, postgres_url), timeout_s=LIMIT_S, long_timeout_s=2 * LIMIT_S, connect_timeout_s=LIMIT_S
    )
    store = Store(database, read_answer)
    await asyncio.gather(*(until_answered(store.queries.waiting_count) for _ in range(3)))
    await store_patiently(store, 1)
    yield store
    started_s = time.monotonic()
    await store.close()
    assert time.monotonic() - started_s < CLOSE_S + BUSY_S, "a silent server does not hold our end up"


def deliveries(count: int) -> list[RawDelivery]:
    return [RawDelivery(new_id(NOW), Source.DELIVERY, NOW, b"{}") for _ in range(count)]


async def until_answered(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask again while a busy machine takes longer than the limit of a test."""
    for _ in range(20):
        with contextlib.suppress(StoreUnavailable):
            return await ask()
    return await ask()


async def store_patiently(store: Store, count: int) -> None:
    new = deliveries(count)
    await until_answered(lambda: store.inbox.store_deliveries(new, due_at_ms=NOW))


async def lease(store: Store, owner: str = "me") -> bool:
    return await store.runs.acquire_lease("a", owner, until_ms=NOW + 1, now_ms=NOW)


async def test_f17_reads_writes_and_commits_end_in_time_behind_a_silent_proxy(
    silenced: Store, proxy: Proxy
) -> None:
    async def seconds_until_error(asked: object) -> float:
        started_s = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await asked  # type: ignore[misc]
        return time.monotonic() - started_s

    proxy.silent = True
    # On connections that stand, and then on new ones, which do not come about either.
    for _ in range(2):
        took_s = await asyncio.gather(
            seconds_until_error(silenced.queries.waiting_count()),
            seconds_until_error(lease(silenced)),
            seconds_until_error(silenced.inbox.store_deliveries(deliveries(2), due_at_ms=NOW)),
            seconds_until_error(silenced.db.read(lambda c: c.scalar(sa.text("SELECT 1")), long=True)),
        )
        assert max(took_s) < ERROR_WITHIN_S, took_s
    proxy.silent = False
    assert await until_answered(silenced.queries.waiting_count) == 1
    assert await until_answered(lambda: lease(silenced))
    await store_patiently(silenced, 2)
    assert await until_answered(silenced.queries.waiting_count) == 3


async def test_f17_a_silent_server_does_not_hold_the_end_up(silenced: Store, proxy: Proxy) -> None:
    proxy.silent = True  # the fixture looks at the time


async def test_f17_whoever_is_cancelled_in_the_silence_leaves_no_connection_behind(
    silenced: Store, proxy: Proxy
) -> None:
    proxy.silent = True
    for _ in range(12):  # more than the pool has
        waiting = asyncio.gather(lease(silenced), silenced.queries.waiting_count(), return_exceptions=True)
        await asyncio.sleep(0.02)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    proxy.silent = False
    asked = (until_answered(silenced.queries.waiting_count) for _ in range(10))
    assert await asyncio.gather(*asked) == [1] * 10


async def test_f17_a_statement_that_waits_too_long_is_ended_at_the_server(postgres_url: str) -> None:
    store, other = (
        Store(Database(postgres_url, timeout_s=0.2), read_answer),
        await asyncpg.connect(postgres_url),
    )
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = $1"
    try:
        await store_patiently(store, 1)
        async with other.transaction():
            await other.execute("LOCK TABLE deliveries, leases IN ACCESS EXCLUSIVE MODE")
            for _ in range(3):
                with pytest.raises(StoreUnavailable):
                    await lease(store)
                with pytest.raises(StoreUnavailable):
                    await store.inbox.store_deliveries(deliveries(1), due_at_ms=NOW)
            async with asyncio.timeout(BUSY_S):  # or what piles up waits until the lock is given back
                while await other.fetchval(waiting, database_name(postgres_url)):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        assert await until_answered(lambda: lease(store))
        await store_patiently(store, 1)
    finally:
        await other.close()
        await store.close()


async def test_f17_what_is_long_by_design_may_take_longer(postgres_url: str) -> None:
    database = Database(postgres_url, timeout_s=0.2)

    async def long(connection: AsyncConnection) -> bool:
        await connection.execute(sa.text("SELECT pg_sleep(0.4)"))
        return True

    try:
        for run in (database.read, database.write):
            assert await run(long, long=True)
            with pytest.raises(StoreUnavailable):
                await run(long)
    finally:
        await database.close()


def writable_for_now(db: Database) -> list[Any]:
    """The driver's connections that are made from here on; each can write until it is reset."""
    made: list[Any] = []

    def note(connection: Any, _record: Any) -> None:
        made.append(connection.driver_connection)
        await_only(made[-1].execute("SET default_transaction_read_only = off; SET statement_timeout = 0"))

    sa.event.listen(db.engine.sync_engine, "connect", note)
    return made


@pytest.mark.parametrize("setting", ["default_transaction_read_only = on", "statement_timeout = 150"])
async def test_f16_sessions_that_began_at_a_demoted_server_are_not_kept(
    postgres_url: str, postgres: PostgresServer, setting: str
) -> None:
    """A session keeps what it began with, and so does the one that is kept for deliveries."""
    store, own = Store(Database(postgres_url), read_answer), f'ALTER DATABASE "{database_name(postgres_url)}"'
    slow = "DELETE FROM leases WHERE (SELECT pg_sleep(0.5)) IS NULL"
    try:
        postgres.execute(f"{own} SET {setting}")
        async with AsyncExitStack() as stack:
            for _ in range(5):
                await stack.enter_async_context(store.db.engine.connect())
        made = writable_for_now(store.db)
        await store.inbox.store_deliveries(deliveries(1), due_at_ms=NOW)
        for driver in made:
            await driver.execute("RESET ALL")
        postgres.execute(f"{own} RESET ALL")
        # One of them has to fail for it, or not even that: it is tried again on another connection.
        with contextlib.suppress(StoreUnavailable):
            await store.db.write(lambda connection: connection.execute(sa.text(slow)))
        assert await asyncio.gather(*(lease(store) for _ in range(5))) == [True] * 5
        await store.inbox.store_deliveries(deliveries(40), due_at_ms=NOW)
        assert (
            await store.db.write(lambda connection: connection.scalar(sa.text("SHOW statement_timeout")))
            == "0"
        )
    finally:
        postgres.execute(f"{own} RESET ALL")
        await store.close()


async def test_f16_deliveries_are_stored_as_soon_as_the_server_is_no_longer_demoted(
    postgres_url: str, postgres: PostgresServer
) -> None:
    store, own = Store(Database(postgres_url), read_answer), f'ALTER DATABASE "{database_name(postgres_url)}"'
    try:
        postgres.execute(f"{own} SET default_transaction_read_only = on")
        with pytest.raises(StoreUnavailable, match="read-only"):
            await store.inbox.store_deliveries(deliveries(40), due_at_ms=NOW)
        with pytest.raises(StoreUnavailable, match="read-only"):
            await lease(store)
        postgres.execute(f"{own} RESET ALL")
        await store.inbox.store_deliveries(deliveries(40), due_at_ms=NOW)
        assert await lease(store)
    finally:
        postgres.execute(f"{own} RESET ALL")
        await store.close()
