"""Connections, and what differs between SQLite and PostgreSQL: how a write transaction begins, and how many
rows travel in one statement. Whose fault an error is: `driver_errors`.
"""

import asyncio
import contextlib
import functools
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection
from sqlalchemy.util import await_only

from app.address import read_database_address
from app.ports import StoreUnavailable
from app.store import sqlite_cursor
from app.store.batch import Batch, Rows, Types
from app.store.driver_errors import Fault, fault_of, sqlstate_of, translate_driver_error
from app.store.open_connections import OpenConnections
from app.store.sqlite_append import Append, append_rows
from app.store.sqlite_turns import WriterTurns

if TYPE_CHECKING:
    from app.store.postgres import PostgresAddress

T = TypeVar("T")

WRITE_TRIES = 6
"""Deadlocks and lost connections; with the waits below about 3 s in all."""
TIMEOUT_S = 10.0
"""One transaction, its connection included. The slowest that is not long by design takes a second."""
LONG_TIMEOUT_S = 900.0
"""The same for what reads or moves whole runs: a report on a million tasks takes a minute."""
CONNECT_TIMEOUT_S = 5.0
TRIES_WITHIN = 1.5
"""No try begins later than so many times its limit after the first: whoever waits has an answer within two
and a half limits."""
SQLITE_BUSY_MS = 10_000
SQLITE_PAGE_BYTES = 2048
"""Of a new file; one that is there keeps its own. Reports come in no order, so each changes pages of its own,
whole ones: with half of SQLite's 4096 a delivery writes a quarter less to the log in the same time."""
SQLITE_CHECKPOINT_PAGES = 2000
"""4 MB of log, as by SQLite's own measure."""
SQLITE_CACHE_KB = 8_000
"""Of each connection, which fills it and keeps it. What it lacks, the system's own cache of the file has."""
CLOSE_S = 2.0
CUT_OFF_S = 0.2
POOL_SIZE = 5
POOL_OVERFLOW = 5

_NOT_OF_THE_SESSION = ("22", "23", "40", "53", "55P03")
"""Classes of data, constraints, deadlocks, a full server; a lock that was waited for as long as was asked: a
new session would be no better, or not be had."""


PlainRows = Sequence[tuple[Any, ...]]
"""Values as the driver takes them."""
Watch = Callable[[str, float, bool], None]
"""Gets the kind of a transaction (read, write, append, long), the seconds it took with all tries, and whether
the database did not take it."""


def _unwatched(_kind: str, _took_s: float, _failed: bool) -> None:
    """Nobody wants to know."""


