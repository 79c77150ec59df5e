"""The one place of wiring: settings in, parts out. Only entry points import it. What not every command
needs is imported with the part: the provider's client, Redis and object storage take longer than most
commands do.
"""

import random
from typing import TYPE_CHECKING

from app.address import read_objects_address
from app.config import DEFAULT_ACCOUNT, Account, Settings
from app.database_clock import DatabaseClock
from app.provider.wire import read_answer
from app.store import Database, Store
from app.store.database import SQLITE_BUSY_MS

if TYPE_CHECKING:
    from app.archive import Archive
    from app.provider.client import Client
    from app.provider.client import Watch as WatchRequests
    from app.provider.ratelimit.pacing import Pacer
    from app.provider.ratelimit.shared import SharedPacer
    from app.provider.sync import SyncClient
    from app.queue import Queue
    from app.redis_pool import Watch

CLOCK = DatabaseClock()
"""Of this process: it tells the machine's time until a database was asked for its own."""


def now_ms() -> int:
    """UTC milliseconds since 1970: the clock of every process."""
    return CLOCK()


def jitter() -> float:
    """A number in [0, 1)."""
    return random.random()  # noqa: S311 - spreads retries, keeps no secret


async def open_store(
    settings: Settings, *, migrated: bool = True, sqlite_busy_ms: int = SQLITE_BUSY_MS
) -> Store:
    """The store. The embedded SQLite file is brought to the newest schema; a database of the user's own is
    left to `tallyhook migrate`."""
    db = Database(
        settings.store_url,
        timeout_s=settings.database_timeout_s,
        long_timeout_s=settings.database_long_timeout_s,
        connect_timeout_s=settings.database_connect_timeout_s,
        sqlite_busy_ms=sqlite_busy_ms,
    )
    if migrated and not settings.database_url:
        from app.store.migrate import migrate

        try:
            await migrate(db)
        except BaseException:
            await db.close()
            raise
    return Store(db, read_answer, open_archive(settings))


def reads_settings(settings: Settings) -> Settings:
    """For what only reads and may be a moment behind: on the replica, where there is one."""
    if not (settings.database_url and settings.database_read_url):
        return settings
    return settings.model_copy(update={"database_url": settings.database_read_url})


def open_archive(settings: Settings) -> "Archive | None":
    """None: none is set."""
    if not settings.archive_url:
        return None
    from app.archive import Archive
    from app.objects import open_objects

    address = read_objects_address(settings.archive_url)
    return Archive(address.display, lambda: open_objects(address, ca_file=settings.ca_file))


def open_provider(
    settings: Settings,
    account: str = DEFAULT_ACCOUNT,
    *,
    redis_url: str | None = None,
    watch: "WatchRequests | None" = None,
    watch_redis: "Watch | None" = None,
) -> "Client":
    """An account's client; enter it as a context manager. With a Redis, all processes keep the provider's
    limit together; without one, this process believes itself alone. `watch` is told of each request."""
    from app.provider.client import Client
    from app.provider.egress import egress_to

    chosen = settings.all_accounts()[account]
    return Client(
        base_url=chosen.base_url,
        api_key=chosen.api_key,
        webhook_url=chosen.webhook_url,
        pacer=_rate_limiter(settings, chosen, redis_url, watch_redis),
        timeout_s=settings.request_timeout_s,
        connections=settings.submit_in_flight,
        egress=egress_to(settings.outbound, chosen.base_url),
        watch=watch,
    )


def open_sync(
    settings: Settings, account: str, *, timeout_s: float, redis_url: str | None = None
) -> "SyncClient":
    """An account's sync side; close it at the end."""
    from app.provider.egress import egress_to
    from app.provider.sync import SyncClient

    chosen = settings.all_accounts()[account]
    return SyncClient(
        base_url=chosen.base_url,
        api_key=chosen.api_key,
        pacer=_rate_limiter(settings, chosen, redis_url),
        timeout_s=timeout_s,
        egress=egress_to(settings.outbound, chosen.base_url),
    )


def _rate_limiter(
    settings: Settings, account: Account, redis_url: str | None, watch: "Watch | None" = None
) -> "Pacer | SharedPacer":
    from app.provider.ratelimit.pacing import Pacer

    if redis_url is None:
        return Pacer(account.rate_per_s, per_hour=account.rate_per_hour)
    from redis.asyncio import Redis

    from app.provider.ratelimit.shared import SharedPacer
    from app.queue import CONNECTIONS_MAX
    from app.redis_pool import RedisPool

    pool = RedisPool(
        redis_url, timeout_s=settings.redis_timeout_s, connections_max=CONNECTIONS_MAX, watch=watch
    )
    return SharedPacer(
        Redis.from_pool(pool), account.name, account.rate_per_s, per_hour=account.rate_per_hour
    )


def open_queue(redis_url: str, settings: Settings, *, watch: "Watch | None" = None) -> "Queue":
    """The enqueue side of arq."""
    from app.queue import Queue

    return Queue(redis_url, timeout_s=settings.redis_timeout_s, watch=watch)
