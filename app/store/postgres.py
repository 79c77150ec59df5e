"""Opens connections to PostgreSQL as DATABASE_URL says: by the driver, which reads what libpq reads, and not
by SQLAlchemy's own reading of URLs, which does not.

Behind a pooler that gives a connection another server for each transaction (PgBouncer, Supavisor, RDS Proxy)
no statement may be prepared under a name: the next transaction would find it nowhere, or another process's
under it. Then every statement is unnamed and read anew. Everything else that we do there is safe by itself:
locks are of rows or of a transaction, nothing is LISTENed to, nothing is SET for longer than a transaction.
"""

import ssl
from typing import Any

import asyncpg  # type: ignore[import-untyped]

from app.address import DatabaseAddress

STATEMENTS_KEPT = 100
"""Prepared statements of a connection: more than we have."""


class PooledConnection(asyncpg.Connection):  # type: ignore[misc]
    """A connection that never names a statement."""

    def _get_unique_id(self, prefix: str) -> str:
        # The driver has no setting for it: COPY prepares under a name whatever its cache is.
        return "" if prefix == "stmt" else str(super()._get_unique_id(prefix))


class PostgresAddress:
    """One address; learns by its first connection whether a pooler answers there."""

    def __init__(self, address: DatabaseAddress) -> None:
        self._arguments = dict(address.arguments)
        self._system_ca = address.system_ca
        self._prepared = address.prepared_statements

    async def connect(self) -> tuple[asyncpg.Connection, int]:
        """(a connection, how many prepared statements may be kept for it)."""
        if self._prepared is None:
            connection = await self._open()
            if not await _is_pooled(connection):
                self._prepared = True
                return connection, STATEMENTS_KEPT
            self._prepared = False
            await connection.close()
        if self._prepared:
            return await self._open(), STATEMENTS_KEPT
        # Without a cache the driver also reads each statement again in the message that runs it.
        return await self._open(connection_class=PooledConnection, statement_cache_size=0), 0

    async def _open(self, **how: Any) -> asyncpg.Connection:
        arguments = self._arguments | how
        if self._system_ca:
            arguments["ssl"] = ssl.create_default_context()
        try:
            return await asyncpg.connect(**arguments)
        except ValueError as error:
            if isinstance(error, asyncpg.InterfaceError):
                raise
            # Of PGPORT and the like, which stand in for what the URL leaves out.
            raise asyncpg.ClientConfigurationError(str(error)) from error


async def _is_pooled(connection: asyncpg.Connection) -> bool:
    """Whether the process that serves us is another than the one that we were told of at login. Asked by the
    simple protocol, in which nothing is prepared; the driver gives no rows then, but their number."""
    told = connection.get_server_pid()
    return bool(await connection.execute(f"SELECT 1 WHERE pg_backend_pid() = {told:d}") == "SELECT 0")