class Database:
    """One pool of connections to one database. `write` is the only way to change anything."""

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = POOL_SIZE,
        timeout_s: float = TIMEOUT_S,
        long_timeout_s: float = LONG_TIMEOUT_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        sqlite_busy_ms: int = SQLITE_BUSY_MS,
    ) -> None:
        """`sqlite_busy_ms`: how long another process's lock is waited for. Raises AddressError for a URL that
        cannot be used."""
        self._timeout_s, self._long_timeout_s = timeout_s, long_timeout_s
        address = read_database_address(url)
        self.is_sqlite = address.sqlite_path is not None
        self.url = url
        self.sqlite_path = address.sqlite_path
        """None on PostgreSQL."""
        driver = "sqlite+aiosqlite" if self.is_sqlite else "postgresql+asyncpg"
        # No ping before use: it is three round trips, and what a stale connection fails at is done again.
        self.engine: AsyncEngine = create_async_engine(
            sa.URL.create(driver, database=self.sqlite_path),
            pool_size=pool_size,
            max_overflow=POOL_OVERFLOW,
            # Whoever asks seldom finds a session that has its plans, and knows its hundred partitions.
            pool_use_lifo=True,
            pool_timeout=timeout_s,
            # An error would quote them: prompts and answers.
            hide_parameters=True,
        )
        self._distrusted_s = -1.0
        """Connections made until then (monotonic) are not used again."""
        self._open = OpenConnections()
        self._appender: PoolProxiedConnection | None = None
        self._appending = asyncio.Lock()
        self.watch: Watch = _unwatched
        """Told of each transaction."""
        # SQLite takes one writer at a time; queueing is fair, its busy handler is not.
        self._writer = asyncio.Lock()
        self._turns = WriterTurns(self.sqlite_path or ":memory:")
        sa.event.listen(self.engine.sync_engine, "do_connect", self._refuse_when_closed)
        sa.event.listen(self.engine.sync_engine, "checkin", self._open.checked_in)
        if self.is_sqlite:
            connect = sqlite_cursor.connector(self._open.note)
            sa.event.listen(self.engine.sync_engine, "do_connect", connect)
            sa.event.listen(self.engine.sync_engine, "connect", _preparer(sqlite_busy_ms))
            sa.event.listen(self.engine.sync_engine, "begin", _begin_sqlite)
        else:
            from app.store.postgres import PostgresAddress

            postgres = PostgresAddress(address, timeout_s=connect_timeout_s, command_timeout_s=long_timeout_s)
            sa.event.listen(self.engine.sync_engine, "do_connect", _dialler(postgres))
            # Before SQLAlchemy's own, in which it may be cancelled.
            sa.event.listen(self.engine.sync_engine, "connect", self._note_made, insert=True)
            sa.event.listen(self.engine.sync_engine, "checkout", self._refuse_distrusted)

    async def write(
        self, work: Callable[[AsyncConnection], Awaitable[T]], *, long: bool = False, tries: int = WRITE_TRIES
    ) -> T:
        """Run `work` in one write transaction and commit; again from the start after a deadlock, a lost
        connection or a restart. `work` must therefore be repeatable, which conditional updates and unique
        keys make it. `long`: it may take minutes. Raises StoreUnavailable when no try was left, StoreRefused
        when another would not help, and RowsRefused for what the rows themselves are to blame for."""
        tried = self._retry(lambda: self._write_once(work), long=long, tries=tries)
        return await self._watched("long" if long else "write", tried)

    async def _watched(self, kind: str, work: Coroutine[Any, Any, T]) -> T:
        started_s, failed = time.monotonic(), False
        try:
            return await work
        except StoreUnavailable:
            failed = True
            raise
        finally:
            self.watch(kind, time.monotonic() - started_s, failed)

    def connections(self) -> tuple[int, int, int]:
        """Of the pool: in use, idle, and how many there may be."""
        pool: Any = self.engine.pool
        return pool.checkedout(), pool.checkedin(), pool.size() + POOL_OVERFLOW

    async def append(
        self, table: sa.Table, columns: Sequence[str], rows: Callable[[], PlainRows], *, repeats: str
    ) -> set[str]:
        """Insert rows in a transaction of their own, all or none. A row whose id is there already changes
        nothing of it but the column `repeats`, which grows by one and by what the new row has there. Ids of
        the rows that were there already, in canonical text.

        One round trip, no conversion: see `insert_plain`. The first column is the id, and no id stands twice;
        in the order of ids, two processes that insert the same ones wait for each other and no further.
        `rows` is called when they can be written at once, so that what comes while others write goes with
        them; called once, whatever is tried again. Raises as `write` does.
        """
        rows, count = functools.cache(rows), columns.index(repeats)
        if self.is_sqlite:
            insert = _plain_insert(True, table, tuple(columns), " ON CONFLICT (id) DO NOTHING")
            how = Append(table.name, insert, repeats, count)
            return await self.at_once(lambda driver: append_rows(driver, how, rows()), kind="append")
        first = _plain_insert(False, table, tuple(columns), _repeat_of(table, repeats, again=False))
        again = _plain_insert(False, table, tuple(columns), _repeat_of(table, repeats, again=True))
        statements = itertools.chain((first,), itertools.repeat(again))
        return await self.at_once(
            lambda driver: _append_to_postgresql(
                driver, next(statements), rows=rows(), repeats=repeats, count=count
            ),
            kind="append",
        )

    async def at_once(self, work: Callable[[Any], Awaitable[T]], *, kind: str = "write") -> T:
        """Run `work`, one write transaction in one round trip (`fetch_at_once`, `in_one_hop`), by the driver
        alone, which it is given; again after a deadlock, a lost connection or a restart. Raises as `write`
        does."""
        return await self._watched(kind, self._retry(lambda: self._at_once(work)))

    async def _at_once(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """On a connection that is kept for it: SQLAlchemy costs a group of 30 rows as much again."""
        async with self._turn() if self.is_sqlite else self._appending:
            if self._appender is not None and self._is_distrusted(self._appender.info):
                await self._end_appender()
            if self._appender is None:
                self._appender = await self._connect()
            try:
                return await work(self._appender.driver_connection)
            except BaseException:
                # Whatever has become of it (its statement may still run), the next one begins afresh.
                await self._end_appender()
                raise

    async def _end_appender(self) -> None:
        """Closed in order, as far as the server answers: it cancels a statement that still runs."""
        appender, self._appender = self._appender, None
        if appender is None:
            return
        driver: Any = appender.driver_connection
        try:
            if not self.is_sqlite:
                with contextlib.suppress(Exception):
                    await driver.close(timeout=CLOSE_S)
        finally:
            # On SQLite its thread closes it, after the statement that it is at.
            appender.invalidate()

    async def _connect(self) -> PoolProxiedConnection:
        refused = self.engine.dialect.loaded_dbapi.Error
        try:
            return await self.engine.raw_connection()
        except refused as error:
            # No connection is left, or the server is only just starting. Here SQLAlchemy does not make it its
            # own error by itself.
            raise DBAPIError.instance(None, None, error, refused, hide_parameters=True) from error

    def _note_made(self, dbapi_connection: Any, record: ConnectionPoolEntry) -> None:
        record.info["made_s"] = time.monotonic()
        self._open.note(dbapi_connection.driver_connection)

    def _refuse_when_closed(self, *_how: Any) -> None:
        """Whoever still works after the end would open what nobody closes."""
        if self._open.is_ending:
            raise StoreUnavailable("it was closed")

    def _refuse_distrusted(self, dbapi_connection: Any, record: ConnectionPoolEntry, _proxy: Any) -> None:
        if self._is_distrusted(record.info):
            # Not in order: the server behind it may be the one that does not answer.
            dbapi_connection.driver_connection.terminate()
            raise DisconnectionError

    def _is_distrusted(self, info: Mapping[Any, Any]) -> bool:
        return not self.is_sqlite and bool(info["made_s"] <= self._distrusted_s)

    def _distrust(self, error: Exception) -> None:
        """After trouble that the session may be to blame for (a server that was demoted or went silent,
        settings that it began with) nobody uses a connection that was made before. Whoever fails with a new
        one fails for a better reason."""
        if not self.is_sqlite and not (sqlstate_of(error) or "").startswith(_NOT_OF_THE_SESSION):
            self._distrusted_s = time.monotonic()

    def _limit_s(self, long: bool) -> float | None:
        """SQLite's waits are bounded by its own means, and its driver cannot be interrupted."""
        if self.is_sqlite:
            return None
        return self._long_timeout_s if long else self._timeout_s

    async def _retry(
        self, work: Callable[[], Awaitable[T]], *, long: bool = False, tries: int = WRITE_TRIES
    ) -> T:
        limit_s, started_s = self._limit_s(long), time.monotonic()
        for attempt in range(tries):
            try:
                async with asyncio.timeout(limit_s):
                    return await work()
            except Exception as error:
                fault = fault_of(error)
                if fault is None:
                    raise
                self._distrust(error)
                late = limit_s is not None and time.monotonic() - started_s > TRIES_WITHIN * limit_s
                if fault is not Fault.PASSING or late or attempt + 1 == tries:
                    raise translate_driver_error(error, fault) from error
                await asyncio.sleep(0.05 * 2**attempt * (0.5 + random.random()))  # noqa: S311
        raise AssertionError("unreachable")

    async def _write_once(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        if not self.is_sqlite:
            async with self.engine.begin() as connection:
                return await work(connection)
        async with self._turn(), self.engine.connect() as connection:
            await connection.execution_options(tallyhook_write=True)
            async with connection.begin():
                return await work(connection)

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """At writing to SQLite: among ourselves, then among processes."""
        async with self._writer:
            self._refuse_when_closed()
            async with self._turns:
                yield

    async def read(self, work: Callable[[AsyncConnection], Awaitable[T]], *, long: bool = False) -> T:
        """Run `work` in one read transaction: what it sees is one snapshot on SQLite. A connection that
        went stale in the pool is replaced once; otherwise trouble is raised at once. `long`: it may take
        minutes. Raises as `write` does."""
        return await self._watched("long" if long else "read", self._read(work, long=long))

    async def _read(self, work: Callable[[AsyncConnection], Awaitable[T]], *, long: bool) -> T:
        try:
            async with asyncio.timeout(self._limit_s(long)):
                try:
                    return await self._read_once(work)
                except DBAPIError as error:
                    if not error.connection_invalidated:
                        raise
                    return await self._read_once(work)
        except Exception as error:
            fault = fault_of(error)
            if fault is None:
                raise
            self._distrust(error)
            raise translate_driver_error(error, fault) from error

    async def _read_once(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async with self.engine.connect() as connection:
            try:
                return await work(connection)
            finally:
                # Here, where it can be cut short; at the end of the block it could not.
                await connection.rollback()

    async def close(self) -> None:
        """Give every connection back, in order where the server answers, and soon in any case. Whoever uses
        one has a moment to finish; nobody gets a new one."""
        self._open.is_ending = True
        try:
            async with asyncio.timeout(CLOSE_S), self._writer if self.is_sqlite else self._appending:
                await self._end_appender()
                await self.engine.dispose()
                await self._open.all_closed()
        except TimeoutError:
            self._open.cut_off()
            await self.engine.dispose()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CUT_OFF_S):
                    await self._open.all_closed()
        self._turns.close()

    def shape(self, name: str, types: Types) -> Batch:
        """The columns of rows that a statement changes or looks up many at a time."""
        return Batch(self.engine.dialect, name, types)

    def batch(self, name: str, types: Types, rows: Rows) -> Any:
        """`rows` as a table-valued expression `name`, for a statement that is used once."""
        return self.shape(name, types).filled(rows)

    async def insert(
        self,
        connection: AsyncConnection,
        table: sa.Table,
        rows: Rows,
        *,
        ignore: bool = False,
        known: str | None = None,
    ) -> None:
        """Insert many rows by one statement. With `ignore`, rows that a unique key refuses are left out; with
        `known`, only those whose column of that name is there already: a repeated write finds its own."""
        if not rows:
            return
        if self.is_sqlite:
            await connection.execute(
                _or_not(sqlite.insert(table), ignore, known), [dict(row) for row in rows]
            )
            return
        from sqlalchemy.dialects import postgresql

        keys = list(rows[0])
        source = self.batch("v", {key: table.c[key].type for key in keys}, rows)
        insert = postgresql.insert(table).from_select(keys, sa.select(*(source.c[key] for key in keys)))
        await connection.execute(_or_not(insert, ignore, known))

    async def insert_plain(
        self,
        connection: AsyncConnection,
        table: sa.Table,
        columns: Sequence[str],
        rows: Sequence[tuple[Any, ...]],
        *,
        ignore: bool = False,
    ) -> int:
        """Insert rows whose values are as the driver takes them: ids by `driver_id`, credits in millionths.
        For the tables that every delivery is written to, where converting each value shows. With `ignore`,
        rows that a unique key refuses are left out. How many were inserted."""
        if not rows:
            return 0
        conflict = " ON CONFLICT DO NOTHING" if ignore else ""
        statement = _plain_insert(self.is_sqlite, table, tuple(columns), conflict)
        if self.is_sqlite:
            return (await connection.exec_driver_sql(statement, list(rows))).rowcount
        # Not executemany: it travels as one message too, but runs as a statement for each row.
        return (await connection.exec_driver_sql(statement, arrays(rows))).rowcount

    def driver_id(self, text: str) -> str:
        """An id as the driver takes it: 32 digits on SQLite, which has no type for it."""
        return text.replace("-", "") if self.is_sqlite else text


def arrays(rows: Sequence[tuple[Any, ...]]) -> tuple[list[Any] | None, ...]:
    """A list for each column, but for those of which no row says anything: unnest pads what is shorter than
    others, and the driver takes half a microsecond for each value that it encodes."""
    columns = map(list, zip(*rows, strict=True))
    return tuple(None if column.count(None) == len(column) else column for column in columns)


@contextlib.contextmanager
def _as_sqlalchemy(statement: str, driver: Any) -> Iterator[None]:
    """Errors of the driver's become SQLAlchemy's, any others stay as they are."""
    try:
        yield
    except (OSError, TimeoutError):
        raise
    except Exception as error:
        closed = driver.is_closed()
        raise DBAPIError(
            statement, None, error, hide_parameters=True, connection_invalidated=closed
        ) from error


async def fetch_at_once(driver: Any, statement: str, arguments: Sequence[Any]) -> list[Any]:
    """Rows of one statement on PostgreSQL, which is a transaction of its own."""
    with _as_sqlalchemy(statement, driver):
        rows: list[Any] = await driver.fetch(statement, *arguments)
    return rows


async def _append_to_postgresql(
    driver: Any, statement: str, *, rows: PlainRows, repeats: str, count: int
) -> set[str]:
    """`count`: which column `repeats` is."""
    if not rows:
        return set()
    # A row that was there already has counted more repeats than we sent. Not by xmax, which a partitioned
    # table does not return.
    insert = f"WITH put AS ({statement} RETURNING id, {repeats}) SELECT * FROM put WHERE {repeats} > 0"  # noqa: S608
    known = await fetch_at_once(driver, insert, arrays(rows))
    if not known:
        return set()
    sent = {UUID(row[0]): row[count] for row in rows}
    return {str(row[0]) for row in known if row[1] > sent[row[0]]}


@functools.cache
def _repeat_of(table: sa.Table, repeats: str, *, again: bool) -> str:
    """What becomes of a row whose id is there already."""
    clause = f" ON CONFLICT (id) DO UPDATE SET {repeats} = {table.name}.{repeats} + excluded.{repeats} + 1"
    # After a commit whose answer was lost, a second try meets its own rows, which are no repeats.
    own = f" WHERE {table.name}.received_at_ms <> excluded.received_at_ms"
    return clause + own if again else clause


@functools.cache
def _plain_insert(is_sqlite: bool, table: sa.Table, columns: tuple[str, ...], conflict: str = "") -> str:
    names = ", ".join(columns)
    if is_sqlite:
        marks = ", ".join("?" * len(columns))
        return f"INSERT INTO {table.name} ({names}) VALUES ({marks}){conflict}"  # noqa: S608
    from sqlalchemy.dialects import postgresql

    dialect: sa.Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    kinds = (table.c[name].type.compile(dialect) for name in columns)
    arrays = ", ".join(f"${n}::{kind}[]" for n, kind in enumerate(kinds, 1))
    return f"INSERT INTO {table.name} ({names}) SELECT * FROM unnest({arrays}){conflict}"  # noqa: S608


def _or_not(insert: Any, ignore: bool, known: str | None) -> Any:
    if known is not None:
        return insert.on_conflict_do_nothing(index_elements=[known])
    return insert.on_conflict_do_nothing() if ignore else insert


def _dialler(address: "PostgresAddress") -> Callable[..., Any]:
    """What SQLAlchemy calls for a connection: ours in place of its own."""

    def dial(dialect: Any, _record: Any, _args: Any, _arguments: Any) -> Any:
        connection, kept, failure = None, 0, None
        try:
            connection, kept = await_only(address.connect())
        except Exception as error:
            failure = error

        async def made() -> Any:
            # Raised here, where SQLAlchemy makes the driver's errors its own.
            if failure is not None:
                raise failure
            return connection

        return dialect.loaded_dbapi.connect(async_creator_fn=made, prepared_statement_cache_size=kept)

    return dial


def _preparer(busy_ms: int) -> Callable[[Any, Any], None]:
    """What SQLAlchemy calls with each new connection to SQLite."""

    def prepare(dbapi_connection: Any, _record: Any) -> None:
        # The driver's own transaction control would begin late and deferred; ours is in _begin_sqlite.
        dbapi_connection.isolation_level = None
        cursor = dbapi_connection.cursor()
        # FULL: a commit survives a power loss too; a 2xx must never outlive its row.
        for pragma in (
            f"busy_timeout={busy_ms}",
            f"page_size={SQLITE_PAGE_BYTES}",
            f"wal_autocheckpoint={SQLITE_CHECKPOINT_PAGES}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "temp_store=MEMORY",
            f"cache_size=-{SQLITE_CACHE_KB}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return prepare


def _begin_sqlite(connection: sa.Connection) -> None:
    # IMMEDIATE takes the write lock at once: a transaction that reads first and is then refused the lock
    # cannot be saved by waiting.
    write = connection.get_execution_options().get("tallyhook_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
