"""Opens connections to PostgreSQL as DATABASE_URL says: by the driver, which reads what libpq reads, and not
by SQLAlchemy's own reading of URLs, which does not.

Behind a pooler that gives a connection another server for each transaction (PgBouncer, Supavisor, RDS Proxy)
no statement may be prepared under a name: the next transaction would find it nowhere, or another process's
under it. Then every statement is unnamed and read anew. Everything else that we do there is safe by itself:
locks are of rows or of a transaction, nothing is LISTENed to, nothing is SET for longer than a transaction.
"""

import socket
import ssl
from typing import Any

import asyncpg  # type: ignore[import-untyped]

from app.address import DatabaseAddress

KEEPALIVE_S = 30
"""A silent peer is asked after this, and thrice more within as long again; what was sent and is not
acknowledged for as long ends the connection too."""
STATEMENTS_KEPT = 100
"""Prepared statements of a connection: more than we have."""


class PooledConnection(asyncpg.Connection):  # type: ignore[misc]
    """A connection that never names a statement."""

    def _get_unique_id(self, prefix: str) -> str:
        # The driver has no setting for it: COPY prepares under a name whatever its cache is.
        return "" if prefix == "stmt" else str(super()._get_unique_id(prefix))


class PostgresAddress:
    """One address; learns by its first connection whether a pooler answers there."""

    def __init__(self, address: DatabaseAddress, *, timeout_s: float, command_timeout_s: float) -> None:
        """What the URL itself says of `timeout_s`, to connect, goes before. `command_timeout_s` is the last
        resort: for what is tidied up after a transaction."""
        limits = {"timeout": timeout_s, "command_timeout": command_timeout_s}
        self._arguments = limits | dict(address.arguments)
        self._system_ca = address.system_ca
        self._prepared = address.prepared_statements

    async def connect(self) -> tuple[asyncpg.Connection, int]:
        """(a connection, how many prepared statements may be kept for it)."""
        if self._prepared is None:
            connection = await self._open()
            try:
                is_pooled = await _is_pooled(connection)
            except BaseException:
                connection.terminate()
                raise
            if not is_pooled:
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
            connection = await asyncpg.connect(**arguments)
        except asyncpg.InterfaceError:
            raise
        except (ValueError, asyncpg.DataError) as error:
            # Of PGPORT and the like, which stand in for what the URL leaves out; or the server's about an
            # option, in the class of errors that elsewhere are the fault of rows.
            raise asyncpg.ClientConfigurationError(str(error)) from error
        _keep_alive(connection)
        return connection


def _keep_alive(connection: asyncpg.Connection) -> None:
    """Let the kernel notice a peer that is gone; the driver has no setting for it."""
    end = connection._transport.get_extra_info("socket")
    if end is None or end.family not in (socket.AF_INET, socket.AF_INET6):
        return
    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_S // 3),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", KEEPALIVE_S * 1000),
    ):
        if (option := getattr(socket, name, None)) is not None:
            end.setsockopt(socket.IPPROTO_TCP, option, value)


async def _is_pooled(connection: asyncpg.Connection) -> bool:
    """Whether the process that serves us is another than the one reported at login. Asked by the
    simple protocol, in which nothing is prepared; the driver gives no rows then, but their number."""
    pid = connection.get_server_pid()
    return bool(await connection.execute(f"SELECT 1 WHERE pg_backend_pid() = {pid:d}") == "SELECT 0")
