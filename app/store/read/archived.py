"""Deliveries that are looked for by their ids and are in the archive. Never writes."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from app.ports import ArchivedDeliveries
from app.store.database import Database
from app.store.write.archives import blocks_of


async def archived_rows(
    db: Database, connection: AsyncConnection, archive: ArchivedDeliveries | None, delivery_ids: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Delivery id -> its row as it stood in the database, `body` as it was received (encoding identity).
    Without those that no block has. Raises BlockDamaged, ObjectsUnavailable, ObjectsRefused."""
    wanted = set(delivery_ids)
    found: dict[str, dict[str, Any]] = {}
    if archive is None or not wanted:
        return found
    for block in await blocks_of(db, connection, wanted):
        found |= await archive.deliveries(block, wanted - found.keys())
    return found
