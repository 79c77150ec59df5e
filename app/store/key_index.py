"""A second unique index of tasks, on the idempotency key, and how it is done away with.

A key is made of the task's id and its attempt, so the primary key keeps it unique, and nothing is looked up
by it; `verify` compares each with its parts. On PostgreSQL its entry was written again by every change of a
task's state. SQLite drops no constraint without copying the table, and writes an entry only when it changes.
"""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.database import Database

NAME = "uq_tasks_idempotency_key"
LOCK_WAIT = "2s"
"""Whoever writes tasks waits behind this; then it gives way to a long read, and is tried again."""


async def has_key_index(db: Database) -> bool:
    """Whether there is something to do."""

    async def read(connection: AsyncConnection) -> bool:
        return bool(await connection.scalar(sa.select(sa.func.to_regclass(NAME).is_not(None))))

    return not db.is_sqlite and await db.read(read)


async def drop_key_index(db: Database) -> None:
    """Drop it; a moment's work. Raises as `Database.write` does."""

    async def write(connection: AsyncConnection) -> None:
        await connection.execute(sa.text(f"SET LOCAL lock_timeout = '{LOCK_WAIT}'"))
        await connection.execute(sa.text(f"ALTER TABLE tasks DROP CONSTRAINT IF EXISTS {NAME}"))

    await db.write(write)
