"""Databases that a test uses more than once."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.tables import metadata


async def delete_all_rows(connection: AsyncConnection) -> None:
    """Every row of ours; what only the schema's own tables hold stays."""
    for table in reversed(metadata.sorted_tables):
        await connection.execute(sa.delete(table))
