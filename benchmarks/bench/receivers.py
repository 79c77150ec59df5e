"""The receivers that ours is compared with: `python -m benchmarks.bench.receivers MODE --port N`.

All are the same aiohttp handler: read the body, verify the signature, answer 200. `verify` does no more,
`insert` also commits one INSERT for each request, `queue` also enqueues one arq job that carries the body.
Server settings, event loop and verification are those of our own receiver.
"""

import argparse
import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

import aiosqlite
import arq
import asyncpg  # type: ignore[import-untyped]
from aiohttp import web
from arq.connections import RedisSettings

from app.config import EMULATOR_WEBHOOK_SECRET
from app.domain.task import new_id
from app.provider.signature import Verified, verify
from app.web.server import handler_args, run

WINDOW_S = 300
POOL_SIZE = 10
"""What our own engine may open."""
Keep = Callable[[bytes, str, str, str], Awaitable[None]]
"""(body, webhook id, timestamp, signature): makes a delivery durable in its own way."""

COLUMNS = (
    "id",
    "source",
    "received_at_ms",
    "webhook_id",
    "signed_at",
    "signature",
    "account",
    "encoding",
    "body",
    "state",
    "tries",
    "due_at_ms",
)
INSERT = f"INSERT INTO deliveries ({', '.join(COLUMNS)}) VALUES ({', '.join(f'?{n + 1}' for n in range(12))})"


async def keep_nothing(body: bytes, webhook_id: str, timestamp: str, signature: str) -> None:
    """The limit: nothing is durable."""


@asynccontextmanager
async def insert_postgresql(url: str) -> AsyncIterator[Keep]:
    """One INSERT, committed by itself, on one of POOL_SIZE connections."""
    pool = asyncpg.create_pool(url, min_size=POOL_SIZE, max_size=POOL_SIZE)
    statement = INSERT.replace("?", "$")

    async def keep(body: bytes, webhook_id: str, timestamp: str, signature: str) -> None:
        await pool.execute(statement, *_row(body, webhook_id, timestamp, signature))

    async with pool:
        yield keep


@asynccontextmanager
async def insert_sqlite(url: str) -> AsyncIterator[Keep]:
    """One INSERT and commit; SQLite has one writer, so requests take turns on one connection."""
    connection = await aiosqlite.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
        await connection.execute(f"PRAGMA {pragma}")

    async def keep(body: bytes, webhook_id: str, timestamp: str, signature: str) -> None:
        row = _row(body, webhook_id, timestamp, signature)
        # Each statement commits by itself, as without a transaction it does.
        await connection.execute_insert(INSERT, (row[0].replace("-", ""), *row[1:]))

    yield keep
    await connection.close()


@asynccontextmanager
async def enqueue(redis_url: str) -> AsyncIterator[Keep]:
    """One arq job for each request, with the body in it; arq's own pool and serializer."""
    pool = await arq.create_pool(RedisSettings.from_dsn(redis_url))

    async def keep(body: bytes, webhook_id: str, timestamp: str, signature: str) -> None:
        await pool.enqueue_job("settle", body, webhook_id, timestamp, signature)

    yield keep
    await pool.aclose(close_connection_pool=True)


def _row(body: bytes, webhook_id: str, timestamp: str, signature: str) -> tuple[Any, ...]:
    now_ms = time.time_ns() // 1_000_000
    return (
        new_id(now_ms),
        "delivery",
        now_ms,
        webhook_id,
        timestamp,
        signature,
        "default",
        "identity",
        body,
        "new",
        0,
        now_ms + 10_000,
    )


def handler(keep: Keep) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Read, verify, keep, answer."""
    secrets = (EMULATOR_WEBHOOK_SECRET,)

    async def post(request: web.Request) -> web.Response:
        body = await request.read()
        headers = request.headers
        timestamp, signature = headers.get("X-Cloro-Timestamp"), headers.get("X-Cloro-Signature")
        outcome = verify(secrets, timestamp, signature, body, int(time.time()), WINDOW_S)
        if not isinstance(outcome, Verified) or timestamp is None or signature is None:
            return web.Response(status=401)
        await keep(body, headers.get("X-Cloro-Webhook-Id", ""), timestamp, signature)
        return web.Response(body=b'{"received": true}', content_type="application/json")

    return post


async def health(request: web.Request) -> web.Response:
    """It listens."""
    return web.Response(body=b"{}")


async def serve(mode: str, port: int) -> None:
    """Serve until ended."""
    async with keeping(mode, os.environ["DATABASE_URL"], os.environ["REDIS_URL"]) as keep:
        await _serve(keep, port)


def keeping(mode: str, url: str, redis_url: str) -> AbstractAsyncContextManager[Keep]:
    """What a mode does with each delivery."""
    if mode == "insert":
        return insert_sqlite(url) if url.startswith("sqlite") else insert_postgresql(url)
    return enqueue(redis_url) if mode == "queue" else nullcontext(keep_nothing)


async def _serve(keep: Keep, port: int) -> None:
    app = web.Application(client_max_size=16 * 1024 * 1024, handler_args=handler_args())
    app.add_routes([web.post("/webhooks/cloro", handler(keep)), web.get("/healthz", health)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


def main() -> None:
    """Parse and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=("verify", "insert", "queue"))
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    run(serve(options.mode, options.port))


if __name__ == "__main__":
    main()
