"""Connections to the Redis of REDIS_URL: one way for all who need some."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from redis.asyncio import BlockingConnectionPool, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelManagedConnection, SentinelManagedSSLConnection
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError, RedisError

from app.address import RedisAddress, read_redis_address

HEALTH_CHECK_S = 30
AGE_MAX_S = 60.0
"""An older connection is made anew: one to a server that was replaced, and takes what is written to it all
the same, shows no other sign. At 20 connections this is one in three seconds."""


Watch = Callable[[float, bool], None]
"""Gets the seconds that a command or pipeline took, its connection included, and whether it failed."""


T = TypeVar("T")


async def _heard(work: Awaitable[T]) -> T:
    """What it returns, unless this task was cancelled meanwhile. redis-py writes within `asyncio.wait_for`,
    which before Python 3.12 forgets a cancellation that comes as the write ends: what was to end goes on."""
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    result = await work
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError
    return result


class _Hearing(AbstractConnection):
    """A connection that loses no cancellation."""

    async def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
        try:
            await _heard(super().send_packed_command(*args, **kwargs))
        except asyncio.CancelledError:
            # The answer that nobody reads would be taken for the next command's.
            await self.disconnect(nowait=True)
            raise


class _Tcp(_Hearing, Connection):
    pass


class _Tls(_Hearing, SSLConnection):
    pass


class _Socket(_Hearing, UnixDomainSocketConnection):
    pass


class _Master(_Hearing, SentinelManagedConnection):
    pass


class _MasterTls(_Hearing, SentinelManagedSSLConnection):
    pass


class MasterAddress:
    """Whom a connection asks where the master is, each time it connects: so it follows a fail-over."""

    is_master = True
    check_connection = False

    def __init__(self, address: RedisAddress, timeout_s: float) -> None:
        timeouts = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
        self._sentinel = Sentinel(
            address.sentinels, sentinel_kwargs={**timeouts, **address.sentinel_arguments}
        )  # type: ignore[no-untyped-call]
        self._name = address.master

    async def get_master_address(self) -> Any:
        """(host, port), as most of the sentinels that answer see it."""
        return await _heard(self._sentinel.discover_master(self._name))

    async def close(self) -> None:
        for client in self._sentinel.sentinels:
            await client.aclose(close_connection_pool=True)


class RedisPool(BlockingConnectionPool):
    """A pool with a timeout on every command, which waits when all its connections are in use. Connects at
    first use. Raises AddressError for a URL that cannot be used."""

    def __init__(
        self, redis_url: str, *, timeout_s: float, connections_max: int, watch: Watch | None = None
    ) -> None:
        """`watch` is told of each command or pipeline."""
        self._watch = watch
        self._began_s: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
        address = read_redis_address(redis_url)
        self._master = MasterAddress(address, timeout_s) if address.sentinels else None
        arguments: dict[str, Any] = {
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            "health_check_interval": HEALTH_CHECK_S,
            **_reconnecting(),
            **address.arguments,
        }
        if self._master is not None:
            arguments["connection_pool"] = self._master
        if not address.is_socket:
            arguments["socket_keepalive"] = True
        super().__init__(connection_class=_kind(address), max_connections=connections_max, **arguments)
        self._since_s: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
        self.timeout = timeout_s  # type: ignore[assignment]  # it takes parts of a second as well

    async def ensure_connection(self, connection: Any) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._since_s.get(connection, now_s) >= AGE_MAX_S:
            await connection.disconnect()
        if not connection.is_connected:
            self._since_s[connection] = now_s
        await super().ensure_connection(connection)

    async def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        if self._watch is None:
            return await super().get_connection(*args, **kwargs)
        began_s = time.monotonic()
        try:
            connection = await super().get_connection(*args, **kwargs)
        except (RedisError, OSError, TimeoutError):
            self._watch(time.monotonic() - began_s, True)
            raise
        self._began_s[connection] = began_s
        return connection

    async def release(self, connection: Any) -> None:
        if self._watch is not None and (began_s := self._began_s.pop(connection, None)) is not None:
            # After trouble a connection is closed before it comes back.
            self._watch(time.monotonic() - began_s, not connection.is_connected)
        await super().release(connection)

    def connections(self) -> tuple[int, int, int]:
        """In use, idle, and how many there may be."""
        return len(self._in_use_connections), len(self._available_connections), self.max_connections

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        if self._master is not None:
            await self._master.close()


def _reconnecting() -> dict[str, Any]:
    """A connection to a server that was demoted is made anew, to whatever the address names by now, and the
    command tried once more. After any other trouble there is one try."""
    return {
        "retry": Retry(NoBackoff(), 1, supported_errors=(ReadOnlyError,)),
        "retry_on_error": [ReadOnlyError],
    }


def _kind(address: RedisAddress) -> type[_Hearing]:
    if address.is_socket:
        return _Socket
    if address.sentinels:
        return _MasterTls if address.tls else _Master
    return _Tls if address.tls else _Tcp
