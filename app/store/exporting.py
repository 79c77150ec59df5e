"""Reads of a run's rows, one after another, however many there are. Nothing here writes."""

import json
from collections.abc import AsyncIterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.engine import Database
from app.store.tables import results, tasks

EXPORT_CHUNK = 500


class ExportReads:
    """Part of Store."""

    db: Database

    async def export(self, run_id: str) -> AsyncIterator[dict[str, Any]]:
        """Every task of a run with its answer, in the order of its source; read in chunks, so that memory
        stays flat however long the run is."""
        after = 0
        while True:
            rows = await self._export_chunk(run_id, after)
            for row in rows:
                yield row
            if len(rows) < EXPORT_CHUNK:
                return
            after = rows[-1]["ordinal"]

    async def _export_chunk(self, run_id: str, after: int) -> list[dict[str, Any]]:
        t = tasks.c
        query = (
            sa.select(
                t.ordinal, t.id.label("task_id"), t.attempt, t.task_type, t.payload, t.priority, t.state,
                t.verdict, t.credits_estimate, t.credits_to_charge, t.credits_charged, t.provider_task_id,
                t.error_code, t.error_message, t.submitted_at_ms, t.settled_at_ms, t.settled_by,
                t.reused_from, results.c.response,
            )
            .outerjoin(results, sa.and_(results.c.task_id == t.id, results.c.attempt == t.attempt))
            .where(t.run_id == run_id, t.ordinal > after)
            .order_by(t.ordinal)
            .limit(EXPORT_CHUNK)
        )  # fmt: skip

        async def work(connection: AsyncConnection) -> list[dict[str, Any]]:
            return [
                dict(row._mapping) | {"payload": json.loads(row.payload)}
                for row in await connection.execute(query)
            ]

        return await self.db.read(work)
