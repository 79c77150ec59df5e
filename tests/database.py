"""Databases that a test uses more than once."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.tables import metadata, settle_sequence


async def delete_all_rows(connection: AsyncConnection) -> None:
    """Every row of ours; what only the schema's own tables hold stays."""
    for table in reversed(metadata.sorted_tables):
        if table is settle_sequence:  # its one row is there from the start
            await connection.execute(sa.update(table).values(value=0))
            continue
        await connection.execute(sa.delete(table))
