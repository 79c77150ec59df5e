"""Two indexes of tasks as hashes, which take fewer bytes: the one that keeps idempotency keys apart, and the
one by which equal prompts are found. A third, of what is pending, goes.

On PostgreSQL an entry of each index is written again by every change of a task's state, so their width
counts. A hash index cannot be UNIQUE; an EXCLUDE constraint on one refuses the same rows. SQLite, which has
no such index and writes an entry only when it changes, keeps its own for the keys.
"""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.database import Database

UNIQUE = "uq_tasks_idempotency_key"
EXCLUDED = "ex_tasks_idempotency_key"
FINGERPRINT = "ix_tasks_fingerprint"
PENDING = "ix_tasks_pending"
"""Of versions before, which claim by it. On PostgreSQL the index of what is open holds what is pending as
well; SQLite finds a partial index only by its own words."""
LOCK_WAIT = "2s"
"""Whoever writes tasks waits behind this; then it gives way to a long read, and is tried again."""
_POSTGRESQL = (
    f"ALTER TABLE tasks ADD CONSTRAINT {EXCLUDED} EXCLUDE USING hash (idempotency_key WITH =)",
    f"ALTER TABLE tasks DROP CONSTRAINT {UNIQUE}",
    f"DROP INDEX IF EXISTS {PENDING}",
    f"DROP INDEX {FINGERPRINT}",
    f"CREATE INDEX {FINGERPRINT} ON tasks USING hash (fingerprint)",
)
_SQLITE = (f"DROP INDEX {FINGERPRINT}", f"CREATE INDEX {FINGERPRINT} ON tasks (fingerprint)")


async def has_wide_indexes(db: Database) -> bool:
    """Whether there is something to do."""
    return await db.read(lambda connection: _is_due(db, connection))


async def narrow_indexes(db: Database) -> None:
    """Replace them; some seconds for each million tasks, which nobody writes meanwhile. Raises as
    `Database.write` does."""

    async def write(connection: AsyncConnection) -> None:
        if not db.is_sqlite:
            await connection.execute(sa.text(f"SET LOCAL lock_timeout = '{LOCK_WAIT}'"))
            await connection.execute(sa.text("LOCK TABLE tasks IN ACCESS EXCLUSIVE MODE"))
        if await _is_due(db, connection):
            for statement in _SQLITE if db.is_sqlite else _POSTGRESQL:
                await connection.execute(sa.text(statement))

    await db.write(write, long=True)


async def _is_due(db: Database, connection: AsyncConnection) -> bool:
    if db.is_sqlite:
        columns = sa.text(f"SELECT count(*) = 2 FROM pragma_index_info('{FINGERPRINT}')")  # noqa: S608
        return bool(await connection.scalar(columns))
    return bool(await connection.scalar(sa.select(sa.func.to_regclass(UNIQUE).is_not(None))))
