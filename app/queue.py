"""The enqueue side of arq: a thin pipe that carries ids, never the only copy of anything.

The pool is ours, because arq sets no socket timeout (A12), and jobs are JSON, because its pickle would let
whoever can write to Redis run code in the workers (A18).
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from arq.connections import ArqRedis
from redis.exceptions import RedisError

from app.logger import get_logger
from app.redis_pool import RedisPool, Watch

QUEUE_NAME = "tallyhook"
SETTLE_JOB = "settle"
SUBMIT_JOB = "submit"
PAYLOAD_VERSION = 1
CONNECTIONS_MAX = 20
"""A blocking pool waits at this many instead of failing (A31)."""
ENQUEUE_TRIES = 2
"""arq says "it is there already", which none of ours is, when its connection was made anew in between."""
JOB_EXPIRES_MS = 3_600_000
"""An unread job is dropped after an hour: by then the sweep has long done its work."""

log = get_logger(__name__)

_TROUBLE = (RedisError, OSError, TimeoutError)


def serialize(job: dict[str, Any]) -> bytes:
    """A job as JSON; what JSON has no form for (an exception in a result) as its text."""
    return msgspec.json.encode(job, enc_hook=repr)


def open_pool(redis_url: str, *, timeout_s: float, watch: Watch | None = None) -> ArqRedis:
    """A pool with a timeout on every command. Connects at first use."""
    return ArqRedis(
        RedisPool(redis_url, timeout_s=timeout_s, connections_max=CONNECTIONS_MAX, watch=watch),
        job_serializer=serialize,
        job_deserializer=msgspec.json.decode,
        default_queue_name=QUEUE_NAME,
        expires_extra_ms=JOB_EXPIRES_MS,
    )


class Queue:
    """Wakes the workers. False when Redis did not take the job, never an exception."""

    def __init__(self, redis_url: str, *, timeout_s: float, watch: Watch | None = None) -> None:
        self._timeout_s = timeout_s
        self.trouble = ""
        """Why Redis did not take the last job, in its own words; a command says it itself, others log it."""
        self.is_logged = True
        self.pool = open_pool(redis_url, timeout_s=timeout_s, watch=watch)

    async def wake_settle(self, delivery_ids: Sequence[str]) -> bool:
        """One settle job for these deliveries."""
        return await self._enqueue(SETTLE_JOB, {"v": PAYLOAD_VERSION, "ids": list(delivery_ids)})

    async def wake_submit(self, defer_ms: int = 0) -> bool:
        """One submit job, now or after `defer_ms`; it claims what is due when it runs."""
        return await self._enqueue(SUBMIT_JOB, {"v": PAYLOAD_VERSION}, defer_ms)

    async def ping(self) -> bool:
        """Whether Redis answers in time."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return bool(await self.pool.ping())
        except _TROUBLE:
            return False

    async def _enqueue(self, name: str, payload: dict[str, Any], defer_ms: int = 0) -> bool:
        # No job id of ours: a fixed one is refused while an old result or body lives (A4, A5).
        try:
            async with asyncio.timeout(2 * self._timeout_s):
                for _ in range(ENQUEUE_TRIES):
                    job = await self.pool.enqueue_job(name, payload, _defer_by=defer_ms / 1000 or None)
                    if job is not None:
                        return True
        except _TROUBLE as error:
            self.trouble = str(error) or "no answer in time"
            if self.is_logged:
                log.warning("wake_failed", job=name, error=type(error).__name__)
        return False

    def connections(self) -> tuple[int, int, int]:
        """Of its pool: in use, idle, and how many there may be."""
        pool: Any = self.pool.connection_pool
        found: tuple[int, int, int] = pool.connections()
        return found

    async def close(self) -> None:
        """Close every connection."""
        await self.pool.aclose(close_connection_pool=True)
