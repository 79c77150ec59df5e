"""Whose task an id of the provider's is: the read that settling and verifying share."""

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.database import Database
from app.store.tables import attempts, tasks


async def owners_of(
    db: Database, connection: AsyncConnection, provider_task_ids: Iterable[str]
) -> dict[str, set[tuple[str, int]]]:
    """Id of the provider's -> (task id, attempt) of all that it was given to, replaced ones too."""
    wanted = sorted(set(provider_task_ids))
    owners: dict[str, set[tuple[str, int]]] = {}
    if not wanted:
        return owners
    batch = db.batch("v", {"provider_task_id": sa.Text()}, [{"provider_task_id": i} for i in wanted])
    for table, id_column in ((tasks, tasks.c.id), (attempts, attempts.c.task_id)):
        query = sa.select(table.c.provider_task_id, id_column, table.c.attempt)
        for row in await connection.execute(
            query.join(batch, table.c.provider_task_id == batch.c.provider_task_id)
        ):
            owners.setdefault(row[0], set()).add((row[1], row[2]))
    return owners
