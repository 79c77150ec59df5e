"""The end of the upgrade to results without answers: the column that the version before inserts into goes."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.database import Database

VACUUM_BYTES_MIN = 64 << 20
"""Free space in an SQLite file that is worth writing it anew."""


async def has_response(db: Database) -> bool:
    """Whether `results` has the column still."""
    return await db.read(lambda connection: connection.run_sync(has_response_column))


def has_response_column(connection: sa.Connection) -> bool:
    """The same, within a transaction; the column is the last thing to go."""
    return any(column["name"] == "response" for column in sa.inspect(connection).get_columns("results"))


async def drop_response(db: Database) -> None:
    """Drop it, and give back to the disk what the answers took in an SQLite file."""
    if db.is_sqlite:
        await _vacuum(db)

    async def drop(connection: AsyncConnection) -> None:
        if db.is_sqlite:
            columns = await connection.run_sync(lambda it: sa.inspect(it).get_columns("results"))
            await connection.execute(sa.text("DROP TRIGGER IF EXISTS results_narrow"))
            if any(column["name"] == "response" for column in columns):
                await connection.execute(sa.text("ALTER TABLE results DROP COLUMN response"))
            return
        await connection.execute(sa.text("DROP TRIGGER IF EXISTS results_narrow ON results"))
        await connection.execute(sa.text("DROP FUNCTION IF EXISTS results_narrow()"))
        await connection.execute(sa.text("ALTER TABLE results DROP COLUMN IF EXISTS response"))

    await db.write(drop, long=True)


async def _vacuum(db: Database) -> None:
    """Writes the whole file anew, when enough of it is free; that needs as much room again."""
    async with db.engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await connection.rollback()

        async def ask(pragma: str) -> int:
            row = await (await driver.execute(f"PRAGMA {pragma}")).fetchone()
            return int(row[0])

        free = await ask("freelist_count") * await ask("page_size")
        if free < VACUUM_BYTES_MIN or await ask("freelist_count") < await ask("page_count") // 10:
            return
        # Beside the file, not in memory, where temporary tables are kept otherwise.
        await driver.execute("PRAGMA temp_store=FILE")
        try:
            await driver.execute("VACUUM")
        finally:
            await driver.execute("PRAGMA temp_store=MEMORY")
